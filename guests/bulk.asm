; bulk - reads all of its input in the keyboard's handler, one byte per interrupt, or with -DDRAIN all
; available bytes. KEY changes each byte; after every BLOCK bytes, and at the end, it prints them in one
; exit.
%include "abi.inc"
bits 16
org 0

%ifndef KEY
%define KEY 0
%endif
%ifndef BLOCK
%define BLOCK 4096
%endif

BUFFER equ 0xa000

    mov ax, ignore
    mov bx, on_key
    call install_vectors
    mov di, BUFFER
sleep:
    cli
    cmp byte [ended], 0
    jne end
    sti
    hlt
    jmp sleep
end:
    call put_out
    mov bl, 0
    jmp exit

on_key:                     ; DI belongs to this handler
    push eax
    push cx
    push dx
    push si
    mov dx, HYPERCALL_PORT
.take:
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je .return
    cmp eax, GETCHAR_END
    je .end
    xor al, KEY
    mov [di], al
    inc di
    cmp di, BUFFER + BLOCK
    jb .kept
    call put_out
.kept:
%ifdef DRAIN
    jmp .take
%else
    jmp .return
%endif
.end:
    mov byte [ended], 1
.return:
    pop si
    pop dx
    pop cx
    pop eax
    iret

; put_out: prints the buffer. Changes EAX, CX, DX, SI and DI.
put_out:
    mov cx, di
    sub cx, BUFFER
    jz .empty
    mov si, BUFFER
    mov dx, HYPERCALL_PORT
    mov eax, HC_WRITE
    out dx, eax
.empty:
    mov di, BUFFER
    mov dx, HYPERCALL_PORT
    ret

%include "console.inc"
%include "vectors.inc"

ended: db 0
