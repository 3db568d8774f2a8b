; sum - adds up numbers and leaves the results in registers: `--regs` shows them.
;   EAX = the sum, EBX = all of them by exclusive or, ECX = how many, EDX = the last one.
; It calls, pushes and pops, so that it also needs a stack.
bits 16
org 0

%ifndef NUMBERS
%define NUMBERS 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
%endif

    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    mov si, numbers
next:
    call take
    inc ecx
    cmp si, end
    jb next
    hlt

; take: adds the number at SI to the results and moves SI to the next one.
take:
    push dword [si]
    pop edx
    add eax, edx
    xor ebx, edx
    add si, 4
    ret

numbers: dd NUMBERS
end:
