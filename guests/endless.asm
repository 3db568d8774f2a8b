; endless - prints a line, then loops forever without a single exit.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "looping; Ctrl-C ends me"
%endif

    mov si, text
    call print_string
    jmp $

%include "console.inc"

text: db TEXT, 10, 0
