; status - ends with STATUS and prints nothing.
%include "abi.inc"
bits 16
org 0

%ifndef STATUS
%define STATUS 0
%endif

    mov bl, STATUS
    jmp exit

%include "console.inc"
