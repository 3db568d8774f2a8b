; long-string - puts LENGTH letters at VIRTUAL + OFFSET and prints them in one exit: a string whose pages need
; not be adjacent in RAM, and whose address may need all 64 bits. Letter number i is 'a' + i % 26, or with
; LINE_CODE one that this code computes. With -DBLIND it writes no letters, and the VMM has to find out what
; is there; with PD_ENTRY it first writes that into the PD, for the 2 MB at VIRTUAL, in the higher half.
%include "long.inc"

%ifndef VIRTUAL
%define VIRTUAL HIGHER_HALF_64 + 0x200000
%endif
%ifndef OFFSET
%define OFFSET 0xffa
%endif
%ifndef LENGTH
%define LENGTH 20
%endif

start:
%ifndef BLIND
    mov rdi, VIRTUAL
    add rdi, OFFSET
    mov ecx, LENGTH
    xor eax, eax
fill:
%ifdef LINE_CODE
    push rcx
    call line_code
    mov [rel line_number], eax
    shr eax, 16
    xor edx, edx
    mov ecx, 26
    div ecx
    pop rcx
    lea ebx, [rdx + 'a']
    mov [rdi], bl
    mov eax, [rel line_number]
%else
    lea ebx, [rax + 'a']
    mov [rdi], bl
    inc eax
    cmp eax, 26
    jb .kept
    xor eax, eax
.kept:
%endif
    inc rdi
    loop fill
%else
%ifdef PD_ENTRY
    mov rax, cr3
    mov rax, [rax + HIGHER_HALF_64 + 511 * 8]       ; the PML4's last entry
    and rax, -PAGE_BYTES
    mov rax, [rax + HIGHER_HALF_64 + 510 * 8]       ; the PDPT's for HIGHER_HALF_64
    and rax, -PAGE_BYTES
    mov qword [rax + HIGHER_HALF_64 + (VIRTUAL >> 21 & 511) * 8], PD_ENTRY
%endif
    mov rax, VIRTUAL
    call print_hex
    call print_newline
%endif

    mov rsi, VIRTUAL
    add rsi, OFFSET
    mov rcx, LENGTH
    mov eax, HC_WRITE
    mov edx, HYPERCALL_PORT
    out dx, eax
    call print_newline
    mov bl, 0
    jmp exit
%include "long-print.inc"
