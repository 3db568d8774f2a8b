; states - four vCPUs, each in a state from which a VMM must be able to stop it: 0 in a loop with
; interrupts disabled, 1 in a loop with interrupts enabled, 2 in HLT, 3 in exit after
; exit. The last one to get there prints TEXT.
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "all there"
%endif

SHARED equ 0x3f00           ; segment at the end of window 0

    mov ax, ignore
    mov bx, ignore
    call install_vectors
    mov ax, SHARED
    mov es, ax
    mov al, 1
    lock xadd [es:0], al
    cmp al, VCPUS_MAX - 1
    jne enter_state
    mov si, text
    call print_string
    call print_newline
enter_state:
    mov ax, cs
    shr ax, 14              ; window 0x40000 starts at segment 0x4000
    jz loop_disabled
    sti
    dec ax
    jz loop_enabled
    dec ax
    jz halted
exits:
    mov dx, HYPERCALL_PORT
    mov eax, HC_WRITE
    xor ecx, ecx            ; of nothing
    out dx, eax
    jmp exits

loop_disabled:
    jmp loop_disabled

loop_enabled:
    jmp loop_enabled

halted:
    hlt
    jmp halted

%include "console.inc"
%include "vectors.inc"

text: db TEXT, 0
