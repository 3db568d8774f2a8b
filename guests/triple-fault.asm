; triple-fault - removes the interrupt table and causes an exception: the processor can't deliver it,
; can't deliver the double fault either, and shuts down. In protected mode, because there no processor and
; no KVM searches for handlers past the table's limit.
bits 16
org 0

    lidt [nothing]
    mov eax, cr0
    or al, 1                ; CR0.PE
    mov cr0, eax
    ud2                     ; an instruction that is always invalid
    hlt

nothing:
    dw 0                    ; limit
    dd 0                    ; base
