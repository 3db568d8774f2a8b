; echo - reads characters until the end of input and prints each one, changed by KEY. WIDTH is the
; width of its GETCHAR and of the read after it: 8, 16 or 32 bits. With QUIET it prints nothing, and leaves
; in EBP what it computes: FACTOR times the number before, plus the changed character.
;
; An 8-bit read can't hold GETCHAR_NOTHING and GETCHAR_END in addition to 256 characters: it gets their
; low bytes, 0xff and 0xfe.
%include "abi.inc"
bits 16
org 0

%ifndef WIDTH
%define WIDTH 32
%endif
%ifndef KEY
%define KEY 0               ; exclusive or: 0 changes nothing
%endif
%ifndef FACTOR
%define FACTOR 31
%endif

%if WIDTH == 8
    %define answer al
    %define ANSWER_MASK 0xff
%elif WIDTH == 16
    %define answer ax
    %define ANSWER_MASK 0xffff
%else
    %define answer eax
    %define ANSWER_MASK 0xffffffff
%endif

%ifdef QUIET
    xor ebp, ebp
%endif
next:
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, answer          ; first step: the call
    in answer, dx           ; second step: its answer
    cmp answer, GETCHAR_NOTHING & ANSWER_MASK
    je next
    cmp answer, GETCHAR_END & ANSWER_MASK
    je end

    mov bl, al
    xor bl, KEY
%ifdef QUIET
    movzx ebx, bl
    imul ebp, ebp, FACTOR
    add ebp, ebx
%else
    call print_char
%endif
    jmp next
end:
    mov bl, 0
    jmp exit

%include "console.inc"
