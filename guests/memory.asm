; memory - writes a different number to each of PAGES pages of 4 KB, then reads all of them back.
;   EAX = the sum of what it read, ECX = the pages written: `--regs` shows them.
bits 16
org 0

%ifndef FIRST
%define FIRST 0x1234567     ; the number of the first page
%define STEP 0x1111         ; from one page to the next
%endif
%ifndef PAGES
%define PAGES 64            ; from 0x10000 up, after this guest's own code and stack
%endif
%ifndef OFFSET
%define OFFSET 0            ; inside each page
%endif

PAGE_SEGMENT equ 0x1000 / 16

    mov ax, 0x1000          ; segment 0x1000 = address 0x10000
    mov es, ax
    mov ebx, FIRST
    mov cx, PAGES
write:
    mov [es:OFFSET], ebx
    add ebx, STEP
    mov ax, es
    add ax, PAGE_SEGMENT
    mov es, ax
    loop write

    mov ax, 0x1000
    mov es, ax
    xor eax, eax
    xor ecx, ecx
read:
    add eax, [es:OFFSET]
    mov bx, es
    add bx, PAGE_SEGMENT
    mov es, bx
    inc ecx
    cmp ecx, PAGES
    jb read
    hlt
