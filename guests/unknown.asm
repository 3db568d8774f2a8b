; unknown - prints a line, then makes an undefined access: NUMBER to PORT with WIDTH bits, or with READ a
; read from it. The access is at ADDRESS, which a post-mortem must name. With CALLS=1 it first calls
; GETCHAR and reads the answer, so that the access is one read too many.
%include "abi.inc"
bits 16
org 0

%ifndef NUMBER
%define NUMBER 99
%endif
%ifndef PORT
%define PORT HYPERCALL_PORT
%endif
%ifndef WIDTH
%define WIDTH 8
%endif
%ifndef ADDRESS
%define ADDRESS 0x200
%endif
%ifndef CALLS
%define CALLS 0
%endif
%ifndef TEXT
%define TEXT "before"
%endif

%if WIDTH == 8
    %define operand al
%elif WIDTH == 16
    %define operand ax
%else
    %define operand eax
%endif

    mov si, text
    call print_string
%if CALLS
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
%endif
    mov dx, PORT
    mov eax, NUMBER
    jmp near access

%include "console.inc"
text: db TEXT, 10, 0
after: db "The access was ignored.", 10, 0

times ADDRESS - ($ - $$) db 0
access:
%ifdef READ
    in operand, dx
%else
    out dx, operand
%endif
    mov si, after
    call print_string
    mov bl, 0
    jmp exit
