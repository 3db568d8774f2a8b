; linux-ports - a kernel that does what its SCRIPT says: accesses to ports and memory, waiting for interrupts.
; Each command is three numbers: what, where, value. It prints what it reads, a line each.
;    1, 2, 4     OUT of 1, 2, 4 bytes: port, value
;    17, 18, 20  IN of 1, 2, 4 bytes: port. Prints the value
;    33, 34, 36, 40  a read from memory of 1, 2, 4, 8 bytes: address. Prints the value
;    49, 50, 52, 56  a write to memory
;    64          HLT with interrupts enabled. Prints the vector of the one interrupt that it takes; 0: none came
;    65          enables interrupts for a moment. Prints the vector; 0: none came
;    66          HLT with interrupts disabled
;    67          waits until an IN from the port has a bit of value
;    80          REP OUTSB of value bytes of TEXT to the port
;    81          REP INSB of value bytes from the port. Prints them as one number, at most 8
;    82          value times OUT of '.' to the port
;    83          value bytes from the serial port, changed by KEY: those that are there after each interrupt, which
;                it waits for in HLT and answers with EOI. Prints them
;    96          EXIT with status value
%include "linux.inc"

%ifndef SCRIPT
%define SCRIPT 17, 0x3fd, 0, 96, 0, 0
%endif
%ifndef TEXT
%define TEXT "text"
%endif
%ifndef KEY
%define KEY 0
%endif
UART equ 0x3f8
LSR equ UART + 5
PIC equ 0x20
EOI equ 0x20
MEMORY_PAGE equ 0xd0000000  ; no RAM; a page of 2 MB maps it at the same address
DIRECTORY equ 0x80000       ; RAM that is zero at the start

start:
    mov rsp, STACK
    call install_idt
    xor ebp, ebp
next_gate:                  ; vectors from 32 on lead to a stub each
    lea ecx, [rbp + 32]
    lea rax, [rel stubs]
    imul edx, ebp, STUB_BYTES
    add rax, rdx
    mov edx, GATE_KERNEL
    call set_gate
    inc ebp
    cmp ebp, 256 - 32
    jb next_gate
    mov rax, cr3            ; the page at MEMORY_PAGE: in a page directory for the fourth GB
    mov rax, [rax]
    and rax, ~0xfff
    mov qword [rax + (MEMORY_PAGE >> 30) * 8], DIRECTORY | 3
    mov edx, MEMORY_PAGE | 0x83
    mov [abs DIRECTORY + (MEMORY_PAGE >> 21 & 511) * 8], rdx
    mov rax, cr3
    mov cr3, rax

    lea r15, [rel script]
next_command:
    mov eax, [r15]
    mov r13d, [r15 + 4]     ; where
    mov r14d, [r15 + 8]     ; value
    add r15, 12
    lea rbx, [rel commands]
find:
    cmp [rbx], eax
    je found
    add rbx, 8
    jmp find
found:
    movsxd rcx, dword [rbx + 4]
    lea rbx, [rel commands]
    add rbx, rcx
    mov edx, r13d
    mov eax, r14d
    jmp rbx

out_1:
    out dx, al
    jmp next_command
out_2:
    out dx, ax
    jmp next_command
out_4:
    out dx, eax
    jmp next_command
in_1:
    xor eax, eax
    in al, dx
    jmp show
in_2:
    xor eax, eax
    in ax, dx
    jmp show
in_4:
    in eax, dx
    jmp show
read_1:
    movzx eax, byte [r13]
    jmp show
read_2:
    movzx eax, word [r13]
    jmp show
read_4:
    mov eax, [r13]
    jmp show
read_8:
    mov rax, [r13]
show:
    call print_hex
    call print_newline
    jmp next_command
write_1:
    mov [r13], al
    jmp next_command
write_2:
    mov [r13], ax
    jmp next_command
write_4:
    mov [r13], eax
    jmp next_command
write_8:
    mov [r13], rax
    jmp next_command
halt:
    mov dword [rel vector], 0
    sti
    hlt
    cli
    jmp show_vector
moment:
    mov dword [rel vector], 0
    sti
    nop
    nop
    cli
show_vector:
    mov eax, [rel vector]
    jmp show
halt_masked:
    cli
    hlt
    jmp next_command
wait_for:
    in al, dx
    test al, r14b
    jz wait_for
    jmp next_command
out_string:
    mov ecx, eax
    lea rsi, [rel text]
    rep outsb
    jmp next_command
in_string:
    mov ecx, eax
    mov qword [rel room], 0
    lea rdi, [rel room]
    rep insb
    mov rax, [rel room]
    jmp show
fill:
    mov ecx, eax
    mov al, '.'
    jmp .check
.next:
    out dx, al
    dec ecx
.check:
    test ecx, ecx
    jnz .next
    jmp next_command
receive:
    mov dword [rel vector], 0
    sti
    hlt
    cli
    cmp dword [rel vector], 0
    je receive              ; no interrupt, no byte
    mov al, EOI
    out PIC, al
.next:
    test r14d, r14d
    jz .end
    mov dx, LSR
    in al, dx
    test al, 1
    jz receive
    mov dx, UART
    in al, dx
    mov bl, al
    xor bl, KEY
    call print_char
    dec r14d
    jmp .next
.end:
    call print_newline
    jmp next_command
leave_guest:
    mov bl, al
    jmp exit

%macro command 2
    dd %1, %2 - commands
%endmacro
    align 8
commands:
    command 1, out_1
    command 2, out_2
    command 4, out_4
    command 17, in_1
    command 18, in_2
    command 20, in_4
    command 33, read_1
    command 34, read_2
    command 36, read_4
    command 40, read_8
    command 49, write_1
    command 50, write_2
    command 52, write_4
    command 56, write_8
    command 64, halt
    command 65, moment
    command 66, halt_masked
    command 67, wait_for
    command 80, out_string
    command 81, in_string
    command 82, fill
    command 83, receive
    command 96, leave_guest

; Notes the vector, and returns with interrupts disabled: one interrupt for each STI. It ends HLT even if it came
; before it: QEMU before 9.1 forgets in its SVM that STI takes effect after the next instruction.
taken:
    push rax
    mov eax, [rsp + 8]
    mov [rel vector], eax
    mov rax, [rsp + 16]     ; RIP
    cmp byte [rax], 0xf4    ; HLT
    jne .return
    inc qword [rsp + 16]
.return:
    and qword [rsp + 32], ~0x200
    pop rax
    add rsp, 8
    iretq

STUB_BYTES equ 12
stubs:
%assign number 32
%rep 256 - 32
    db 0x68                 ; PUSH with an operand of 32 bits: nasm 2 and 3 write it differently
    dd number
    jmp strict near taken
    times STUB_BYTES - 10 nop
%assign number number + 1
%endrep

    align 8
room: dq 0
vector: dd 0
script: dd SCRIPT
text: db TEXT
%include "linux-end.inc"
