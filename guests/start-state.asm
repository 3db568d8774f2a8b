; start-state - prints its start state: selectors, control registers, flags, GDTR, stack. Then it reloads
; every segment register, as a kernel does, and prints TEXT if that worked.
; Of CR0 and CR4 it prints only the bits that the VMM sets. Others can be the host's: on AMD a guest may
; read the host's CR4.MCE.
%include "abi.inc"

CR0_CHECKED equ 0xe0010031      ; PG, CD, NW, WP, NE, ET, PE
CR4_CHECKED equ 0x30            ; PAE, PSE

bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef TEXT
%define TEXT "all segments loaded"
%endif

    pushfd                  ; the values to print, last one first
    sub esp, 8
    sgdt [esp]
    movzx eax, word [esp]
    mov edx, [esp + 2]
    add esp, 8
    push edx
    push eax
    mov eax, cr4
    and eax, CR4_CHECKED
    push eax
    mov eax, cr3
    push eax
    mov eax, cr0
    and eax, CR0_CHECKED
    push eax
    str eax
    push eax
    xor eax, eax
    mov ax, gs
    push eax
    mov ax, fs
    push eax
    mov ax, es
    push eax
    mov ax, ds
    push eax
    mov ax, ss
    push eax
    mov ax, cs
    push eax
    mov ebp, 12 + 1
    mov edi, names
next:
    mov esi, edi
    call print_string
    mov edi, esi
    pop eax
    call print_hex
    call print_newline
    dec ebp
    jnz next
    mov esi, edi
    call print_string
    mov eax, esp            ; everything pushed is popped again
    call print_hex
    call print_newline

    jmp SELECTOR_KERNEL_CODE:reloaded
reloaded:
    mov ax, SELECTOR_USER_DATA
    mov ds, ax
    mov es, ax
    mov al, [text]          ; a user segment also works for the kernel
    mov ax, SELECTOR_KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esi, text
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

%include "protected.inc"

names: db "cs ", 0, "ss ", 0, "ds ", 0, "es ", 0, "fs ", 0, "gs ", 0, "tr ", 0
    db "cr0 ", 0, "cr3 ", 0, "cr4 ", 0, "gdt limit ", 0, "gdt base ", 0, "eflags ", 0
    db "esp ", 0
text: db TEXT, 0
