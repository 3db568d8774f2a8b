; ring3 - enters ring 3 once for each access to try, and prints how it returned: by `int 0x80` if the
; access succeeded, or by a page fault (CR2, error code) if not; each time with the CPL from the saved CS.
; At USER_CODE its own page USER_PAGE is mapped for users, at USER_STACK a page for their stack: see --map.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef USER_CODE
%define USER_CODE 0x40000000
%endif
%ifndef USER_STACK
%define USER_STACK 0x40001000
%endif
%ifndef READS
%define READS HIGHER_HALF + LOAD_DEFAULT
%endif
%ifndef WRITES
%define WRITES HIGHER_HALF + LOAD_DEFAULT
%endif

TSS equ HIGHER_HALF + TSS_OFFSET
TSS_DESCRIPTOR equ HIGHER_HALF + GDT_OFFSET + SELECTOR_TSS

    mov [TSS + 4], esp      ; esp0: the kernel's stack when ring 3 is left
    mov dword [TSS + 8], SELECTOR_KERNEL_DATA   ; ss0
    mov word [TSS + 102], 104   ; I/O map base: past the end of the TSS, so ring 3 may not use ports
    ; TR is loaded already. Loading it again does no harm, and QEMU needs it: its processor aborts when
    ; ring 3 is left through a busy TSS that a VM entry has loaded, but accepts one loaded by LTR.
    and byte [TSS_DESCRIPTOR + 5], ~2   ; LTR accepts only an available TSS
    mov ax, SELECTOR_TSS
    ltr ax
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 14
    mov eax, on_page_fault
    call set_gate
    mov edx, GATE_USER
    mov ecx, 0x80
    mov eax, on_call
    call set_gate

    xor ebp, ebp
next:
    mov edi, [accesses + ebp * 4]
    mov esi, USER_CODE + (user_read - user_page)
    cmp ebp, (writes - accesses) / 4
    jb enter
    mov esi, USER_CODE + (user_write - user_page)
enter:
    mov ax, SELECTOR_USER_DATA
    mov ds, ax
    mov es, ax
    push dword SELECTOR_USER_DATA
    push dword USER_STACK + PAGE_BYTES - 16
    push dword 2            ; EFLAGS: IOPL 0
    push dword SELECTOR_USER_CODE
    push esi
    iretd

on_page_fault:
    mov esi, fault_text
    call print_string
    mov eax, cr2
    call print_hex
    call print_space
    pop eax                 ; the error code
    call print_hex
    jmp back
on_call:
    mov esi, call_text
    call print_string
    mov eax, edi
    call print_hex
back:
    call print_space
    mov eax, [esp + 4]      ; CS of ring 3
    and eax, 3
    call print_hex
    call print_newline
    add esp, 20
    mov ax, SELECTOR_KERNEL_DATA
    mov ds, ax
    mov es, ax
    inc ebp
    cmp ebp, (end - accesses) / 4
    jb next
    mov bl, 0
    jmp exit

%include "protected.inc"

    align 4
accesses: dd READS
writes: dd WRITES
end:
fault_text: db "fault ", 0
call_text: db "went well ", 0

    align PAGE_BYTES
user_page:                  ; LOAD_DEFAULT + PAGE_BYTES, also mapped at USER_CODE
user_read:
    push eax                ; the user's stack works
    mov eax, [edi]
    int 0x80
user_write:
    mov [edi], edi
    int 0x80
