; faults - reads READS, writes WRITES, divides by zero, and reports each fault: page faults with CR2 and
; error code. It also reports accesses that don't fault.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef READS
%define READS 0x40000000
%endif
%ifndef WRITES
%define WRITES 0x40000000
%endif

    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 0
    mov eax, on_divide
    call set_gate
    mov ecx, 14
    mov eax, on_page_fault
    call set_gate

    xor ebp, ebp
next_read:
    mov dword [resume], read_done
    mov edi, [reads + ebp * 4]
    mov eax, [edi]
    mov esi, read_text
    call tell
read_done:
    inc ebp
    cmp ebp, (writes - reads) / 4
    jb next_read

    xor ebp, ebp
next_write:
    mov dword [resume], write_done
    mov edi, [writes + ebp * 4]
    mov [edi], ebp
    mov esi, written_text
    call tell
write_done:
    inc ebp
    cmp ebp, (end - writes) / 4
    jb next_write

    mov dword [resume], divided
    xor edx, edx
    mov eax, 1
    xor ecx, ecx
    div ecx
divided:
    mov bl, 0
    jmp exit

on_page_fault:
    mov eax, cr2
    call print_hex
    call print_space
    pop eax                 ; the error code
    call print_hex
    call print_newline
    jmp return

on_divide:
    mov esi, divide_text
    call print_string
    call print_newline
return:
    mov eax, [resume]
    mov [esp], eax          ; EIP to continue at
    iretd

; Prints ESI, then EDI. Changes many registers.
tell:
    call print_string
    mov eax, edi
    call print_hex
    jmp print_newline

%include "protected.inc"

    align 4
resume: dd 0
reads: dd READS
writes: dd WRITES
end:
read_text: db "read ", 0
written_text: db "wrote ", 0
divide_text: db "divide error", 0
