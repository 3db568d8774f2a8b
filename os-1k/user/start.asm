; start.asm - a program's first instructions: the kernel has put main's argument on the stack.
    extern main, exit
    global start

    section .text
start:
    call main
    push eax
    call exit
