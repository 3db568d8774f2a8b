"""The 64-bit guests of test_explain.py: each crashes in one way, and what must be said of it."""

from __future__ import annotations

from grader.quality.tests.explain_guests import Case

# `gate VECTOR, ADDRESS, ATTRIBUTES` fills a gate, `enter_ring_3 FLAGS` goes to `user_page`, mapped by RING_3.
LONG = """%include "long.inc"
IDT equ HIGHER_HALF_64 + LOAD_MIN
TSS equ HIGHER_HALF_64 + TSS_OFFSET
PML4 equ HIGHER_HALF_64 + DIRECTORY_OFFSET
PD equ HIGHER_HALF_64 + TABLES_OFFSET + PAGE_BYTES  ; of the first GB
%macro gate 3
    mov rax, %2
    mov [IDT + 16 * %1], ax
    mov word [IDT + 16 * %1 + 2], SELECTOR_KERNEL_CODE
    mov word [IDT + 16 * %1 + 4], %3
    shr rax, 16
    mov [IDT + 16 * %1 + 6], ax
    shr rax, 16
    mov [IDT + 16 * %1 + 8], eax
    mov dword [IDT + 16 * %1 + 12], 0
%endmacro
%macro task_register 0          ; QEMU needs a TSS that ltr has loaded
    mov rax, HIGHER_HALF_64 + GDT_OFFSET + SELECTOR_TSS
    and byte [rax + 5], ~2
    mov ax, SELECTOR_TSS
    ltr ax
%endmacro
%macro enter_ring_3 1           ; flags
    task_register
    push SELECTOR_LONG_USER_DATA
    push 0x40001ff0
    push %1
    push SELECTOR_LONG_USER_CODE
    push 0x40000000
    iretq
%endmacro
    jmp start
    align 8
idt: dw 4095
    dq IDT
start:
"""
END = "\nfile_end:\n"
USER_PAGE = "    times PAGE_BYTES - ($ - file) db 0\nuser_page:\n"
RING_3 = ("--map=0x40000000:0x101000:wu", "--map=0x40001000:0x102000:wu")
DOUBLE = "double fault (#DF)"


CASES_64 = [
    Case("long-canonical", "mov rax, 0x0000800000000000\nmov rbx, [rax]",
         ("general protection (#GP): reading 0x0000800000000000, but that address is not canonical",
          "the IDT's limit is 0x0, so it has no entry 13", DOUBLE, "a third fault",
          "Likely cause: The address is not canonical", "lab7-long-mode.md")),
    Case("long-canonical-stack", "mov rbp, 0x7fffffffffffff00\nmov rbx, [rbp]",
         ("stack fault (#SS): reading 0x7fffffffffffff00, but that address is not canonical",)),
    Case("long-canonical-jump", "mov rax, 0xffff7fffffffffff\njmp rax",
         ("0xffff7fffffffffff, but that address is not canonical",)),
    Case("long-not-mapped", "mov rdi, 0x50000000\nmov [rdi], eax",
         ("page fault (#PF): writing to 0x0000000050000000, but PD", "PDPT entry 1 (",
          "is not present (error code 0x2)", "Likely cause: The page is not in the tables")),
    Case("long-nothing-at-pml4", "mov rdi, 0xffff800000000000\nmov eax, [rdi]",
         ("but PML4 entry 256 (0000000000000000) is not present (error code 0x0)",)),
    Case("long-no-execute", "mov rax, 0x40000000\njmp rax",
         ("fetching the instruction at 0x0000000040000000, but page table entry 0 (8000000000100",
          "has NX set (error code 0x11)", "Likely cause: Execution has come to a page that holds data"),
         ("--map=0x40000000:0x100000:wn",)),
    Case("long-read-only", "mov rax, 0x40000000\nmov [rax], eax",
         ("is read-only (error code 0x3)", "Likely cause: The page is mapped, but its rights"),
         ("--map=0x40000000:0x100000",)),
    Case("long-reserved", "or qword [PML4], 0x80\nmov rax, cr3\nmov cr3, rax\nmov eax, [0x1000]",
         ("but PML4 entry 0 (", "has reserved bits set (0x80) (error code 0x9)",
          "Likely cause: A bit that must be 0")),
    Case("long-gate-empty", "lidt [rel idt]\nud2",
         ("IDT entry 6 (00000000 00000000 00000000 00000000) is empty",)),
    Case("long-gate-not-present", "gate 6, handle, 0x0e00\nlidt [rel idt]\nud2\nhandle: hlt",
         ("IDT entry 6 (00000000 ffffffff 80100e00 0008", "is not present -> #NP",
          "Likely cause: The entry of the IDT is filled in, but its present bit")),
    Case("long-gate-selector", "gate 6, handle, 0x8f00\nmov word [IDT + 16 * 6 + 2], SELECTOR_KERNEL_DATA\n"
         "lidt [rel idt]\nud2\nhandle: hlt", ("has selector 0x10: descriptor 0x10", "is not a code segment")),
    Case("long-gate-code-of-32-bits", "mov byte [HIGHER_HALF_64 + GDT_OFFSET + 8 + 6], 0xcf\n"
         "gate 6, handle, 0x8e00\nlidt [rel idt]\nud2\nhandle: hlt",
         ("is not 64-bit code", "Likely cause: The gate's selector must be that")),
    Case("long-handler-not-mapped", "gate 6, 0x50000000, 0x8e00\nlidt [rel idt]\nud2",
         ("its handler at 0x0000000050000000 is called, but fetching the instruction at", "-> #PF", DOUBLE,
          "Likely cause: The entry of the IDT does not lead to a handler")),
    Case("long-handler-not-canonical", "gate 6, 0x8000000000000000, 0x8e00\nlidt [rel idt]\nud2",
         ("leads to 0x8000000000000000, but that address is not canonical",)),
    Case("long-divide-in-handler", "gate 6, handle, 0x8e00\nlidt [rel idt]\nud2\nhandle: xor r9, r9\ndiv r9",
         ("(the processor calls a handler)", "divide error (#DE): div r9 divides by 0",
          "IDT entry 0 (")),
    Case("long-trap-stack", f"""
    gate 0x20, handle, 0x8e00
    lidt [rel idt]
    enter_ring_3 0x202
handle:
    hlt
{USER_PAGE}
    jmp $
""", ("interrupt 0x20 arrives", "pushing on the stack of ring 0 (TSS.rsp0 is 0x0000000000000000), writing to "
      "0xfffffffffffffff8", "is not present (error code 0x2)", DOUBLE,
      "Likely cause: An interrupt or exception in ring 3", "TSS.rsp0, at offset 4"), RING_3),
    Case("long-trap-stack-not-canonical", f"""
    mov rax, 0x1234567812345678
    mov [TSS + 4], rax
    gate 0x80, handle, 0xee00
    lidt [rel idt]
    enter_ring_3 2
handle:
    hlt
{USER_PAGE}
    int 0x80
""", ("int 0x80 is executed", "(TSS.rsp0 is 0x1234567812345678), writing to 0x1234567812345668, but that "
      "address is not canonical", "-> #SS", "Likely cause: An interrupt or exception in ring 3"), RING_3),
    Case("long-ist", "mov dword [TSS + 36 + 8], 0x50000018\ntask_register\ngate 6, handle, 0x8e02\n"
         "lidt [rel idt]\nud2\nhandle: hlt",
         ("pushing on the stack that the gate names (TSS.ist2 is 0x0000000050000018), writing to "
          "0x0000000050000008", "-> #PF", "Likely cause: The gate names a stack of the IST")),
    Case("long-ist-past-the-tss", """
    mov word [HIGHER_HALF_64 + GDT_OFFSET + SELECTOR_TSS], 67
    task_register
    gate 6, handle, 0x8e07
    lidt [rel idt]
    ud2
handle:
    hlt
""", ("the TSS has no stack 7 of the IST: TR's limit is 0x43 -> #TS",)),
    Case("long-ring-3-reads-the-kernel", f"""
    lidt [rel idt]
    enter_ring_3 2
{USER_PAGE}
    mov rax, [HIGHER_HALF_64 + LOAD_DEFAULT]
""", ("reading 0xffffffff80100000 in ring 3, but", "allows the kernel only (error code 0x5)"), RING_3),
    Case("long-syscall", """
    mov ecx, 0xc0000080             ; EFER
    rdmsr
    and eax, ~1                     ; SCE
    wrmsr
    syscall
""", ("invalid opcode (#UD): syscall is executed, and EFER.SCE is 0",
      "Likely cause: syscall and sysret are invalid until")),
    Case("long-without-pae", "mov eax, 0x600\nmov cr4, rax", ("loads 0x600, but PAE is 0 in long mode",)),
    Case("long-sse", "mov rax, cr4\nand eax, ~0x200\nmov cr4, rax\nmovaps xmm0, xmm1",
         ("invalid opcode (#UD): movaps", "CR4.OSFXSR is 0", "Likely cause: 64-bit compilers use SSE")),
    Case("long-iret", "push 0\npush rsp\npushfq\npush 0x43\npush 0\niretq",
         ("iretq returns to CS 0x43, past the end of the GDT (limit 0x37)",
          "Likely cause: The frame that iretq pops")),
    Case("long-stack-not-mapped", "mov rsp, 0x50000000\npush r8",
         ("push with RSP 0x50000000, writing to 0x000000004ffffff8", "Likely cause: The stack is not usable",
          "was RSP set")),
    Case("long-outside-of-ram", "mov qword [PD + 8 * 128], 0x40000083\nmov eax, [0x10000008]",
         ("reading DS:0x10000008, which is physical address 0x40000008: RAM ends at 0x01000000",)),
    Case("long-too-high", "mov rax, 0xffffff8000083\nmov [PD + 8 * 128], rax\nmov eax, [0x10000008]",
         ("which is physical address 0xffffff8000008: RAM ends at",
          "rejects this address as one with reserved bits -> delivering #PF: the IDT's limit is 0x0",
          "a virtual address in the place of a physical one")),
    Case("long-no-idt", "sti\njmp $",
         ("interrupt 0x20 arrives", "limit is 0x0, so it has no entry 32",
          "Likely cause: The guest has no handlers yet")),
    Case("long-gs", "mov ecx, 0xc0000101\nxor eax, eax\nmov edx, 0x1000\nwrmsr\nmov eax, [gs:8]",
         ("reading 0x0000100000000008, but PML4 entry 32 (",)),
]
