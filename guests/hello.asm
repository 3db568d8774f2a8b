; hello - prints a line.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "Hello from the guest!"
%endif
%ifndef STATUS
%define STATUS 0
%endif

    mov si, text
    call print_string
    mov bl, STATUS
    jmp exit

%include "console.inc"

text: db TEXT, 10, 0
