; windows - prints the start value of each segment register, and checks that data and stack are in the
; window: it prints CS DS ES FS GS SS, then a number that it has copied through DS and the stack.
%include "abi.inc"
bits 16
org 0

%ifndef MARK
%define MARK 12345
%endif

    push ss
    push gs
    push fs
    push es
    push ds
    push cs
    mov si, 6
next:
    pop ax
    movzx eax, ax
    call print_number
    mov bl, ' '
    call print_char
    dec si
    jnz next

    push dword [mark]
    pop eax
    call print_number
    call print_newline
    mov bl, 0
    jmp exit

%include "console.inc"

mark: dd MARK
