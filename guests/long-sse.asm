; long-sse - SSE2, which 64-bit code may use without asking: the sum of INTEGERS in pairs of 64 bits, and
; the product of DOUBLES in pairs; prints both halves of both. It has to have an even number of each.
%include "long.inc"

%ifndef INTEGERS
%define INTEGERS 1, 2, 3, 4
%endif
%ifndef DOUBLES
%define DOUBLES 0x3ff8000000000000, 0x4000000000000000  ; 1.5 and 2.0
%endif

start:
    pxor xmm0, xmm0
    lea rdi, [rel integers]
    lea rcx, [rel doubles]
add_next:
    movdqu xmm1, [rdi]
    paddq xmm0, xmm1
    add rdi, 16
    cmp rdi, rcx
    jb add_next
    movupd xmm2, [rel ones]
    lea rcx, [rel end]
multiply_next:
    movupd xmm1, [rdi]
    mulpd xmm2, xmm1
    add rdi, 16
    cmp rdi, rcx
    jb multiply_next

    movdqu [rel results], xmm0
    movupd [rel results + 16], xmm2
    lea rbp, [rel results]
    mov r12d, 4
next:
    mov rax, [rbp]
    call print_hex
    call print_newline
    add rbp, 8
    dec r12d
    jnz next
    mov bl, 0
    jmp exit

    align 16
ones: dq 0x3ff0000000000000, 0x3ff0000000000000
results: dq 0, 0, 0, 0
integers: dq INTEGERS
doubles: dq DOUBLES
end:
%include "long-print.inc"
