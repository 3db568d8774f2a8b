; native - guests/compute.inc on the processor itself: COUNT rounds, and the time stamp cycles that they took
; as 16 hexadecimal digits. A static program for Linux.
bits 64
section .text
global _start
_start:
    call read_cycles
    mov r12, rax
    mov ecx, COUNT
    mov esi, table
%include "compute.inc"
    call read_cycles
    sub rax, r12
    mov rdi, digits
    mov ecx, 16
.next:
    rol rax, 4
    mov ebx, eax
    and ebx, 0xf
    mov bl, [hex + rbx]
    mov [rdi], bl
    inc rdi
    loop .next
    mov eax, 1              ; write: man 2 syscall, "Architecture calling conventions"
    mov edi, 1
    mov esi, digits
    mov edx, 16
    syscall
    mov eax, 60             ; exit
    xor edi, edi
    syscall

read_cycles:
    rdtsc
    shl rdx, 32
    or rax, rdx
    ret

section .data
hex: db "0123456789abcdef"
section .bss
align 4
table: resb 4096
digits: resb 16
