"""The guests of test_explain.py: each crashes in one way, and what must be said of it."""

from __future__ import annotations

from dataclasses import dataclass

REAL = """%include "abi.inc"
bits 16
org 0
"""
PAGING = """%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT
"""

# A table of 256 gates at `idt`; `gate VECTOR, HIGH, LOW` fills one, `enter_ring_3 ADDRESS, FLAGS` goes there.
TABLES = """
%macro gate 3
    mov dword [idt + 8 * %1], %3
    mov dword [idt + 8 * %1 + 4], %2
%endmacro
%macro handler 3                ; vector, address, attributes
    mov eax, %2
    mov ecx, eax
    and eax, 0xffff
    or eax, SELECTOR_KERNEL_CODE << 16
    mov [idt + 8 * %1], eax
    and ecx, 0xffff0000
    or ecx, %3
    mov [idt + 8 * %1 + 4], ecx
%endmacro
%macro enter_ring_3 2           ; address, flags
    and byte [HIGHER_HALF + GDT_OFFSET + SELECTOR_TSS + 5], ~2
    mov ax, SELECTOR_TSS
    ltr ax
    push dword SELECTOR_USER_DATA
    push dword 0x40000ff0
    push dword %2
    push dword SELECTOR_USER_CODE
    push dword %1
    iretd
%endmacro
    jmp start
    align 8
idt: times 2048 db 0
pointer:
    dw 2047
    dd idt
start:
"""
GDT, DIRECTORY = "HIGHER_HALF + GDT_OFFSET", "HIGHER_HALF + DIRECTORY_OFFSET"
RING_3 = ("--map=0x40000000:0x100000:wu", "--map=0x40001000:0x101000:wu", "--map=0x40002000:0x102000:wu")
# Ring 3 makes a system call; esp0 is 0.
SYSTEM_CALL = TABLES + """
    mov dword [HIGHER_HALF + TSS_OFFSET + 8], SS0
    handler 0x80, handle, 0xee00
    lidt [pointer]
    enter_ring_3 0x40000000 + user_page - $$, 2
handle:
    hlt
    align 4096
user_page:
    int 0x80
"""


@dataclass(frozen=True)
class Case:
    """A guest, and what must be said of its end."""

    name: str
    code: str
    words: "tuple[str, ...]"
    options: "tuple[str, ...]" = ()
    real: bool = False


CASES = [
    Case("sse", "movaps xmm0, xmm1", ("invalid opcode (#UD): movaps", "CR4.OSFXSR is 0", "limit is 0x0",
                                      "-> #GP", "double fault", "shuts down", "Likely cause: The compiler")),
    Case("code-not-mapped", "mov eax, 0x50000000\njmp eax",
         ("fetching the instruction at 0x50000000", "page directory entry 320 (00000000) is not present")),
    Case("stack-not-mapped", "mov esp, 0x50000000\npush eax",
         ("writing to 0x4ffffffc", "page directory entry 319 (00000000) is not present")),
    Case("idt-not-mapped", "lidt [p]\nud2\np: dw 2047\ndd 0x50000000",
         ("reading IDT entry 6 at 0x50000030", "reading IDT entry 14 at", "double fault")),
    Case("gdt-not-mapped", "lgdt [p]\nmov ax, 0x10\nmov ds, ax\np: dw 47\ndd 0x50000000",
         ("reading the GDT at 0x50000010", "page directory entry 320")),
    Case("gate-empty", TABLES + "lidt [pointer]\nud2", ("IDT entry 6 (00000000 00000000) is empty",)),
    Case("gate-type", TABLES + "gate 6, 0x8200, 0x80000\nlidt [pointer]\nud2", ("has type 2, which is not",)),
    Case("gate-not-present", TABLES + "gate 6, 0x0e00, 0x80000\nlidt [pointer]\nud2",
         ("IDT entry 6 (00000e00 00080000) is not present",)),
    Case("gate-selector", TABLES + "gate 6, 0x8e00, 0x100000\nlidt [pointer]\nud2",
         ("descriptor 0x10", "is not a code segment")),
    Case("gate-past-gdt", TABLES + "gate 6, 0x8e00, 0x400000\nlidt [pointer]\nud2",
         ("has selector 0x40, past the end of the GDT (limit 0x2f)",)),
    Case("trap-stack", SYSTEM_CALL.replace("SS0", "SELECTOR_KERNEL_DATA"),
         ("int 0x80 is executed", "TSS.esp0 is 0x00000000", "writing to 0xfffffffc",
          "Likely cause: An interrupt"), RING_3),
    Case("trap-stack-segment", SYSTEM_CALL.replace("SS0", "0"),
         ("int 0x80 is executed", "TSS.ss0 is 0x0, the null selector"), RING_3),
    Case("gate-dpl", SYSTEM_CALL.replace("SS0", "SELECTOR_KERNEL_DATA").replace("0xee00", "0x8e00"),
         ("has DPL 0, so ring 3 can't use it with int",), RING_3),
    Case("iret-selector", "pushfd\npush dword 0x33\npush dword 0\niretd",
         ("iretd returns to CS 0x33, past the end of the GDT",)),
    Case("interrupt-without-handler", "sti\njmp $",
         ("interrupt 0x20 arrives", "the IDT's limit is 0x0, so it has no entry 32")),
    Case("jump-into-data", "jmp text\ntext: times 6 db 0xff",
         ("are not an instruction", "Likely cause: Execution has run into data")),
    Case("divide-in-handler", TABLES + "handler 6, handle, 0x8e00\nlidt [pointer]\nud2\n"
         "handle: xor ecx, ecx\ndiv ecx",
         ("the processor calls a handler", "divide error (#DE): div ecx divides by 0", "IDT entry 0 ")),
    Case("pse-off", "mov eax, cr4\nand eax, ~0x10\nmov cr4, eax\nnop",
         ("CR4.PSE is 0, so bit 7 does not make it a 4 MB page",)),
    Case("reserved", "mov dword [HIGHER_HALF + DIRECTORY_OFFSET + 4 * 320], 0x00200083\n"
         "mov eax, [0x50000000]",
         ("page directory entry 320 (00200083) has reserved bits set",)),
    Case("interrupt-from-ring-3", TABLES + """
    handler 0x20, handle, 0x8e00
    lidt [pointer]
    enter_ring_3 0x40000000 + user_page - $$, 0x202
handle:
    hlt
    align 4096
user_page:
    jmp $
""", ("interrupt 0x20 arrives", "TSS.ss0 is 0x0, the null selector -> #TS",
      "Likely cause: An interrupt, exception or system call in ring 3"), RING_3),
    Case("ring-3-uses-a-port", TABLES + """
    lidt [pointer]
    enter_ring_3 0x40000000 + user_page - $$, 2
    align 4096
user_page:
    mov dx, HYPERCALL_PORT
    out dx, eax
""", ("edx=500 40001004 out dx, eax", "out in ring 3 needs IOPL 3, and it is 0"), RING_3),
    Case("gdt-entry-not-present", f"mov dword [{GDT} + 16 + 4], 0x00cf1200\nmov ax, 16\nmov ds, ax",
         ("segment not present (#NP)",
          "loads 0x10 into DS: descriptor 0x10 (00cf1200 0000ffff) is not present",
          "Likely cause: The descriptor's present bit")),
    Case("gdt-entry-not-accessed", f"""
    mov dword [{GDT} + 16 + 4], 0x00cf9200
    lgdt [register]
    mov eax, cr0
    or eax, 0x10000                 ; CR0.WP
    mov cr0, eax
    mov ax, 16
    mov ds, ax
register:
    dw 47
    dd 0x40000000 + GDT_OFFSET
""", ("as accessed, writing to 0x40001015", "is read-only"), ("--map=0x40001000:0x1000",)),
    Case("far-jump-to-data", "jmp SELECTOR_KERNEL_DATA:0",
         ("ljmp 0x10:0 loads 0x10 into CS: descriptor 0x10", "is not a code segment")),
    Case("far-jump-through-memory", "jmp far [place]\nplace: dd 0\ndw 0x33",
         ("loads 0x33 into CS, past the end of the GDT (limit 0x2f)",)),
    Case("tss-busy", "mov ax, SELECTOR_TSS\nltr ax",
         ("has type 11, not an available TSS (9), but a busy one", "Likely cause: The processor finds")),
    Case("cr3-virtual", "mov eax, HIGHER_HALF + DIRECTORY_OFFSET\nmov cr3, eax",
         ("the page directory at 0x80002000 is outside of RAM", "is the address physical")),
    Case("control-register", "mov eax, 0x80000000\nmov cr0, eax",
         ("loads 0x80000000, but PG is 1 without PE",)),
    Case("sse-unaligned", "mov eax, cr4\nor eax, 0x200\nmov cr4, eax\nmovaps xmm0, [HIGHER_HALF + 4]",
         ("a multiple of 16, and this is 0x80000004",)),
    Case("handler-not-mapped", TABLES + "handler 6, 0x50000000, 0x8e00\nlidt [pointer]\nud2",
         ("its handler at 0x50000000 is called, but fetching", "-> #PF", "double fault",
          "Likely cause: The entry of the IDT does not lead to a handler")),
    Case("error-code-left", TABLES + "handler 14, handle, 0x8e00\nlidt [pointer]\nmov eax, [0x50000000]\n"
         "handle: iretd", ("(the processor calls a handler)", "iretd returns to CS 0x",
                           "the error code of exceptions that have one")),
    Case("unknown-exception", "mov ecx, 0x12345\nwrmsr", ("does not know: wrmsr",)),
    Case("outside-of-ram", f"mov dword [{DIRECTORY} + 4 * 320], 0x40000083\nmov eax, [0x50000000]",
         ("of 2 since",
          "reading DS:0x50000000, which is physical address 0x40000000: RAM ends at 0x01000000")),
    Case("jump-outside-of-ram", f"""
    mov dword [{DIRECTORY} + 4 * 320], 0x40000083
    mov eax, 0x50000000
    jmp eax
""",
         ("fetching the instruction at CS:0x50000000, which is physical",)),
    Case("long", "mov ecx, 20000000\nagain: loop again\nmov eax, [0x50000000]",
         ("mov eax, dword ptr [0x50000000]", "(00000000) is not present")),
    Case("much-ram", "mov eax, [0x50000000]", ("of directory entry 320",),
         ("--mem=2G", "--unmap=0x50000000")),
    Case("many-exits", """
    mov ebp, 500
again:
    mov bl, 'x'
    mov edx, HYPERCALL_PORT
    mov eax, HC_PUTCHAR
    out dx, eax
    dec ebp
    jnz again
    mov eax, [0x50000000]
""", ("of 3 since", "(00000000) is not present")),
    Case("loop", "mov ecx, 1\njmp $", ("it hangs, or computes for long", "jmp 0x80100005 (64 times)",
                                       "Likely cause: Are these instructions the guest's own?")),
    Case("real-no-idt", "sti\njmp $",
         ("interrupt 0x20 arrives", "the IDT's limit is 0x0, so it has no entry 32",
          "Likely cause: The guest has no handlers yet"), real=True),
    Case("real-halted", "sti\nhlt\nhlt", ("hlt", "interrupt 0x20 arrives", "no entry 32"), real=True),
    Case("real-divide", "xor cx, cx\ndiv cx",
         ("of 2 since", "divide error (#DE): div cx divides by 0",
          "so it has no entry 0 -> #GP, so a double fault"), real=True),
    Case("real-vector-empty", "mov sp, 0x7000\nlidt [register]\nsti\njmp $\nregister: dw 1023\ndd 0x8000",
         ("it hangs", "interrupt 0x20 arrives again and again",
          "entry 32 of the vector table is empty, so execution continues at 0000:0000",
          "Likely cause: The vector table has no handler"), real=True),
    Case("real-zeros", "jmp 0x3000:0", ("it executes zeros, where nothing was loaded",), real=True),
    Case("real-far-jump-without-gdt", "mov eax, cr0\nor al, 1\nmov cr0, eax\njmp 0x5008:0",
         ("ljmp 0x5008:0 loads 0x5008 into CS",), real=True),
]
