; linux-state - prints the state in which Linux is started: registers, what of the control registers it depends
; on, the end of RAM through the identity mapping, CPUID and an MSR; then it loads all segment registers again.
%include "linux.inc"

%ifndef RAM_BYTES
%define RAM_BYTES 0x1000000
%endif
%ifndef MARK
%define MARK 1
%endif
%ifndef TEXT
%define TEXT "reloaded"
%endif
MSR_EFER equ 0xc0000080
MSR_MISC_ENABLE equ 0x1a0

; Prints a name and RAX, in a line.
%macro show 1
    push rax
    lea rsi, [rel %%name]
    call print_string
    pop rax
    call print_hex
    call print_newline
    jmp %%end
%%name: db %1, " ", 0
%%end:
%endmacro

start:
    mov [rel zero_page], rsi
    or rax, rbx
    or rax, rcx
    or rax, rdx
    or rax, rdi
    or rax, rbp
    or rax, r8
    or rax, r9
    or rax, r10
    or rax, r11
    or rax, r12
    or rax, r13
    or rax, r14
    or rax, r15
    mov [rel others], rax
    mov rsp, STACK
    pushfq
    pop rax
    and eax, ~0x8d5         ; without those that OR changes
    mov [rel flags], rax
    lea rax, [rel start]
    show "rip"
    mov rax, [rel zero_page]
    show "rsi"
    mov rax, [rel others]
    show "others"
    mov rax, [rel flags]
    show "flags"
    xor eax, eax
    mov ax, cs
    show "cs"
    mov ax, ss
    show "ss"
    mov ax, ds
    show "ds"
    mov ax, es
    show "es"
    mov ax, fs
    show "fs"
    mov ax, gs
    show "gs"
    mov rax, cr0
    and eax, 0x80000001
    show "cr0"
    mov rax, cr3
    show "cr3"
    mov rax, cr4
    and eax, 0x20
    show "cr4"
    mov ecx, MSR_EFER
    rdmsr
    and eax, 0x500
    show "efer"
    mov rax, MARK
    mov rdi, RAM_BYTES - 8
    mov [rdi], rax
    xor eax, eax
    mov rax, [rdi]
    show "memory"
    mov eax, CPUID_SIGNATURE
    cpuid
    mov eax, ebx
    show "signature"
    mov eax, 1
    cpuid
    mov r8d, edx
    mov eax, ecx
    shr eax, 31
    show "hypervisor"
    mov eax, r8d
    shr eax, 9
    and eax, 1
    show "apic"
    mov ecx, MSR_MISC_ENABLE
    rdmsr
    and eax, 1
    show "strings"
    push SELECTOR_KERNEL_CODE
    lea rax, [rel reloaded]
    push rax
    retfq
reloaded:
    mov eax, 0x18
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    lea rsi, [rel text]
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

    align 8
zero_page: dq 0
others: dq 0
flags: dq 0
text: db TEXT, 0
%include "linux-end.inc"
