; mmio - writes VALUE past the end of 1 MB of RAM (--mem=1M), where there is no device.
bits 16
org 0

%ifndef OFFSET
%define OFFSET 0x100        ; bytes past 1 MB
%endif
%ifndef VALUE
%define VALUE 0x1234
%endif

    mov ax, 0xffff          ; segment 0xffff starts at 1 MB - 16
    mov es, ax
    mov word [es:OFFSET + 16], VALUE
    hlt
