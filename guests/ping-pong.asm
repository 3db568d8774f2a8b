; ping-pong - two vCPUs take turns on a number in shared memory. ME is 0 or 1. Each waits for its
; turn, changes the number (* FACTOR + ADDEND) and passes it on; after ROUNDS it prints the number,
; or with QUIET only leaves it in EBP.
%include "abi.inc"
bits 16
org 0

%ifndef ME
%define ME 0
%endif
%ifndef FACTOR
%define FACTOR 3
%define ADDEND 1
%endif
%ifndef ROUNDS
%define ROUNDS 4
%endif

SHARED equ 0x3f00           ; segment: word 0 = whose turn it is, double word 4 = the number

    mov ax, SHARED
    mov es, ax
    mov cx, ROUNDS
wait_for_turn:
    pause                   ; a hint to the processor: a waiting loop
    cmp word [es:0], ME
    jne wait_for_turn

    imul eax, [es:4], FACTOR
    add eax, ADDEND
    mov [es:4], eax
    mov ebp, eax
    mov word [es:0], 1 - ME
    loop wait_for_turn

%ifndef QUIET
    mov eax, ebp
    call print_number
    call print_newline
%endif
    mov bl, 0
    jmp exit

%include "console.inc"
