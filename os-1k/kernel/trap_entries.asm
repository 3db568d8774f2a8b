; trap_entries.asm - the way into the kernel and out of it: every exception, interrupt and system call.
%include "abi.inc"
    extern trap_handle
    global trap_entries, trap_return

    section .text

; One entry a vector, 16 bytes each. For some exceptions the processor pushes an error code (SDM
; vol. 3, 6.13); for the others a 0 takes its place, so that all leave the same trap_frame.
    align 16
trap_entries:
%assign vector 0
%rep 256
%if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push 0
%endif
    push vector
    jmp near trap_enter
    align 16
%assign vector vector + 1
%endrep

trap_enter:
    pusha
    push ds
    push es
    push fs
    push gs
    cld                         ; a program may have set the direction flag
    mov ax, SELECTOR_KERNEL_DATA
    mov ds, ax
    mov es, ax
    xor ebp, ebp                ; a stack trace ends here
    push esp
    call trap_handle
    add esp, 4
trap_return:
    pop gs
    pop fs
    pop es
    pop ds
    popa
    add esp, 8                  ; vector and error code
    iret
