; fibonacci - prints the Fibonacci numbers from A and B on, up to LIMIT.
%include "abi.inc"
bits 16
org 0

%ifndef A
%define A 0
%define B 1
%endif
%ifndef LIMIT
%define LIMIT 89
%endif

    mov esi, A              ; this number
    mov edi, B              ; and the next one
next:
    mov eax, esi
    call print_number
    xadd edi, esi           ; EDI = their sum, ESI = the number after this one
    cmp esi, LIMIT
    ja done
    mov bl, ' '
    call print_char
    jmp next
done:
    call print_newline
    mov bl, 0
    jmp exit

%include "console.inc"
