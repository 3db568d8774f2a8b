; string-pages - puts LENGTH letters at VIRTUAL + OFFSET and prints them in one exit: a string whose pages
; need not be adjacent in RAM. Letter number i is 'a' + i * STEP % 26, or with LINE_CODE one that this code
; computes. With -DBLIND it writes no letters, and the VMM has to find out what is there.
%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT

%ifndef VIRTUAL
%define VIRTUAL 0x200000
%endif
%ifndef OFFSET
%define OFFSET 0xffa
%endif
%ifndef LENGTH
%define LENGTH 20
%endif
%ifndef STEP
%define STEP 1
%endif

%ifndef BLIND
    mov edi, VIRTUAL + OFFSET
    mov ecx, LENGTH
    xor eax, eax
fill:
%ifdef LINE_CODE
    push ecx
    call line_code
    mov [line_number], eax
    shr eax, 16
    xor edx, edx
    mov ecx, 26
    div ecx
    pop ecx
    lea ebx, [edx + 'a']
    mov [edi], bl
    mov eax, [line_number]
%else
    lea ebx, [eax + 'a']
    mov [edi], bl
    add eax, STEP
    cmp eax, 26
    jb .kept
    sub eax, 26
.kept:
%endif
    inc edi
    loop fill
%else
    mov eax, VIRTUAL
    call print_hex
    call print_newline
%endif

    mov esi, VIRTUAL + OFFSET
    mov ecx, LENGTH
    mov eax, HC_WRITE
    mov edx, HYPERCALL_PORT
    out dx, eax
    call print_newline
    mov bl, 0
    jmp exit

%include "protected.inc"
