; pieces - fills memory with letters that it computes from SEED, and prints PIECES pieces of it, each by one
; WRITE, or with OUTSB by one `rep outsb`, with BACKWARDS from its last letter to its first. Where a piece
; starts and how long it is, the guest computes in registers after each exit, by code, STEPS, that is random
; for each run; so it does the status.
%include "abi.inc"
bits 16
org 0

%ifndef SEED
%define SEED 1
%endif
%ifndef START
%define START 1             ; what is computed from
%endif
%ifndef STEPS               ; machine code that changes EAX and flags alone
%define STEPS 0x66, 0x69, 0xc0, 0x35, 0x6d, 0x8f, 0x02, 0x66, 0x05, 0x39, 0x30, 0x00, 0x00
%endif
%ifndef PIECES
%define PIECES 12
%endif

STARTS_MASK equ 0xfff
LENGTHS_MASK equ 0x3f
%define LENGTH STARTS_MASK + 1 + LENGTHS_MASK + 1

    mov di, letters
    call fill_letters
    mov ebp, START
    mov di, PIECES
next:
    call compute
    movzx esi, ax
    and si, STARTS_MASK
    add si, letters
    shr eax, 16
    mov ecx, eax
    and ecx, LENGTHS_MASK
    inc cx
%ifdef OUTSB
    mov dx, STRING_PORT
%ifdef BACKWARDS
    add si, cx
    dec si
    std
%endif
    rep outsb
%else
    mov dx, HYPERCALL_PORT
    mov al, HC_WRITE
    out dx, al
%endif
    dec di
    jnz next

    call compute
    shr eax, 8
    and al, STATUS_GUEST_MAX
    mov bl, al
    mov al, HC_EXIT
    mov dx, HYPERCALL_PORT
    out dx, al

; compute: the next value in EAX and EBP.
compute:
    mov eax, ebp
    db STEPS
    mov ebp, eax
    ret

%include "letters.inc"

letters:                    ; after the image
