; long-cpuid - prints what CPUID shows, and uses it. First the signature of the hypervisor; then of leaf 1 the
; hypervisor bit, the APIC id, and whether there is a local APIC, an x2APIC and its TSC deadline timer; the APIC
; id of leaf 0xb; whether there is long mode. At last it reads the x2APIC if there is one: without one it faults.
%include "long.inc"

%ifndef TEXT
%define TEXT "end"
%endif
MSR_X2APIC_ID equ 0x802

start:
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 13
    lea rax, [rel on_protection]
    call set_gate
    mov eax, CPUID_SIGNATURE
    cpuid
    push rdx
    push rcx
    push rbx
    call print_hex
    call print_space
    mov r12d, 12
    mov r13, rsp
letters:                    ; EBX, ECX, EDX: four characters each
    mov bl, [r13]
    call print_char
    inc r13
    dec r12d
    test r12d, 3
    jnz letters
    add r13, 4
    test r12d, r12d
    jnz letters
    add rsp, 24
    call print_newline

    mov eax, 1
    cpuid
    mov r8d, ebx
    mov r9d, ecx
    mov r10d, edx
    mov eax, r9d
    shr eax, 31             ; hypervisor
    call print_bit
    mov eax, r8d
    shr eax, 24             ; the APIC id
    call print_value
    mov eax, r10d
    shr eax, 9              ; local APIC
    call print_bit
    mov eax, r9d
    shr eax, 21             ; x2APIC
    call print_bit
    mov eax, r9d
    shr eax, 24             ; TSC deadline
    call print_bit
    xor eax, eax
    cpuid
    xor edx, edx
    cmp eax, 0xb
    jb leaf_shown
    mov eax, 0xb
    xor ecx, ecx
    cpuid
leaf_shown:
    mov eax, edx            ; the APIC id; or 0
    call print_value
    mov eax, 0x80000001
    cpuid
    mov eax, edx
    shr eax, 29             ; long mode
    call print_bit
    call print_newline

    test r9d, 1 << 21
    jz hidden
    mov ecx, MSR_X2APIC_ID
    rdmsr
hidden:
    lea rsi, [rel text]
finish:
    call print_string
    call print_newline
    mov bl, 0
    jmp exit

on_protection:
    lea rsi, [rel fault_text]
    jmp finish

; print_bit: prints bit 0 of EAX; print_value: EAX. Then a space.
print_bit:
    and eax, 1
print_value:
    call print_hex
    jmp print_space

text: db TEXT, 0
fault_text: db "general protection fault: CPUID shows an x2APIC, and there is none", 0
%include "long-print.inc"
