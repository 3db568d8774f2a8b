; preserve - checks its registers and flags while TICKS interrupts arrive, then again for each of several
; sets of flags. The handler changes all of them and restores them. Prints TEXT if all were preserved, else
; which was not.
%include "abi.inc"
bits 16
org 0

%ifndef TICKS
%define TICKS 20
%endif
%ifndef VALUE
%define VALUE 0x12345678
%endif
%ifndef TEXT
%define TEXT "all survived"
%endif

    mov ax, on_tick
    mov bx, ignore
    call install_vectors
    mov ax, VALUE & 0x7fff
    mov fs, ax
    inc ax
    mov gs, ax
    mov eax, VALUE
    mov ebx, VALUE ^ 0x11111111
    mov ecx, VALUE ^ 0x22222222
    mov edx, VALUE ^ 0x33333333
    mov esi, VALUE ^ 0x44444444
    mov edi, VALUE ^ 0x55555555
    mov ebp, VALUE ^ 0x66666666
    sti
watch:
    cmp eax, VALUE
    jne registers_changed
    cmp ebx, VALUE ^ 0x11111111
    jne registers_changed
    cmp ecx, VALUE ^ 0x22222222
    jne registers_changed
    cmp edx, VALUE ^ 0x33333333
    jne registers_changed
    cmp esi, VALUE ^ 0x44444444
    jne registers_changed
    cmp edi, VALUE ^ 0x55555555
    jne registers_changed
    cmp ebp, VALUE ^ 0x66666666
    jne registers_changed
    cmp sp, 0xfff0
    jne registers_changed
    cmp word [ticks], TICKS
    jb watch
    mov cx, fs
    cmp cx, VALUE & 0x7fff
    jne registers_changed
    mov cx, gs
    cmp cx, (VALUE & 0x7fff) + 1
    jne registers_changed

    mov si, flag_sets
next_set:
    mov ax, [si]
    mov word [waiting], 1
    push ax
    popf                    ; IF is in each set
wait_for_tick:              ; from here on no instruction changes a flag
    mov cx, [waiting]
    jcxz tick_came
    jmp wait_for_tick
tick_came:
    pushf
    pop bx
    xor bx, ax
    and bx, 0x0fd5          ; OF DF IF TF SF ZF AF PF CF
    jnz flags_changed
    cld
    add si, 2
    cmp si, flag_sets_end
    jb next_set
    mov si, text
    jmp tell

registers_changed:
    mov si, registers_text
    jmp tell
flags_changed:
    mov si, flags_text
tell:
    cli
    cld
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

on_tick:
    pushad
    push fs
    push gs
    mov eax, 0xdeadbeef
    mov ebx, eax
    mov ecx, eax
    mov edx, eax
    mov esi, eax
    mov edi, eax
    mov ebp, eax
    mov fs, ax
    mov gs, ax
    mov word [waiting], 0
    inc word [ticks]
    std
    xor ax, ax
    pop gs
    pop fs
    popad
    iret

%include "console.inc"
%include "vectors.inc"

ticks: dw 0
waiting: dw 0
flag_sets: dw 0x0202, 0x0ed7, 0x0a93, 0x0646, 0x0203, 0x0c83 | 0x200
flag_sets_end:
text: db TEXT, 0
registers_text: db "a register changed while an interrupt was handled", 0
flags_text: db "a flag changed while an interrupt was handled", 0
