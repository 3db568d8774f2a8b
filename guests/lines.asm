; lines - prints LINES numbered lines, one character per exit. Several of these at the same time show
; whether the lines of different vCPUs get mixed.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "the quick brown fox"
%endif
%ifndef LINES
%define LINES 10
%endif

    xor edi, edi
next:
    mov eax, edi
    call print_number
    mov bl, ' '
    call print_char
    mov si, text
    call print_string
    call print_newline
    inc edi
    cmp edi, LINES
    jb next
    mov bl, 0
    jmp exit

%include "console.inc"

text: db TEXT, 0
