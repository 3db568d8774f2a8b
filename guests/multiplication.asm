; multiplication - prints the products from FROM x FROM to TO x TO, one line per first factor.
%include "abi.inc"
bits 16
org 0

%ifndef FROM
%define FROM 2
%endif
%ifndef TO
%define TO 9
%endif

    mov bp, FROM            ; first factor
row:
    mov si, FROM            ; second factor
column:
    mov ax, bp
    call print_ax
    mov bl, 'x'
    call print_char
    mov ax, si
    call print_ax
    mov bl, '='
    call print_char
    mov ax, bp
    mul si
    call print_ax

    inc si
    cmp si, TO
    ja row_end
    mov bl, ' '
    call print_char
    jmp column
row_end:
    call print_newline
    inc bp
    cmp bp, TO
    jbe row

    mov bl, 0
    jmp exit

print_ax:
    movzx eax, ax
    jmp print_number

%include "console.inc"
