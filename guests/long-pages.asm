; long-pages - writes a number to each of the physical PAGES (MARK, MARK + 1, ...) through the higher half.
; Then it reads through the addresses VIRTUAL, which --map has mapped: it prints the value at OFFSET there,
; adds ADDEND through the same address, and prints the values again through the higher half. A number that
; no table leads to ends it: memory can be at two physical addresses.
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
    call walk
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

; walk: the number RAX was read at RDI. If it is that of a page, the tables must lead there, by four entries.
; Changes RBX, RCX, RDX, RSI and R14.
walk:
    mov rbx, rax
    mov rcx, MARK
    sub rbx, rcx
    cmp rbx, (virtual - pages) / 8
    jae .end                ; another number, which is printed
    lea rsi, [rel pages]
    mov rsi, [rsi + rbx * 8]
    mov r14, 0x000ffffffffff000     ; an entry's physical address
    mov rdx, cr3
    mov ecx, 39             ; where the index of this level begins in an address
.level:
    and rdx, r14
    mov rbx, rdi
    shr rbx, cl
    and ebx, 511
    lea rdx, [rdx + rbx * 8]
    mov rbx, HIGHER_HALF_64
    mov rdx, [rdx + rbx]
    sub ecx, 9
    cmp ecx, 12
    jae .level
    and rdx, r14
    cmp rdx, rsi
    mov bl, STATUS_NOT_PAGED
    jne exit
.end:
    ret

    align 8
pages: dq PAGES
virtual: dq VIRTUAL
end:
%include "long-print.inc"
