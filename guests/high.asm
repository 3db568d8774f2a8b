; high - prints where it runs: the page of its EIP, then TEXT. Assembled for --load=LOAD, with its first
; instruction at ENTRY in the image.
%include "abi.inc"
bits 32

%ifndef LOAD
%define LOAD LOAD_DEFAULT
%endif
%ifndef ENTRY
%define ENTRY 0
%endif
%ifndef TEXT
%define TEXT "Hello from the higher half"
%endif
org HIGHER_HALF + LOAD

times ENTRY db 0xf4         ; HLT: an entry elsewhere ends here

    call here
here:
    pop eax
    and eax, 0xfffff000
    call print_hex
    call print_space
    mov esi, text
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

%include "protected.inc"

text: db TEXT, 0
