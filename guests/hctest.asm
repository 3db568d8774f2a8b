; hctest - makes every call, with its edge cases, and prints the results. Give it some input:
;   echo abc | make run LAB=2 GUESTS=hctest
%include "abi.inc"
bits 16
org 0

%ifndef TEXT
%define TEXT "all of this by one instruction"
%endif
%ifndef STATUS
%define STATUS 0
%endif

    ; PUTCHAR with operands of 8, 16 and 32 bits
    mov si, putchar_is
    call print_string
    mov dx, HYPERCALL_PORT
    mov eax, HC_PUTCHAR
    mov bl, '8'
    out dx, al
    mov bl, 'w'
    out dx, ax
    mov bl, 'd'
    out dx, eax
    call print_newline

    ; a string of no character, of one, and of many
    mov si, string_is
    call print_string
    mov dx, STRING_PORT
    xor cx, cx
    rep outsb
    mov cx, 1
    mov si, text
    rep outsb
    mov cx, text_end - text - 1
    rep outsb
    call print_newline

    ; the same by WRITE, and one of no character
    mov si, write_is
    call print_string
    mov dx, HYPERCALL_PORT
    mov al, HC_WRITE
    xor cx, cx
    out dx, al
    mov cx, text_end - text
    mov si, text
    out dx, al
    call print_newline

    ; GETCHAR until the end of input, each time with the next width: 8, 16, 32, 8, ...
    xor edi, edi            ; sum of the characters
    xor bp, bp              ; how many
read:
    call getchar_8
    call take
    call getchar_16
    call take
    call getchar_32
    call take
    jmp read

; take: counts the character in EAX; at the end of input it does not return.
take:
    cmp eax, GETCHAR_END
    je end_of_input
    inc bp
    add edi, eax
    ret

end_of_input:
    mov si, getchar_is
    call print_string
    movzx eax, bp
    call print_number
    mov si, sum_is
    call print_string
    mov eax, edi
    call print_number
    call print_newline

    ; after the end it stays at its end
    call getchar_32
    cmp eax, GETCHAR_END
    jne wrong
    mov bl, STATUS
    jmp exit
wrong:
    mov bl, 1
    jmp exit

; getchar_8, _16, _32: wait for a character or the end of input; the answer in EAX.
getchar_8:
    mov dx, HYPERCALL_PORT
    mov al, HC_GETCHAR
    out dx, al
    in al, dx
    movzx eax, al
    cmp al, GETCHAR_NOTHING & 0xff
    je getchar_8
    cmp al, GETCHAR_END & 0xff
    jne .character
    movsx eax, al
.character:
    ret

getchar_16:
    mov dx, HYPERCALL_PORT
    mov ax, HC_GETCHAR
    out dx, ax
    in ax, dx
    movsx eax, ax
    cmp eax, GETCHAR_NOTHING
    je getchar_16
    ret

getchar_32:
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je getchar_32
    ret

%include "console.inc"

putchar_is: db "PUTCHAR: ", 0
string_is:  db "string:  ", 0
write_is:   db "WRITE:   ", 0
getchar_is: db "GETCHAR: characters ", 0
sum_is:     db ", sum ", 0
text:       db TEXT
text_end:
