; shared-counter - each of VCPUS vCPUs adds STEP to one number in shared memory, TURNS times. The
; last one to finish prints the sum, or with QUIET only leaves it in EBP. No addition may be lost:
; `lock` makes each one atomic. With TOGETHER none begins before all of them run.
%include "abi.inc"
bits 16
org 0

%ifndef STEP
%define STEP 1
%endif
%ifndef TURNS
%define TURNS 500
%endif
%ifndef VCPUS
%define VCPUS 4
%endif

SHARED equ 0x3f00           ; segment at the end of window 0, which is unused

    mov ax, SHARED
    mov es, ax
%ifdef TOGETHER
    lock inc word [es:8]
wait_for_all:
    pause                   ; a hint to the processor: a waiting loop
    cmp word [es:8], VCPUS
    jb wait_for_all
%endif
    mov cx, TURNS
    xor ebp, ebp
add:
    mov eax, STEP
    lock xadd [es:0], eax
    loop add

    mov ax, 1
    lock xadd [es:4], ax    ; AX = how many have finished before
    cmp ax, VCPUS - 1
    jne done

    mov ebp, [es:0]
%ifndef QUIET
    mov eax, ebp
    call print_number
    call print_newline
%endif
done:
    mov bl, 0
    jmp exit

%include "console.inc"
