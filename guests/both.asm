; both - shows which of two pending vectors is delivered first. Two vCPUs: several times, with interrupts
; disabled, the first waits for a character and for ticks (vCPU 1, the clock, counts them), so that both
; are pending. Then it enables interrupts and prints which handler ran first, as letters: TIMER_LETTER and
; KEY_LETTER. It ends at the end of input.
%include "abi.inc"
bits 16
org 0

%ifndef TIMER_LETTER
%define TIMER_LETTER 't'
%endif
%ifndef KEY_LETTER
%define KEY_LETTER 'k'
%endif

    mov ax, SHARED
    mov es, ax
    mov ax, cs
    test ax, ax
    jnz run_clock

    mov ax, on_tick
    mov bx, on_key
    call install_vectors
    mov dx, HYPERCALL_PORT
next:
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je next
    cmp eax, GETCHAR_END
    je end
    mov ecx, 3              ; a character arrived: the keyboard is pending; now also the timer
    call wait_ticks
    mov byte [first], 0
    mov byte [second], 0
    sti
wait_for_both:
    cmp byte [second], 0
    je wait_for_both
    cli
    mov bl, [first]
    call print_char
    mov bl, [second]
    call print_char
    jmp next
end:
    mov byte [es:CLOCK_STOP], 1
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    push ax
    mov al, TIMER_LETTER
    jmp note
on_key:
    push ax
    mov al, KEY_LETTER
note:
    cmp byte [first], 0
    jne .not_first
    mov [first], al
    jmp .noted
.not_first:
    cmp [first], al
    je .noted
    mov [second], al
.noted:
    pop ax
    iret

%include "console.inc"
%include "vectors.inc"
%include "clock.inc"

first: db 0
second: db 0
