; long-broken - breaks its own page tables and crashes, for the post-mortem: in the entry that maps its code
; at LEVEL (3: PML4, 2: PDPT, 1: PD) it clears the bits of CLEAR and sets those of SET. Prints TEXT before.
%include "long.inc"

%ifndef LEVEL
%define LEVEL 1
%endif
%ifndef CLEAR
%define CLEAR 1
%endif
%ifndef SET
%define SET 0
%endif
%ifndef TEXT
%define TEXT "breaks a page table"
%endif

FRAME equ 0xffffffffff000

start:
    lea rsi, [rel text]
    call print_string
    call print_newline
    mov rdi, cr3
    mov r8d, 3
    mov ecx, 39
down:                       ; RDI: a table, physical; all of memory is mapped from 0
    lea rax, [rel start]
    shr rax, cl
    and eax, 511
    lea rdi, [rdi + rax * 8]
    cmp r8d, LEVEL
    je found
    mov rdi, [rdi]
    mov rax, FRAME
    and rdi, rax
    sub ecx, 9
    dec r8d
    jmp down
found:
    mov rdx, [rdi]
    mov rax, ~(CLEAR)
    and rdx, rax
    mov rax, SET
    or rdx, rax
    mov [rdi], rdx          ; in one write: the code that runs needs the entry
    mov rax, cr3
    mov cr3, rax            ; forgets what the processor has cached
    mov bl, 0
    jmp exit

text: db TEXT, 0
%include "long-print.inc"
