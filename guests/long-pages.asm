; long-pages - writes a number to each of the physical PAGES (MARK, MARK + 1, ...) through the higher half.
; Then it reads through the addresses VIRTUAL, which --map has mapped: it prints the value at OFFSET there,
; adds ADDEND through the same address, and prints the values again through the higher half.
%include "long.inc"

%ifndef PAGES
%define PAGES 0x200000, 0x201000
%endif
%ifndef VIRTUAL
%define VIRTUAL 0x200000, 0x201000
%endif
%ifndef MARK
%define MARK 1
%endif
%ifndef OFFSET
%define OFFSET 0
%endif
%ifndef ADDEND
%define ADDEND 1
%endif

start:
    mov r15, HIGHER_HALF_64 + OFFSET
    mov r14, MARK
    lea rbp, [rel pages]
mark:
    mov rdi, [rbp]
    mov [r15 + rdi], r14
    inc r14
    add rbp, 8
    lea rax, [rel virtual]
    cmp rbp, rax
    jb mark

next:
    mov rdi, [rbp]
    mov rax, [rdi + OFFSET]
    call print_hex
    call print_newline
    mov rax, ADDEND
    add [rdi + OFFSET], rax
    add rbp, 8
    lea rax, [rel end]
    cmp rbp, rax
    jb next

    lea rbp, [rel pages]
again:
    mov rdi, [rbp]
    mov rax, [r15 + rdi]
    call print_hex
    call print_newline
    add rbp, 8
    lea rax, [rel virtual]
    cmp rbp, rax
    jb again
    mov bl, 0
    jmp exit

    align 8
pages: dq PAGES
virtual: dq VIRTUAL
end:
%include "long-print.inc"
