; no-handler - enables interrupts without a vector table: the first tick is its end.
bits 16
org 0

    sti
    jmp $
