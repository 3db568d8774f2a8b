; idle - sleeps until TICKS ticks have arrived, then prints how many keyboard interrupts there were,
; plus FIRST.
%include "abi.inc"
bits 16
org 0

%ifndef TICKS
%define TICKS 100
%endif
%ifndef FIRST
%define FIRST 0
%endif

    mov ax, on_tick
    mov bx, on_key
    call install_vectors
next:
    sti
    hlt
    cli
    cmp word [ticks], TICKS
    jb next
    mov eax, [keys]
    add eax, FIRST
    call print_number
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    inc word [ticks]
    iret

on_key:
    inc dword [keys]
    iret

%include "console.inc"
%include "vectors.inc"

ticks: dw 0
keys: dd 0
