; bench - does one thing COUNT times, and prints the time stamp cycles that took as 16 hexadecimal digits:
; `make bench` measures it. METHOD selects what it does.
%include "abi.inc"
bits 16
org 0

%define BY_NOTHING  0       ; the start alone: it prints a character and asks for one
%define BY_PUTCHAR  1       ; one exit per character
%define BY_OUTSB    2       ; `rep outsb` of LENGTH bytes: as many per exit as KVM passes on
%define BY_WRITE    3       ; one exit for LENGTH bytes
%define BY_GETCHAR  4       ; two exits
%define BY_COMPUTE  5       ; no exit: compute.inc
%define BY_LINES    6       ; a line of 16 characters by PUTCHAR
%define BY_TICKS    7       ; a timer interrupt
%define BY_KEYS     8       ; a keyboard interrupt, answered with a dot; until the end of input
%define BY_KEYS_RUN 9       ; the same, with a guest that does not sleep in between

%ifndef METHOD
%define METHOD BY_WRITE
%endif
%ifndef COUNT
%define COUNT 1
%endif
%ifndef LENGTH
%define LENGTH 20000
%endif

; -DPIC: interrupts come from an 8259 (KVM_CREATE_IRQCHIP), not from the VMM.
%macro end_of_interrupt 0
%ifdef PIC
    mov al, 0x20
    out 0x20, al
%endif
%endmacro

start:
%ifdef QEMU                 ; a ROM at 0xf0000, and memory elsewhere
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ax, 0x1000
    mov ds, ax
    mov es, ax
%endif
%if METHOD >= BY_TICKS
%ifdef PIC
    mov al, 0x11            ; ICW1: edge-triggered, cascaded, ICW4 follows (8259A datasheet)
    out 0x20, al
    mov al, TIMER_VECTOR    ; ICW2
    out 0x21, al
    mov al, 4               ; ICW3
    out 0x21, al
    mov al, 1               ; ICW4: 8086 mode
    out 0x21, al
%if METHOD == BY_TICKS
    mov al, ~1 & 0xff
%else
    mov al, ~2 & 0xff
%endif
    out 0x21, al
%endif
    mov ax, on_tick
    mov bx, on_key
    call install_vectors
%endif
    rdtsc
    push edx
    push eax
    mov ecx, COUNT
%if METHOD == BY_NOTHING
    call show_ready
%elif METHOD == BY_PUTCHAR
    mov bl, '.'
.next:
    call print_char
    dec ecx
    jnz .next
%elif METHOD == BY_OUTSB
    cld
.next:
    mov edi, ecx
    mov si, text
    mov cx, LENGTH
    mov dx, STRING_PORT
    rep outsb
    mov ecx, edi
    dec ecx
    jnz .next
%elif METHOD == BY_WRITE
    mov edi, ecx
.next:
    mov si, text
    mov cx, LENGTH
    mov ax, HC_WRITE
    mov dx, HYPERCALL_PORT
    out dx, ax
    dec edi
    jnz .next
%elif METHOD == BY_GETCHAR
    mov dx, HYPERCALL_PORT
.next:
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    dec ecx
    jnz .next
%elif METHOD == BY_COMPUTE
    mov esi, table
    %include "compute.inc"
%elif METHOD == BY_LINES
.next:
    mov edi, 15
    mov bl, '.'
.character:
    call print_char
    dec edi
    jnz .character
    call print_newline
    dec ecx
    jnz .next
%elif METHOD == BY_TICKS
.next:
    sti
    hlt
    cmp [ticks], ecx
    jb .next
%elif METHOD >= BY_KEYS
    call show_ready
.next:
    sti
%if METHOD == BY_KEYS
    hlt
%endif
    jmp .next
%endif
    rdtsc
    pop ebx
    pop ecx
    sub eax, ebx
    sbb edx, ecx
    push eax
    mov eax, edx
    call print_hex
    pop eax
    call print_hex
end:
%ifdef QEMU
    mov al, 16
    out 0xf4, al            ; isa-debug-exit: the status is 33, which QEMU does not use by itself
%endif
    mov bl, 0
    jmp exit

; show_ready: prints a character, and asks for one, so that it is not kept in a buffer. Changes EAX, DX.
show_ready:
    mov al, '>'
    mov dx, STRING_PORT
    out dx, al
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    ret

; print_hex: prints EAX as 8 digits. Changes EAX, CX, DX, EBP.
print_hex:
    mov ebp, eax
    mov cx, 8
    mov dx, STRING_PORT
.next:
    rol ebp, 4
    mov ax, bp
    and al, 0xf
    add al, '0'
    cmp al, '9'
    jbe .digit
    add al, 'a' - '0' - 10
.digit:
    out dx, al
    loop .next
    ret

on_tick:
    inc dword [ticks]
    push ax
    end_of_interrupt
    pop ax
    iret

on_key:
    pushad
    mov al, '.'             ; the first thing that it does can be seen outside
    mov dx, STRING_PORT
    out dx, al
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
    in eax, dx
    cmp eax, GETCHAR_END
    je end
    end_of_interrupt
    popad
    iret

%include "console.inc"
%include "vectors.inc"

ticks: dd 0
text: times LENGTH db '.'
align 4
table:                      ; 4,096 bytes, not in the image

%ifdef QEMU
times 0xfff0 - ($ - $$) db 0
    jmp 0xf000:start        ; the reset vector
times 0x10000 - ($ - $$) db 0
%endif
