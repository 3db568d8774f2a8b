; window - keeps interrupts disabled for a long time and enables them for a moment, again and again, until
; TICKS ticks have arrived. It reports a tick that arrives while interrupts are disabled.
%include "abi.inc"
bits 16
org 0

%ifndef TICKS
%define TICKS 10
%endif
%ifndef WORK
%define WORK 9000           ; iterations with interrupts disabled
%endif
%ifndef OPEN
%define OPEN 1000           ; iterations with interrupts enabled: a KVM that emulates real mode checks
%endif                      ; the window from time to time, not at each instruction
%ifndef TEXT
%define TEXT "only when enabled"
%endif

    mov ax, on_tick
    mov bx, ignore
    call install_vectors
next:
    mov byte [disabled], 1
    mov cx, WORK
work:
    loop work
    mov byte [disabled], 0
    mov cx, OPEN
    sti
moment:
    loop moment
    cli
    cmp word [ticks], TICKS
    jb next
    mov si, text
    cmp byte [wrong], 0
    je tell
    mov si, wrong_text
tell:
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    push ax
    mov al, [disabled]
    or [wrong], al
    pop ax
    inc word [ticks]
    iret

%include "console.inc"
%include "vectors.inc"

disabled: db 0
wrong: db 0
ticks: dw 0
text: db TEXT, 0
wrong_text: db "interrupted with IF = 0", 0
