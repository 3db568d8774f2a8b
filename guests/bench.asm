; bench - prints the same 20,000 characters with one of three calls of the ABI, or computes sums instead:
; `make bench` measures it. METHOD selects.
%include "abi.inc"
bits 16
org 0

%define BY_PUTCHAR 1        ; one exit per character
%define BY_OUTSB   2        ; `rep outsb`: as many per exit as KVM passes on
%define BY_WRITE   3        ; one exit for all
%define BY_NOTHING 4        ; no exit at all: SUMS times 65,536 additions

%ifndef METHOD
%define METHOD BY_WRITE
%endif
%ifndef SUMS
%define SUMS 4
%endif
%define LENGTH 20000

%if METHOD == BY_PUTCHAR
    mov si, text
    mov cx, LENGTH
.next:
    lodsb
    mov bl, al
    call print_char
    loop .next
%elif METHOD == BY_OUTSB
    mov si, text
    mov cx, LENGTH
    mov dx, STRING_PORT
    cld
    rep outsb
%elif METHOD == BY_WRITE
    mov si, text
    mov cx, LENGTH
    mov ax, HC_WRITE
    mov dx, HYPERCALL_PORT
    out dx, ax
%else
    mov bp, SUMS
.again:
    xor cx, cx
.add:
    add eax, ecx
    loop .add
    dec bp
    jnz .again
%endif
    mov bl, 0
    jmp exit

%include "console.inc"

text: times LENGTH db '.'
