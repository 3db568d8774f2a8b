"""`make explain`: guests that crash in one way each, and the chain of events that it must show."""

from __future__ import annotations

import subprocess
import unittest
from dataclasses import dataclass
from pathlib import Path

from grader.core.building import build_guests, build_vmm
from grader.core.guests import write_constants
from grader.course import BUILD, ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Limits, Run

try:
    import capstone  # type: ignore # noqa: F401
    from grader.commands.explain.faults import Access, Fault, Processor
    from grader.commands.explain.state import Instruction, Memory, Segment, parse
    from grader.commands.explain.text import report
except ImportError:
    raise unittest.SkipTest("python3-capstone is not installed") from None

FOLDER = BUILD / "tests/explain"

PAGING = """%include "abi.inc"
bits 32
org HIGHER_HALF + LOAD_DEFAULT
"""

# A table of 256 gates at `idt`; `gate VECTOR, HIGH, LOW` fills one, `enter_ring_3 ADDRESS` goes there.
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
%macro enter_ring_3 1
    and byte [HIGHER_HALF + GDT_OFFSET + SELECTOR_TSS + 5], ~2
    mov ax, SELECTOR_TSS
    ltr ax
    push dword SELECTOR_USER_DATA
    push dword 0x40000ff0
    push dword 2
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
RING_3 = ("--map=0x40000000:0x100000:wu", "--map=0x40001000:0x101000:wu", "--map=0x40002000:0x102000:wu")
# Ring 3 makes a system call; esp0 is 0.
SYSTEM_CALL = TABLES + """
    mov dword [HIGHER_HALF + TSS_OFFSET + 8], SS0
    handler 0x80, handle, 0xee00
    lidt [pointer]
    enter_ring_3 0x40000000 + user_page - $$
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
         ("selector 0x40 is past the end of the GDT (limit 0x2f)",)),
    Case("trap-stack", SYSTEM_CALL.replace("SS0", "SELECTOR_KERNEL_DATA"),
         ("int 0x80 is executed", "TSS.esp0 is 0x00000000", "writing to 0xfffffffc",
          "Likely cause: An interrupt"), RING_3),
    Case("trap-stack-segment", SYSTEM_CALL.replace("SS0", "0"),
         ("int 0x80 is executed", "TSS.ss0 is 0x0", "the null selector"), RING_3),
    Case("gate-dpl", SYSTEM_CALL.replace("SS0", "SELECTOR_KERNEL_DATA").replace("0xee00", "0x8e00"),
         ("has DPL 0, so ring 3 can't use it with int",), RING_3),
    Case("iret-selector", "pushfd\npush dword 0x33\npush dword 0\niretd",
         ("selector 0x33 is past the end of the GDT",)),
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
]


def blank(**values: int) -> Instruction:
    """A vCPU in protected mode, with flat segments."""
    names = ("rax rbx rcx rdx rsi rdi rbp rsp rip rflags cr0 cr2 cr3 cr4 efer "
             "gdt_base gdt_limit idt_base idt_limit")
    flat = Segment(8, 0, 0xffffffff, 11, 1, 0, 1, 1, 0, 1, 0)
    data = Segment(16, 0, 0xffffffff, 3, 1, 0, 1, 1, 0, 1, 0)
    registers = {**dict.fromkeys(names.split(), 0), "cr0": 0x80000001, "cr3": 0x1000, **values}
    return Instruction(b"", 1, False, registers, {"cs": flat, "ss": data, "ds": data, "es": data, "fs": data,
                                                  "gs": data, "tr": data, "ldt": data})


class Walks(unittest.TestCase):
    """The walk through page tables, on tables made by hand."""

    def fault(self, directory_entry: int, table_entry: int, access: Access, **values: int) -> str:
        pages = {0x1000: directory_entry.to_bytes(4, "little") + bytes(4092),
                 0x2000: table_entry.to_bytes(4, "little") + bytes(4092)}
        processor = Processor(blank(**values), Memory(0x10000, pages))
        try:
            return f"{processor.translate(0x123, access):x}"
        except Fault as fault:
            return str(fault)

    def test_mapped(self) -> None:
        self.assertEqual(self.fault(0x2007, 0x5007, Access("reading")), "5123")

    def test_rights_of_both_levels_count(self) -> None:
        user, write = Access("reading", user=True), Access("writing to", write=True, user=True)
        self.assertIn("allows the kernel only", self.fault(0x2003, 0x5007, user))
        self.assertIn("allows the kernel only", self.fault(0x2007, 0x5003, user))
        self.assertIn("is read-only", self.fault(0x2005, 0x5007, write))

    def test_the_kernel_may_write_unless_wp_is_set(self) -> None:
        write = Access("writing to", write=True)
        self.assertEqual(self.fault(0x2001, 0x5001, write), "5123")
        self.assertIn("is read-only", self.fault(0x2001, 0x5001, write, cr0=0x80010001))

    def test_a_table_outside_of_ram(self) -> None:
        self.assertIn("outside of RAM", self.fault(0x7f002007, 0, Access("reading")))


class Guests(unittest.TestCase):
    """Each guest is run by the finished VMM, crashes, and is explained."""

    texts: "dict[str, str]"

    @classmethod
    def setUpClass(cls) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_constants()
        try:
            backend = pick_backend("auto", needs=("paging32",))
        except CannotGrade as error:
            raise unittest.SkipTest(str(error)) from error
        vmm = build_vmm(5, solution=True)
        runs = []
        for case in CASES:
            source = FOLDER / f"{case.name}.asm"
            source.write_text(PAGING + case.code + "\n")
            subprocess.run(["nasm", "-f", "bin", f"-I{BUILD}/", str(source), "-o", str(image_of(case))],
                           check=True, cwd=ROOT)
            runs.append(Run((str(vmm), "--explain", "--mode=paging", *case.options, str(image_of(case))),
                            limits=Limits(output=64 << 20, spin=0)))
        cls.texts = {}
        for case, result in zip(CASES, backend.run(runs)):
            record = parse(result.stderr.decode().splitlines())
            cls.texts[case.name] = "\n".join(report(record, lambda state: "")) if record else str(result)

    def test_a_real_mode_guest_is_executed_again_instruction_by_instruction(self) -> None:
        vmm, guest = build_vmm(1, solution=True), build_guests() / "triple-fault.bin"
        result, = pick_backend("auto", needs=("paging32",)).run([Run((str(vmm), "--explain", str(guest)))])
        record = parse(result.stderr.decode().splitlines())
        assert record
        text = "\n".join(report(record, lambda state: ""))
        for words in ("of 5 since", "mov cr0, eax cr0=60000011", "no entry 8: a third fault"):
            self.assertIn(words, " ".join(text.split()), text)

    def test_the_chain_of_each(self) -> None:
        for case in CASES:
            text = self.texts[case.name]
            for words in case.words:
                with self.subTest(case=case.name, words=words):
                    self.assertIn(words, " ".join(text.split()), text)


def image_of(case: Case) -> Path:
    """The assembled guest."""
    return FOLDER / f"{case.name}.bin"
