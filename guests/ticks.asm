; ticks - counts TICKS timer interrupts and prints STEP times the number of each. Between two of them
; it sleeps in HLT; with -DBUSY it runs in a loop that never exits to the VMM.
%include "abi.inc"
bits 16
org 0

%ifndef TICKS
%define TICKS 5
%endif
%ifndef STEP
%define STEP 1
%endif

    mov ax, on_tick
    mov bx, ignore
    call install_vectors
    xor edi, edi
next:
    inc edi
wait_for_tick:
%ifdef BUSY
    sti
    cmp [ticks], edi
    jb wait_for_tick
%else
    cli
    cmp [ticks], edi
    jae come
    sti                     ; takes effect after the next instruction: no tick is lost in between
    hlt
    jmp wait_for_tick
come:
    sti
%endif
    imul eax, edi, STEP
    call print_number
    call print_newline
    cmp edi, TICKS
    jb next
    mov bl, 0
    jmp exit

on_tick:
    inc dword [ticks]
    iret

%include "console.inc"
%include "vectors.inc"

ticks: dd 0
