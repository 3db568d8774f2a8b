; long-devices - interrupts in long mode: counts TICKS ticks in HLT, printing STEP times each, then prints its
; input, changed by KEY, up to the end of input.
%include "long.inc"

%ifndef TICKS
%define TICKS 5
%endif
%ifndef STEP
%define STEP 1
%endif
%ifndef KEY
%define KEY 0
%endif

start:
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, TIMER_VECTOR
    lea rax, [rel on_tick]
    call set_gate
    mov ecx, KEYBOARD_VECTOR
    lea rax, [rel on_key]
    call set_gate
    xor ebp, ebp
next_tick:
    inc ebp
wait_for_tick:
    cli
    cmp [rel ticks], ebp
    jae come
    sti
    hlt
    jmp wait_for_tick
come:
    imul rax, rbp, STEP
    call print_hex
    call print_newline
    cmp ebp, TICKS
    jb next_tick

    mov byte [rel listening], 1
    call take               ; earlier input
wait_for_end:
    cli
    cmp byte [rel ended], 0
    jne end
    sti
    hlt
    jmp wait_for_end
end:
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    inc dword [rel ticks]
    iretq

on_key:
    cmp byte [rel listening], 0
    je .return
    push rax
    push rbx
    push rcx
    push rdx
    call take
    pop rdx
    pop rcx
    pop rbx
    pop rax
.return:
    iretq

; take: prints all available input. Changes RAX, RBX, RDX.
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
    mov byte [rel ended], 1
.return:
    ret

    align 4
ticks: dd 0
listening: db 0
ended: db 0
%include "long-print.inc"
