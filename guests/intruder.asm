; intruder - writes MARK to offset OFFSET of window VICTIM, then prints what it reads there. Without
; --isolate that is its neighbour's memory; with it, memory of its own virtual machine.
%include "abi.inc"
bits 16
org 0

%ifndef VICTIM
%define VICTIM 0            ; number of a window
%endif
%ifndef OFFSET
%define OFFSET 0x8000
%endif
%ifndef MARK
%define MARK 666
%endif

    mov ax, VICTIM * WINDOW_BYTES / 16
    mov es, ax
    mov dword [es:OFFSET], MARK
    mov eax, [es:OFFSET]
    call print_number
    call print_newline
    mov bl, 0
    jmp exit

%include "console.inc"
