; long-state - prints the start state of long mode: selectors, TR, control registers, EFER, GDTR, flags and
; stack. Then it reloads every segment register and TR, as a kernel does, and prints TEXT if that worked.
; Of CR0 and CR4 it prints only the bits that the VMM sets: others can be the host's.
%include "long.inc"

CR0_CHECKED equ 0xe0010031      ; PG, CD, NW, WP, NE, ET, PE
CR4_CHECKED equ 0x630           ; OSXMMEXCPT, OSFXSR, PAE, PSE
MSR_EFER equ 0xc0000080
TSS_DESCRIPTOR equ HIGHER_HALF_64 + GDT_OFFSET + SELECTOR_TSS

%ifndef TEXT
%define TEXT "all segments loaded"
%endif

start:
    pushfq                  ; the values to print, last one first
    sub rsp, 16
    sgdt [rsp]
    movzx eax, word [rsp]
    mov rdx, [rsp + 2]
    add rsp, 16
    push rdx
    push rax
    mov ecx, MSR_EFER
    rdmsr
    push rax
    mov rax, cr4
    and eax, CR4_CHECKED
    push rax
    mov rax, cr3
    push rax
    mov rax, cr0
    and eax, CR0_CHECKED
    push rax
    xor eax, eax
    str ax
    push rax
    xor eax, eax
    mov ax, gs
    push rax
    mov ax, fs
    push rax
    mov ax, es
    push rax
    mov ax, ds
    push rax
    mov ax, ss
    push rax
    mov ax, cs
    push rax
    mov ebp, 14
    lea rsi, [rel names]
next:
    call print_string
    pop rax
    call print_hex
    call print_newline
    dec ebp
    jnz next
    call print_string
    mov rax, rsp            ; everything pushed is popped again
    call print_hex
    call print_newline

    lea rax, [rel reloaded]
    push SELECTOR_KERNEL_CODE
    push rax
    retfq
reloaded:
    mov ax, SELECTOR_LONG_USER_DATA
    mov ds, ax
    mov es, ax
    mov ax, SELECTOR_KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov rax, TSS_DESCRIPTOR
    and byte [rax + 5], ~2  ; LTR accepts only an available TSS
    mov ax, SELECTOR_TSS
    ltr ax
    lea rsi, [rel text]
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

names: db "cs ", 0, "ss ", 0, "ds ", 0, "es ", 0, "fs ", 0, "gs ", 0, "tr ", 0
    db "cr0 ", 0, "cr3 ", 0, "cr4 ", 0, "efer ", 0, "gdt limit ", 0, "gdt base ", 0, "rflags ", 0
    db "rsp ", 0
text: db TEXT, 0
%include "long-print.inc"
