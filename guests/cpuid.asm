; cpuid - identifies the processor.
;   EAX = the highest leaf; EBX, EDX, ECX = the vendor's name: `--regs` shows them.
bits 16
org 0

    xor eax, eax
    cpuid
    hlt
