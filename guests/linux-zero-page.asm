; linux-zero-page - prints what the zero page says of it and the PC: loader, header, e820 map, the ramdisk with a
; number computed from all of it, the command line; and a number computed from its own last bytes.
%include "linux.inc"

%ifndef TAIL
%define TAIL 1, 2, 3, 4
%endif

start:
    mov rsp, STACK
    mov rbp, rsi
    movzx eax, byte [rbp + 0x210]       ; the loader's type
    call print_hex
    call print_newline
    mov eax, [rbp + 0x24c]  ; payload_length
    call print_hex
    call print_newline
    movzx eax, byte [rbp + 0x1e8]       ; e820 entries
    call print_hex
    call print_newline
    lea r12, [rbp + 0x2d0]
    mov r13d, 2
next_entry:
    mov rax, [r12]
    call print_hex
    call print_space
    mov rax, [r12 + 8]
    call print_hex
    call print_space
    mov eax, [r12 + 16]
    call print_hex
    call print_newline
    add r12, 20
    dec r13d
    jnz next_entry
    mov eax, [rbp + 0x218]  ; ramdisk
    call print_hex
    call print_space
    mov eax, [rbp + 0x21c]
    call print_hex
    call print_newline
    mov esi, [rbp + 0x218]
    mov ecx, [rbp + 0x21c]
    call sum
    lea rsi, [rel tail]
    mov ecx, tail_end - tail
    call sum
    mov esi, [rbp + 0x228]  ; command line
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

; sum: prints a number computed from ECX bytes at RSI. Changes RAX, RBX, RCX, RDX, RSI.
sum:
    xor eax, eax
    jrcxz .end
.next:
    movzx edx, byte [rsi]
    rol eax, 5
    add eax, edx
    inc rsi
    loop .next
.end:
    call print_hex
    jmp print_newline
%include "linux-end.inc"
