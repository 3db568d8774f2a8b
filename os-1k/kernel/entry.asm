; entry.asm - the kernel's first instructions. The VMM starts it in protected mode with paging on;
; EBX holds the physical address of struct boot_info.
    extern kernel_main
    global kernel_entry

    section .text
kernel_entry:
    mov esp, stack_end
    xor ebp, ebp                ; a stack trace ends here
    push ebx
    call kernel_main            ; never returns

    section .bss
    align 16
    resb 4096
stack_end:
