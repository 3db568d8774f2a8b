; port - writes VALUE to PORT, where there is no device.
bits 16
org 0

%ifndef PORT
%define PORT 0x3f8
%endif
%ifndef VALUE
%define VALUE 0x41
%endif

    mov dx, PORT
    mov al, VALUE
    out dx, al
    hlt
