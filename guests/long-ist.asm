; long-ist - a page fault on a broken stack: RSP is BROKEN, which is not mapped, when the guest pushes. The
; handler has a stack of its own, number IST of the TSS, whose end is at STACK. Prints CR2, and how far below
; STACK the handler starts: six words, which the processor has pushed.
%include "long.inc"

%ifndef BROKEN
%define BROKEN 0x40000000
%endif
%ifndef STACK
%define STACK HIGHER_HALF_64 + 0x300000
%endif
%ifndef IST
%define IST 1
%endif

TSS equ HIGHER_HALF_64 + TSS_OFFSET
TSS_DESCRIPTOR equ HIGHER_HALF_64 + GDT_OFFSET + SELECTOR_TSS

start:
    mov r15, STACK
    mov rdi, TSS
    mov [rdi + 28 + 8 * IST], r15   ; ist1 is at 36
    ; TR is loaded already. Loading it again does no harm, and QEMU needs it: its processor aborts when an
    ; interrupt takes its stack from a busy TSS that a VM entry has loaded.
    mov rax, TSS_DESCRIPTOR
    and byte [rax + 5], ~2  ; LTR accepts only an available TSS
    mov ax, SELECTOR_TSS
    ltr ax
    call install_idt
    mov edx, GATE_KERNEL | IST
    mov ecx, 14
    lea rax, [rel on_page_fault]
    call set_gate
    mov rsp, BROKEN
    push rax
    mov bl, 1               ; the push did not fault
    jmp exit

on_page_fault:
    mov r14, rsp
    mov eax, SELECTOR_KERNEL_DATA
    mov ss, eax             ; some processors load 0 when they take a stack from the IST
    mov rax, cr2
    call print_hex
    call print_space
    mov rax, r15
    sub rax, r14
    call print_hex
    call print_newline
    mov bl, 0
    jmp exit
%include "long-print.inc"
