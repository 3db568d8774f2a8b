; long-registers - computes with r8 to r15 and RIP-relative operands of 64 bits. Each register gets one of
; VALUES, times FACTOR, rotated by the register's number; then each is added to the next one. Prints the sums
; and halts with them in r8 to r15.
%include "long.inc"

%ifndef VALUES
%define VALUES 1, 2, 3, 4, 5, 6, 7, 8
%endif
%ifndef FACTOR
%define FACTOR 0x100000001
%endif

start:
    mov rax, FACTOR
%assign i 0
%rep 8
%assign number i + 8
    mov r %+ number, [rel values + i * 8]
    imul r %+ number, rax
    rol r %+ number, number
%assign i i + 1
%endrep
%assign i 9
%rep 7
%assign before i - 1
    add r %+ i, r %+ before
%assign i i + 1
%endrep
%assign i 8
%rep 8
    mov rax, r %+ i
    call print_hex
    call print_newline
%assign i i + 1
%endrep
    hlt

    align 8
values: dq VALUES
%include "long-print.inc"
