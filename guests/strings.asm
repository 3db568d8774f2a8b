; strings - fills LENGTH bytes with letters that it computes from SEED, prints them with one
; `rep outsb`, and ends the line. With BACKWARDS it prints them from the last to the first.
;
; Each letter is 'a' + (X >> 8) mod 26, where X is first SEED, then X * 25173 + 13849 modulo 65536.
%include "abi.inc"
bits 16
org 0

%ifndef SEED
%define SEED 1
%endif
%ifndef LENGTH
%define LENGTH 60
%endif

    cld
    mov di, letters
    mov cx, LENGTH
    mov si, SEED
fill:
    mov ax, si
    shr ax, 8
    mov bl, 26
    div bl                  ; AH = AX mod 26
    mov al, ah
    add al, 'a'
    stosb
    imul si, si, 25173
    add si, 13849
    loop fill

    mov dx, STRING_PORT
    mov cx, LENGTH
%ifdef BACKWARDS
    std
    mov si, letters + LENGTH - 1
%else
    mov si, letters
%endif
    rep outsb

    cld
    mov si, newline
    mov cx, 1
    rep outsb
    rep outsb               ; CX is 0 now: prints nothing

    mov bl, 0
    mov al, HC_EXIT
    mov dx, HYPERCALL_PORT
    out dx, al

newline: db 10
letters:                    ; behind the image: memory is zero there
