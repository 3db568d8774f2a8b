; long-apart - one of several 64-bit guests in one VM, which tries to reach the others' memory. It writes MARK
; to its own memory, prints one mark after the other while its neighbours do the same at the same addresses,
; and then tries to access memory past its 4 MB in both halves: two page faults are correct.
%include "long.inc"

%ifndef MARK
%define MARK 1
%endif
%ifndef OFFSET
%define OFFSET 0x200000
%endif
%ifndef BEYOND
%define BEYOND SLOT_BYTES
%endif

MARKS equ 8
STRIDE equ 0x20000

start:
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 14
    lea rax, [rel on_page_fault]
    call set_gate

    mov edi, OFFSET
    mov ecx, MARKS
mark:
    mov rax, MARK
    add rax, rcx
    mov [rdi], rax
    add rdi, STRIDE
    loop mark

    mov r12, HIGHER_HALF_64 + OFFSET
    mov ebp, MARKS
next:
    mov rax, [r12]
    call print_hex
    call print_newline
    add r12, STRIDE
    dec ebp
    jnz next

    lea rax, [rel low_done]
    mov [rel resume], rax
    mov rax, [abs BEYOND]
low_done:
    lea rax, [rel high_done]
    mov [rel resume], rax
    mov r12, HIGHER_HALF_64 + BEYOND
    mov [r12], rax
high_done:
    mov bl, 0
    jmp exit

on_page_fault:
    mov rax, cr2
    call print_hex
    call print_space
    pop rax                 ; the error code
    call print_hex
    call print_newline
    mov rax, [rel resume]
    mov [rsp], rax
    iretq

    align 8
resume: dq 0
%include "long-print.inc"
