; pages - writes a number to each of the physical PAGES (MARK, MARK + 1, ...) through the higher half. Then
; it reads through the addresses VIRTUAL, which --map has mapped: it prints the value at OFFSET there, adds
; ADDEND through the same address, and prints the value again through the higher half. A number that no
; table leads to ends it: memory can be at two physical addresses.
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

; walk: the number EAX was read at EDI. If it is that of a page, the directory and its table must lead there.
; Changes EBX and ECX.
walk:
    mov ebx, eax
    sub ebx, MARK
    cmp ebx, (virtual - pages) / 4
    jae .end                ; another number, which is printed
    push dword [pages + ebx * 4]
    mov ecx, cr3
    mov ebx, edi
    shr ebx, 22
    and ecx, 0xfffff000     ; an entry's physical address
    mov ecx, [HIGHER_HALF + ecx + ebx * 4]
    mov ebx, edi
    shr ebx, 12
    and ebx, 1023
    and ecx, 0xfffff000
    mov ecx, [HIGHER_HALF + ecx + ebx * 4]
    and ecx, 0xfffff000
    pop ebx
    cmp ecx, ebx
    mov bl, STATUS_NOT_PAGED
    jne exit
.end:
    ret

%include "protected.inc"

    align 4
pages: dd PAGES
virtual: dd VIRTUAL
end:
