; typing - prints PROMPT, then its input, each character changed by KEY, in the keyboard's handler, which
; reads one character per interrupt. The character LAST, or the end of input, ends it with STATUS.
%include "abi.inc"
bits 16
org 0

%ifndef PROMPT
%define PROMPT "type, q ends: "
%endif
%ifndef KEY
%define KEY 0               ; exclusive or: 0 changes nothing
%endif
%ifndef LAST
%define LAST 'q'
%endif
%ifndef STATUS
%define STATUS 0
%endif

    mov ax, ignore
    mov bx, on_key
    call install_vectors
    mov si, prompt
    call print_string
sleep:
    cli
    cmp byte [ended], 0
    jne end
    sti
    hlt
    jmp sleep
end:
    call print_newline
    mov bl, STATUS
    jmp exit

on_key:
    cmp byte [ended], 0
    jne ignore
    pushad
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je .return
    cmp eax, GETCHAR_END
    je .end
    cmp al, LAST
    je .end
    mov bl, al
    xor bl, KEY
    call print_char
    jmp .return
.end:
    mov byte [ended], 1
.return:
    popad
    iret

%include "console.inc"
%include "vectors.inc"

ended: db 0
prompt: db PROMPT, 0
