; segments - reads the same two words through every segment register, then leaves them in
; registers: `--regs` shows them.
;   EAX = CS, EBX = DS, ECX = ES, EDX = FS, ESI = GS, EDI = SS: each must be MARK.
; A segment register with a wrong base reads something else. A selector that does not match its base is
; noticed as soon as the register is loaded again, as by the far return here.
bits 16
org 0

%ifndef MARK
%define MARK 0x12345678
%endif
%ifndef PADDING
%define PADDING 100         ; bytes that move the mark to another address
%endif

    push cs
    push word reloaded
    retf                    ; loads CS and IP from the stack

times PADDING db 0xf4       ; HLT: a wrong return ends here or elsewhere, with other results

mark: dd MARK

reloaded:
    push ds
    pop ds
    push es
    pop es
    mov eax, [cs:mark]
    mov ebx, [ds:mark]
    mov ecx, [es:mark]
    mov edx, [fs:mark]
    mov esi, [gs:mark]
    mov edi, [ss:mark]
    hlt
