; strings - fills LENGTH bytes with letters that it computes from SEED, prints them with one
; `rep outsb`, and ends the line. With BACKWARDS it prints them from the last to the first.
%include "abi.inc"
bits 16
org 0

%ifndef SEED
%define SEED 1
%endif
%ifndef LENGTH
%define LENGTH 60
%endif

    mov di, letters
    call fill_letters

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

%include "letters.inc"

newline: db 10
letters:                    ; after the image: memory is zero there
