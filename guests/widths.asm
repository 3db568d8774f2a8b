; widths - makes the same calls with operands of 8, 16 and 32 bits. The rest of the register is not part
; of the operand: GARBAGE there must not change anything.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "abc"          ; 3 characters: one for each width
%endif
%ifndef GARBAGE
%define GARBAGE 0xdead5a00
%endif
%ifndef STATUS
%define STATUS 0
%endif

    mov dx, HYPERCALL_PORT

    mov ebx, GARBAGE        ; the character is BL, whatever else is in EBX
    mov bl, [text]
    mov eax, GARBAGE + HC_PUTCHAR
    out dx, al

    mov bl, [text + 1]
    mov eax, (GARBAGE & 0xffff0000) + HC_PUTCHAR
    out dx, ax

    mov bl, [text + 2]
    mov eax, HC_PUTCHAR
    out dx, eax

    mov bl, 10
    out dx, eax
    mov bl, STATUS          ; so is the status
    mov eax, (GARBAGE & 0xffff0000) + HC_EXIT
    out dx, ax

text: db TEXT
