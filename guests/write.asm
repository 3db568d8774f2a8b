; write - fills LENGTH bytes at TEXT_OFFSET with letters that it computes from SEED, as `strings`
; does, and prints them with one call: WRITE, a single exit for all of them.
%include "abi.inc"
bits 16
org 0

%ifndef SEED
%define SEED 1
%endif
%ifndef LENGTH
%define LENGTH 60
%endif
%ifndef TEXT_OFFSET
%define TEXT_OFFSET 0xff0   ; so that the text crosses the end of a page
%endif
%ifndef GARBAGE
%define GARBAGE 0           ; in the upper halves of ESI and ECX: 16-bit code means SI and CX
%endif

    mov di, TEXT_OFFSET
    call fill_letters

    mov esi, GARBAGE << 16 | TEXT_OFFSET
    mov ecx, GARBAGE << 16 | LENGTH
    mov dx, HYPERCALL_PORT
    mov al, HC_WRITE
    out dx, al

    mov cx, 0               ; a string of no character: prints nothing
    out dx, al

    mov bl, 10
    mov al, HC_PUTCHAR
    out dx, al
    mov bl, 0
    mov al, HC_EXIT
    out dx, al

%include "letters.inc"
