; no-handler - enables interrupts without a vector table: the first tick crashes it.
bits 16
org 0

    sti
    jmp $
