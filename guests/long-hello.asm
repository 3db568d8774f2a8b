; long-hello - a 64-bit guest in the higher half: prints the page of its RIP, the boot information's first
; two words, which RDI points to, then TEXT. The first instruction is at ENTRY past the file's headers.
%include "long.inc"

%ifndef ENTRY
%define ENTRY 0
%endif
%ifndef TEXT
%define TEXT "Hello from long mode"
%endif

times ENTRY db 0xf4         ; HLT: an entry elsewhere ends here
start:
    lea rax, [rel start]
    and rax, -PAGE_BYTES
    call print_hex
    call print_space
    mov rax, [rdi]          ; magic and size
    call print_hex
    call print_space
    mov eax, [rdi + 8]      ; bytes of memory
    call print_hex
    call print_space
    lea rsi, [rel text]
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

text: db TEXT, 0
%include "long-print.inc"
