; halves - writes VALUES to ADDRESSES below 2 GB and reads them back HIGHER_HALF above, then the reverse,
; and prints what it reads. Both are the same memory.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef ADDRESSES
%define ADDRESSES 0x200000, 0x3ffffc, 0x400000, 0xfffffc
%endif
%ifndef VALUES
%define VALUES 1, 2, 3, 4
%endif

    xor ebp, ebp
next:
    mov edi, [addresses + ebp * 4]
    mov eax, [values + ebp * 4]
    mov [edi], eax
    mov eax, [HIGHER_HALF + edi]
    call print_hex
    call print_space
    mov eax, [values + ebp * 4]
    not eax
    mov [HIGHER_HALF + edi], eax
    mov eax, [edi]
    call print_hex
    call print_newline
    inc ebp
    cmp ebp, (values - addresses) / 4
    jb next
    mov bl, 0
    jmp exit

%include "protected.inc"

    align 4
addresses: dd ADDRESSES
values: dd VALUES
