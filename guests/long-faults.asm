; long-faults - reads READS, writes WRITES, jumps to JUMPS and prints each fault: the vector, the error code
; and for a page fault (vector e) CR2. It also prints accesses that don't fault; a page of JUMPS begins with
; a RET, which the guest writes through the higher half at CODE. Before that it sets a reserved bit in the
; PML4 entry of RESERVED.
%include "long.inc"

%ifndef READS
%define READS 0x40000000
%endif
%ifndef WRITES
%define WRITES 0x40000000
%endif
%ifndef JUMPS
%define JUMPS HIGHER_HALF_64 + CODE
%endif
%ifndef CODE
%define CODE 0x200000       ; physical
%endif
%ifndef RESERVED
%define RESERVED 0x400000000000
%endif

PML4 equ HIGHER_HALF_64 + DIRECTORY_OFFSET

start:
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 13
    lea rax, [rel on_protection]
    call set_gate
    mov ecx, 14
    lea rax, [rel on_page_fault]
    call set_gate
    mov rax, RESERVED
    shr rax, 39
    and eax, 511
    mov rdi, PML4
    or byte [rdi + rax * 8], 0x81   ; present, and bit 7
    mov rdi, HIGHER_HALF_64 + CODE
    mov byte [rdi], 0xc3
    mov rax, cr3
    mov cr3, rax

    lea rbp, [rel reads]
next_read:
    lea rax, [rel read_done]
    mov [rel resume], rax
    mov r12, [rbp]
    mov rax, [r12]
    lea rsi, [rel read_text]
    call tell
read_done:
    add rbp, 8
    lea rax, [rel writes]
    cmp rbp, rax
    jb next_read

next_write:
    lea rax, [rel write_done]
    mov [rel resume], rax
    mov r12, [rbp]
    mov [r12], rbp
    lea rsi, [rel written_text]
    call tell
write_done:
    add rbp, 8
    lea rax, [rel jumps]
    cmp rbp, rax
    jb next_write

next_jump:
    lea rax, [rel jump_done]
    mov [rel resume], rax
    mov r12, [rbp]
    mov r13, rsp
    call r12
    lea rsi, [rel executed_text]
    call tell
jump_done:
    mov rsp, r13            ; a fault came with the return address on the stack
    add rbp, 8
    lea rax, [rel end]
    cmp rbp, rax
    jb next_jump
    mov bl, 0
    jmp exit

on_protection:
    mov eax, 13
    call print_hex
    call print_space
    pop rax                 ; the error code
    call print_hex
    jmp return
on_page_fault:
    mov eax, 14
    call print_hex
    call print_space
    pop rax
    call print_hex
    call print_space
    mov rax, cr2
    call print_hex
return:
    call print_newline
    mov rax, [rel resume]
    mov [rsp], rax          ; RIP to continue at
    iretq

; Prints RSI, then R12. Changes many registers.
tell:
    call print_string
    mov rax, r12
    call print_hex
    jmp print_newline

read_text: db "read ", 0
written_text: db "wrote ", 0
executed_text: db "executed ", 0
    align 8
resume: dq 0
reads: dq READS
writes: dq WRITES
jumps: dq JUMPS
end:
%include "long-print.inc"
