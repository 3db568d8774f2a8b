; long-ring3 - enters ring 3 once for each access to try, and prints how it returned: by `int 0x80` if the
; access succeeded, or by a page fault (CR2, error code) if not; each time with the CPL from the saved CS, and
; the selector of SS. At USER_CODE its own page USER_PAGE is mapped for users, at USER_STACK a page for their
; stack: see --map.
%include "long.inc"

%ifndef USER_CODE
%define USER_CODE 0x40000000
%endif
%ifndef USER_STACK
%define USER_STACK 0x40001000
%endif
%ifndef READS
%define READS HIGHER_HALF_64 + LOAD_DEFAULT
%endif
%ifndef WRITES
%define WRITES HIGHER_HALF_64 + LOAD_DEFAULT
%endif

TSS equ HIGHER_HALF_64 + TSS_OFFSET
TSS_DESCRIPTOR equ HIGHER_HALF_64 + GDT_OFFSET + SELECTOR_TSS

start:
    mov rdi, TSS
    mov [rdi + 4], rsp      ; rsp0: the kernel's stack when ring 3 is left
    mov word [rdi + 102], 104   ; I/O map base: past the end of the TSS, so ring 3 may not use ports
    ; TR is loaded already. Loading it again does no harm, and QEMU needs it: its processor aborts when ring 3
    ; is left through a busy TSS that a VM entry has loaded.
    mov rax, TSS_DESCRIPTOR
    and byte [rax + 5], ~2  ; LTR accepts only an available TSS
    mov ax, SELECTOR_TSS
    ltr ax
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 14
    lea rax, [rel on_page_fault]
    call set_gate
    mov edx, GATE_USER
    mov ecx, 0x80
    lea rax, [rel on_call]
    call set_gate

    lea rbp, [rel accesses]
next:
    mov rdi, [rbp]
    mov rsi, USER_CODE + (user_read - user_page)
    lea rax, [rel writes]
    cmp rbp, rax
    jb enter
    mov rsi, USER_CODE + (user_write - user_page)
enter:
    mov rax, USER_STACK + PAGE_BYTES - 16
    push SELECTOR_LONG_USER_DATA
    push rax
    push 2                  ; RFLAGS: IOPL 0
    push SELECTOR_LONG_USER_CODE
    push rsi
    iretq

on_page_fault:
    mov eax, SELECTOR_KERNEL_DATA
    mov ss, eax             ; the processor has loaded 0
    lea rsi, [rel fault_text]
    call print_string
    mov rax, cr2
    call print_hex
    call print_space
    pop rax                 ; the error code
    call print_hex
    jmp back
on_call:
    mov eax, SELECTOR_KERNEL_DATA
    mov ss, eax
    lea rsi, [rel call_text]
    call print_string
    mov rax, rdi
    call print_hex
back:
    call print_space
    mov rax, [rsp + 8]      ; CS of ring 3
    and eax, 3
    call print_hex
    call print_space
    mov rax, [rsp + 32]     ; SS of ring 3
    call print_hex
    call print_newline
    add rsp, 40
    add rbp, 8
    lea rax, [rel end]
    cmp rbp, rax
    jb next
    mov bl, 0
    jmp exit

fault_text: db "fault ", 0
call_text: db "went well ", 0
    align 8
accesses: dq READS
writes: dq WRITES
end:

    times PAGE_BYTES - ($ - file) db 0
user_page:                  ; LOAD_DEFAULT + PAGE_BYTES, also mapped at USER_CODE
user_read:
    push rax                ; the user's stack works
    mov rax, [rdi]
    int 0x80
user_write:
    mov [rdi], rdi
    int 0x80
%include "long-print.inc"
