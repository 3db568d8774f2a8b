; devices - interrupts in protected mode: counts TICKS ticks in HLT, printing STEP times each, then prints
; its input, changed by KEY, up to the end of input.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef TICKS
%define TICKS 5
%endif
%ifndef STEP
%define STEP 1
%endif
%ifndef KEY
%define KEY 0
%endif

    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, TIMER_VECTOR
    mov eax, on_tick
    call set_gate
    mov ecx, KEYBOARD_VECTOR
    mov eax, on_key
    call set_gate
    xor ebp, ebp
next_tick:
    inc ebp
wait_for_tick:
    cli
    cmp [ticks], ebp
    jae come
    sti
    hlt
    jmp wait_for_tick
come:
    imul eax, ebp, STEP
    call print_hex
    call print_newline
    cmp ebp, TICKS
    jb next_tick

    mov byte [listening], 1
    call take               ; earlier input
wait_for_end:
    cli
    cmp byte [ended], 0
    jne end
    sti
    hlt
    jmp wait_for_end
end:
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    inc dword [ticks]
    iretd

on_key:
    cmp byte [listening], 0
    je .return
    pushad
    call take
    popad
.return:
    iretd

; take: prints all available input. Changes EAX, EBX, EDX.
take:
    mov eax, HC_GETCHAR
    mov edx, HYPERCALL_PORT
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je .return
    cmp eax, GETCHAR_END
    je .end
    mov bl, al
    xor bl, KEY
    call print_char
    jmp take
.end:
    mov byte [ended], 1
.return:
    ret

%include "protected.inc"

    align 4
ticks: dd 0
listening: db 0
ended: db 0
