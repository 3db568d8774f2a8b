; counter - counts from FIRST to LAST, one number per line, with a delay between two lines.
%include "abi.inc"
bits 16
org 0

%ifndef FIRST
%define FIRST 0
%endif
%ifndef LAST
%define LAST 9
%endif
%ifndef DELAY
%define DELAY 20000         ; iterations of an empty loop
%endif

    mov esi, FIRST
count:
    mov eax, esi
    call print_number
    call print_newline

    mov ecx, DELAY
wait_a_little:
    dec ecx
    jnz wait_a_little

    inc esi
    cmp esi, LAST
    jbe count

    mov bl, 0
    jmp exit

%include "console.inc"
