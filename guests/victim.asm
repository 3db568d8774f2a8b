; victim - keeps VALUE at offset OFFSET of its window. It waits for a character, and then prints what it
; finds there: VALUE, unless an intruder has changed it.
; encrypt: no (the intruder's write must not be decrypted)
%include "abi.inc"
bits 16
org 0

%ifndef OFFSET
%define OFFSET 0x8000
%endif
%ifndef VALUE
%define VALUE 42
%endif

    mov dx, HYPERCALL_PORT
wait_for_input:
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_NOTHING
    je wait_for_input

    mov eax, [OFFSET]
    call print_number
    call print_newline
    mov bl, 0
    jmp exit

%include "console.inc"

times OFFSET - ($ - $$) db 0
    dd VALUE
