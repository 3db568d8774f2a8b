; unfinished - prints a text and leaves its line without an end. With LOOP it then tells a `ping-pong`
; with ME=1 that it is its turn, and loops for ever.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "this line has no end"
%endif
%ifndef FIRST
%define FIRST "a line"
%endif

    mov si, text
    call print_string
%ifdef LOOP
    mov ax, 0x3f00          ; the segment that ping-pong looks at
    mov es, ax
    mov word [es:0], 1
    jmp $
%endif
    mov bl, 0
    jmp exit

%include "console.inc"

text: db FIRST, 10, TEXT, 0
