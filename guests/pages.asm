; pages - writes a number to each of the physical PAGES (MARK, MARK + 1, ...) through the higher half. Then
; it reads through the addresses VIRTUAL, which --map has mapped: it prints the value at OFFSET there, adds
; ADDEND through the same address, and prints the value again through the higher half.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef PAGES
%define PAGES 0x200000, 0x201000
%endif
%ifndef VIRTUAL
%define VIRTUAL 0x200000, 0x201000
%endif
%ifndef MARK
%define MARK 1
%endif
%ifndef OFFSET
%define OFFSET 0
%endif
%ifndef ADDEND
%define ADDEND 0            ; 0: nothing is written
%endif

    xor ebp, ebp
mark:
    mov edi, [pages + ebp * 4]
    lea eax, [MARK + ebp]
    mov [HIGHER_HALF + edi + OFFSET], eax
    inc ebp
    cmp ebp, (virtual - pages) / 4
    jb mark

    xor ebp, ebp
next:
    mov edi, [virtual + ebp * 4]
    mov eax, [edi + OFFSET]
    call walk
    cmp eax, [HIGHER_HALF + ecx + OFFSET]
    jne elsewhere
    call print_hex
%if ADDEND
    add dword [edi + OFFSET], ADDEND
%endif
    call print_newline
    inc ebp
    cmp ebp, (end - virtual) / 4
    jb next

%if ADDEND
    xor ebp, ebp
again:
    mov edi, [pages + ebp * 4]
    mov eax, [HIGHER_HALF + edi + OFFSET]
    call print_hex
    call print_newline
    inc ebp
    cmp ebp, (virtual - pages) / 4
    jb again
%endif
    mov bl, 0
    jmp exit

elsewhere:                  ; no table leads to it
    mov bl, STATUS_NOT_PAGED
    jmp exit

; walk: ECX becomes the physical address of the page at EDI, by the directory and its table. Changes EBX.
walk:
    mov ecx, cr3
    and ecx, 0xfffff000
    mov ebx, edi
    shr ebx, 22
    mov ecx, [HIGHER_HALF + ecx + ebx * 4]
    mov ebx, edi
    test cl, 0x80           ; a page of 4 MB
    jnz .large
    shr ebx, 12
    and ebx, 0x3ff
    and ecx, 0xfffff000
    mov ecx, [HIGHER_HALF + ecx + ebx * 4]
    and ecx, 0xfffff000
    ret
.large:
    and ecx, 0xffc00000
    and ebx, 0x3ff000
    or ecx, ebx
    ret

%include "protected.inc"

    align 4
pages: dd PAGES
virtual: dd VIRTUAL
end:
