; unfinished - prints a text without a newline. With LOOP it then passes the turn to a `ping-pong` with
; ME=1, and loops forever.
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
    mov ax, 0x3f00          ; the segment that ping-pong reads
    mov es, ax
    mov word [es:0], 1
    jmp $
%endif
    mov bl, 0
    jmp exit

%include "console.inc"

text: db FIRST, 10, TEXT, 0
