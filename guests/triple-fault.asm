; triple-fault - takes the interrupt table away and makes an exception: the processor can't report
; it, can't report that it can't, and shuts down. In protected mode, for there no processor and no
; KVM looks for handlers beyond the table's limit.
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
