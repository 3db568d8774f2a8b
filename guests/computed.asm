; computed - prints letters and a status that are not in its memory before: after each exit it
; computes the next one in registers. The code that does it, STEPS, is random for each run, so the only
; way to the next one is to let the processor execute it, up to the next exit.
;
; With INPUT it reads a character by GETCHAR, INPUT bits wide, before each letter, which depends on it.
; It ends at the end of input, without INPUT after LENGTH letters. With MIXED its calls have 8 and 32 bits
; in turn, and the rest of EBX is not zero; with LARGE its status is 64 to 127, which no guest may have.
%include "abi.inc"
bits 16
org 0

%ifndef SEED
%define SEED 1
%endif
%ifndef STEPS               ; machine code that changes EAX and flags alone
%define STEPS 0x66, 0x69, 0xc0, 0x35, 0x6d, 0x8f, 0x02, 0x66, 0x05, 0x39, 0x30, 0x00, 0x00
%endif
%ifndef LENGTH
%define LENGTH 12
%endif

%ifdef INPUT
%if INPUT == 8
    %define answer al
    %define ANSWER_MASK 0xff
%elif INPUT == 16
    %define answer ax
    %define ANSWER_MASK 0xffff
%else
    %define answer eax
    %define ANSWER_MASK 0xffffffff
%endif
%endif

    mov esi, SEED           ; what is computed so far
    mov cx, LENGTH
    jcxz end
next:
    mov dx, HYPERCALL_PORT
%ifdef INPUT
    mov eax, HC_GETCHAR
    out dx, answer
    in answer, dx
    cmp answer, GETCHAR_NOTHING & ANSWER_MASK
    je next
    cmp answer, GETCHAR_END & ANSWER_MASK
    je end
    movzx eax, al
    add esi, eax
%endif
    call compute
    mov eax, HC_PUTCHAR
%ifdef MIXED
    test cl, 1
    jnz .narrow
    out dx, eax
    jmp .printed
.narrow:
%endif
    out dx, al
.printed:
%ifdef INPUT
    jmp next
%else
    loop next
%endif

end:
    call compute
    mov eax, esi
    shr eax, 8
    and al, STATUS_GUEST_MAX
    mov bl, al
%ifdef LARGE
    or bl, STATUS_GUEST_MAX + 1
%endif
    mov dx, HYPERCALL_PORT
    mov eax, HC_EXIT
    out dx, al
    lidt [cs:no_vectors]    ; a guest that is resumed after EXIT crashes here
    int3
no_vectors:
    dw 0
    dd 0

; compute: the next value in ESI; BL = 'a' + bits 16 to 31 of it modulo 26. Changes EAX and EBX.
compute:
    mov eax, esi
    db STEPS
    mov esi, eax
    push dx
    shr eax, 16
    xor dx, dx
    mov bx, 26
    div bx
%ifdef MIXED
    mov ebx, esi
%else
    xor ebx, ebx
%endif
    mov bl, dl
    add bl, 'a'
    pop dx
    ret
