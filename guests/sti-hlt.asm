; sti-hlt - sleeps ROUNDS times with `sti` and `hlt`, and counts how often it continued without an
; interrupt. Prints a dot every hundred rounds, and at the end FIRST plus that count.
%include "abi.inc"
bits 16
org 0

%ifndef ROUNDS
%define ROUNDS 1000         ; a multiple of 100
%endif
%ifndef FIRST
%define FIRST 0
%endif

    mov ax, on_interrupt
    mov bx, on_interrupt
    call install_vectors
    mov esi, FIRST
    mov bp, ROUNDS
    mov cx, 100
next:
    cli
    mov ax, [interrupts]
    sti                     ; takes effect after the next instruction
    hlt
    cmp ax, [interrupts]
    jne woken
    inc esi
woken:
    loop next
    mov bl, '.'
    call print_char
    mov cx, 100
    sub bp, cx
    ja next
    mov eax, esi
    call print_number
    call print_newline
    mov bl, 0
    jmp exit

on_interrupt:
    inc word [interrupts]
    iret

%include "console.inc"
%include "vectors.inc"

interrupts: dw 0
