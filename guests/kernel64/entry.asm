; entry.asm - the kernel's first instructions, and its entries for exceptions and interrupts.
bits 64
extern kernel_main, interrupt
global start, entries

section .text
start:
    mov rsp, stack_end
    jmp kernel_main         ; RDI is the physical address of the boot information

; Each entry pushes what the processor does not: an error code where there is none, and the vector.
%assign vector 0
%rep 0x22
entry_ %+ vector:
%if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
    push 0
%endif
    push vector
    jmp save_all
%assign vector vector + 1
%endrep

; The registers on the stack are struct frame of kernel.c; interrupt returns the frame to continue with,
; which may be on another thread's stack.
save_all:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
%assign number 8
%rep 8
    push r %+ number
%assign number number + 1
%endrep
    mov rdi, rsp
    call interrupt
    mov rsp, rax
%assign number 15
%rep 8
    pop r %+ number
%assign number number - 1
%endrep
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16             ; vector and error code
    iretq

section .rodata
entries:
%assign vector 0
%rep 0x22
    dq entry_ %+ vector
%assign vector vector + 1
%endrep

section .bss
    alignb 16
    resb 8192
stack_end:
