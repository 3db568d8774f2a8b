; words.asm - process 1 of a graded boot of Linux: prints its arguments, which are the words after `--` on the
; kernel's command line, then each line that it reads from the serial port, until one begins with a full stop.
; Each line that it prints ends with a number that LINE_CODE, random for each run, computes in ring 3 from the
; line's characters and what CPUID shows there: see grader/core/line_code.py. Then it reboots the machine; with
; EXIT_CODE it ends, and the kernel panics.
bits 64
org 0x400000

%ifndef LINE_CODE
%define LINE_CODE 0xc3
%endif
SYS_READ equ 0
SYS_WRITE equ 1
SYS_OPEN equ 2
SYS_IOCTL equ 16
SYS_DUP2 equ 33
SYS_MOUNT equ 165
SYS_REBOOT equ 169
SYS_EXIT_GROUP equ 231
LINUX_REBOOT_MAGIC1 equ 0xfee1dead      ; man 2 reboot
LINUX_REBOOT_MAGIC2 equ 0x28121969
LINUX_REBOOT_CMD_RESTART equ 0x01234567
TCSBRK equ 0x5409           ; with 1: waits until all output is sent
LINE_MAX equ 200

file:
    db 0x7f, "ELF", 2, 1, 1 ; 64-bit, little-endian, version 1
    times 9 db 0
    dw 2, 62                ; ET_EXEC, EM_X86_64
    dd 1                    ; version
    dq start, headers - file, 0
    dd 0
    dw headers - file, headers_end - headers, 1
    dw 0, 0, 0
headers:
    dd 1, 7                 ; PT_LOAD; read, write, execute
    dq 0, file, file
    dq file_end - file, file_end - file, 0x1000
headers_end:

start:
    mov rbx, [rsp]          ; arguments
    lea rbp, [rsp + 16]     ; the second one
    lea rdi, [rel devtmpfs]
    lea rsi, [rel dev]
    mov rdx, rdi
    xor r10d, r10d
    xor r8d, r8d
    mov eax, SYS_MOUNT
    syscall
    lea rdi, [rel serial]
    mov esi, 2              ; O_RDWR
    mov eax, SYS_OPEN
    syscall
    mov r12d, eax
    xor esi, esi
    call duplicate
    mov esi, 1
    call duplicate
next_word:
    dec rbx
    jle next_line
    mov rsi, [rbp]
    add rbp, 8
    mov r13, rsi
.length:
    cmp byte [r13], 0
    lea r13, [r13 + 1]
    jne .length
    sub r13, rsi
    dec r13
    call say
    jmp next_word
next_line:
    xor edi, edi
    lea rsi, [rel line]
    mov edx, LINE_MAX
    mov eax, SYS_READ
    syscall
    test rax, rax
    jle end
    lea rsi, [rel line]
    cmp byte [rsi], '.'
    je end
    lea r13, [rax - 1]      ; without its newline
    call say
    jmp next_line
end:
    mov edi, 1
    mov esi, TCSBRK
    mov edx, 1
    mov eax, SYS_IOCTL
    syscall
%ifdef EXIT_CODE
    mov edi, EXIT_CODE
    mov eax, SYS_EXIT_GROUP
%else
    mov edi, LINUX_REBOOT_MAGIC1
    mov esi, LINUX_REBOOT_MAGIC2
    mov edx, LINUX_REBOOT_CMD_RESTART
    mov eax, SYS_REBOOT
%endif
    syscall

; duplicate: makes descriptor R12D also ESI.
duplicate:
    mov edi, r12d
    mov eax, SYS_DUP2
    syscall
    ret

; say: prints R13 bytes at RSI and their number. Changes RAX, RCX, RDX, RSI, RDI, R8 to R11, R14.
say:
    mov r14, rsi
    xor eax, eax
    xor r8d, r8d
.next:
    cmp r8, r13
    jae .computed
    movzx ecx, byte [r14 + r8]
    xor eax, ecx
    call line_code
    inc r8
    jmp .next
.computed:
    lea rdi, [rel digits]
    mov ecx, 8
.digit:
    rol eax, 4
    mov edx, eax
    and edx, 15
    lea rsi, [rel hexadecimal]
    mov dl, [rsi + rdx]
    mov [rdi], dl
    inc rdi
    loop .digit
    mov rsi, r14
    mov rdx, r13
    call write
    lea rsi, [rel number]
    mov edx, number_end - number
write:
    mov edi, 1
    mov eax, SYS_WRITE
    syscall
    ret

line_code: db LINE_CODE     ; changes EAX to the number after one more character; and ECX and EDX
devtmpfs: db "devtmpfs", 0
dev: db "/dev", 0
serial: db "/dev/ttyS0", 0
hexadecimal: db "0123456789abcdef"
number: db " ["
digits: db "00000000]", 10
number_end:
line: times LINE_MAX db 0
file_end:
