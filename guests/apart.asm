; apart - one of several guests in one VM, which tries to reach the others' memory. It writes MARK to its
; own memory, prints one mark after the other while its neighbours do the same at the same addresses, and
; then tries to access memory past its 4 MB in both halves: two page faults are correct.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

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

    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 14
    mov eax, on_page_fault
    call set_gate

    mov edi, OFFSET
    mov ecx, MARKS
mark:
    lea eax, [MARK + ecx]
    mov [edi], eax
    add edi, STRIDE
    loop mark

    mov edi, HIGHER_HALF + OFFSET
    mov ebp, MARKS
next:
    mov eax, [edi]
    call print_hex
    call print_newline
    add edi, STRIDE
    dec ebp
    jnz next

    mov dword [resume], low_done
    mov eax, [BEYOND]
low_done:
    mov dword [resume], high_done
    mov [HIGHER_HALF + BEYOND], eax
high_done:
    mov bl, 0
    jmp exit

on_page_fault:
    mov eax, cr2
    call print_hex
    call print_space
    pop eax
    call print_hex
    call print_newline
    mov eax, [resume]
    mov [esp], eax
    iretd

%include "protected.inc"

    align 4
resume: dd 0
