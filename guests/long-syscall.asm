; long-syscall - the round trip of SYSCALL and SYSRET. A program in ring 3 passes each of NUMBERS to the
; kernel, with the selectors of its CS and SS. The kernel prints what it gets and its own two selectors, and
; returns the number times FACTOR, which the program adds up; its last call passes the sum. The program is
; mapped for users at USER_CODE, the page for its stack at USER_STACK: see --map.
%include "long.inc"

%ifndef USER_CODE
%define USER_CODE 0x40000000
%endif
%ifndef USER_STACK
%define USER_STACK 0x40001000
%endif
%ifndef NUMBERS
%define NUMBERS 1, 2, 3
%endif
%ifndef FACTOR
%define FACTOR 3
%endif

MSR_STAR equ 0xc0000081
MSR_LSTAR equ 0xc0000082
MSR_SFMASK equ 0xc0000084
CALL_NUMBER equ 0
CALL_SUM equ 1

start:
    mov ecx, MSR_STAR       ; SYSCALL: CS and SS from 0x08 on; SYSRET: SS and CS after 0x10
    xor eax, eax
    mov edx, SELECTOR_KERNEL_CODE | (SELECTOR_LONG_USER_DATA - 8) << 16
    wrmsr
    mov ecx, MSR_LSTAR
    lea rax, [rel on_call]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov ecx, MSR_SFMASK
    mov eax, 0x600          ; clears IF and DF
    xor edx, edx
    wrmsr
    call install_idt
    mov [rel kernel_stack], rsp
    mov rcx, USER_CODE
    mov rsp, USER_STACK + PAGE_BYTES
    mov r11d, 2             ; RFLAGS
    o64 sysret

; The program's call RDI, with RSI, and with its CS in R8 and SS in R9. RCX is where it continues.
on_call:
    mov [rel user_stack], rsp
    mov rsp, [rel kernel_stack]
    push rcx
    push r11
    push rdi
    mov rax, rsi
    call print_hex
    mov rax, r8
    call print_selector
    mov rax, r9
    call print_selector
    mov eax, cs
    call print_selector
    mov eax, ss
    call print_selector
    call print_newline
    pop rdi
    cmp edi, CALL_SUM
    mov bl, 0
    je exit
    mov rax, FACTOR
    imul rax, rsi
    pop r11
    pop rcx
    mov rsp, [rel user_stack]
    o64 sysret

print_selector:
    push rax
    call print_space
    pop rax
    jmp print_hex

    align 8
kernel_stack: dq 0
user_stack: dq 0

    times PAGE_BYTES - ($ - file) db 0
user_page:                  ; LOAD_DEFAULT + PAGE_BYTES, also mapped at USER_CODE
    lea rbp, [rel numbers]
    xor r12d, r12d
user_next:
    mov rsi, [rbp]
    mov edi, CALL_NUMBER
    call user_call
    add r12, rax
    add rbp, 8
    lea rax, [rel numbers_end]
    cmp rbp, rax
    jb user_next
    mov rsi, r12
    mov edi, CALL_SUM
    call user_call          ; on the user's stack
user_call:
    xor r8d, r8d
    xor r9d, r9d
    mov r8w, cs
    mov r9w, ss
    syscall
    ret
    align 8
numbers: dq NUMBERS
numbers_end:
%include "long-print.inc"
