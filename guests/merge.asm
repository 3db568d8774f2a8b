; merge - shows that ticks which arrive while interrupts are disabled merge into one. Two vCPUs: the first
; keeps its interrupts disabled while the clock (vCPU 1) counts MASKED ticks, then enables them until the
; clock has counted OPEN more. So it gets about OPEN ticks, not MASKED more. It prints TEXT, or its count.
%include "abi.inc"
bits 16
org 0

%ifndef MASKED
%define MASKED 300
%endif
%ifndef OPEN
%define OPEN 100
%endif
%ifndef TEXT
%define TEXT "merged"
%endif

    mov ax, SHARED
    mov es, ax
    mov ax, cs
    test ax, ax
    jnz run_clock

    mov ax, on_tick
    mov bx, ignore
    call install_vectors
    mov ecx, MASKED
    call wait_ticks
    cmp word [ticks], 0     ; IF = 0: no tick may have arrived
    jne tell_count
    mov esi, [es:0]
    add esi, OPEN
    sti
open:                       ; one exit per iteration: a pending tick is injected at the next entry
    mov dx, HYPERCALL_PORT
    mov eax, HC_WRITE
    xor ecx, ecx            ; of nothing
    out dx, eax
    cmp [es:0], esi
    jb open
    cli
    mov byte [es:CLOCK_STOP], 1
    cmp word [ticks], 0
    je tell_count
    cmp word [ticks], 2 * OPEN
    ja tell_count
    mov si, text
    call print_string
    jmp end
tell_count:
    mov byte [es:CLOCK_STOP], 1
    movzx eax, word [ticks]
    call print_number
    mov si, count_text
    call print_string
end:
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    inc word [ticks]
    iret

%include "console.inc"
%include "vectors.inc"
%include "clock.inc"

ticks: dw 0
text: db TEXT, 0
count_text: db " ticks", 0
