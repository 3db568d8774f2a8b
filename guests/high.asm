; high - prints where it runs: the page of its EIP, then TEXT. Assembled for --load=LOAD, with its first
; instruction at ENTRY in the image.
; With -DAWAY it then goes on at AWAY, through a directory entry and a table of its own, puts TABLE_ENTRY into
; that table and ends there: in the page at PAGE, if that is where the entry leads, without a handler.
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
%ifdef AWAY
    mov edi, HIGHER_HALF + PAGE
    mov ecx, PAGE_BYTES / 4
    mov eax, 0xcccccccc     ; INT3
    rep stosd
    mov dword [HIGHER_HALF + DIRECTORY_OFFSET + AWAY / LARGE_PAGE_BYTES * 4], DIRECTORY_ENTRY
    mov dword [TABLE_PLACE], LOAD + away - $$ + 0x61
    mov eax, AWAY
    jmp eax
%endif
    mov bl, 0
    jmp exit

%include "protected.inc"

text: db TEXT, 0

%ifdef AWAY
TABLE_PLACE equ HIGHER_HALF + (DIRECTORY_ENTRY & 0xfffff000) + (AWAY / PAGE_BYTES & 1023) * 4
    align PAGE_BYTES
away:
    mov bl, '.'
    mov eax, HC_PUTCHAR
    mov edx, HYPERCALL_PORT
    out dx, eax             ; AMD's processors forget all that comes after it
    mov dword [TABLE_PLACE], TABLE_ENTRY
    mov eax, cr3
    mov cr3, eax
    int3
%endif
