"""`make explain`: its walk and its checks, on tables and instructions made by hand."""

from __future__ import annotations

import unittest
from dataclasses import replace

try:
    import capstone  # type: ignore # noqa: F401
    from grader.commands.explain.faults import Access, Fault, fetching
    from grader.commands.explain.instructions import Executor
    from grader.commands.explain.processor import Processor
    from grader.commands.explain.state import Instruction, Memory, Record, Segment
    from grader.commands.explain.text import report
except ImportError:
    raise unittest.SkipTest("python3-capstone is not installed") from None


def blank(**values: int) -> Instruction:
    """A vCPU in protected mode, with flat segments."""
    names = ("rax rbx rcx rdx rsi rdi rbp rsp rip rflags cr0 cr2 cr3 cr4 efer "
             "r8 r9 r10 r11 r12 r13 r14 r15 gdt_base gdt_limit idt_base idt_limit")
    flat = Segment(8, 0, 0xffffffff, 11, 1, 0, 1, 1, 0, 1, 0)
    data = Segment(16, 0, 0xffffffff, 3, 1, 0, 1, 1, 0, 1, 0)
    registers = {**dict.fromkeys(names.split(), 0), "cr0": 0x80000001, "cr3": 0x1000, **values}
    return Instruction(b"", 1, False, registers, {"cs": flat, "ss": data, "ds": data, "es": data, "fs": data,
                                                  "gs": data, "tr": data, "ldt": data})


def blank_64(**values: int) -> Instruction:
    """A vCPU in long mode."""
    state = blank(**{"cr4": 1 << 5, "efer": 0xd01, **values})
    return replace(state, segments={**state.segments, "cs": replace(state.segments["cs"], l=1, db=0)})


class LongMode(unittest.TestCase):
    """64-bit code: instructions, addresses and registers."""

    def test_instructions_are_those_of_64_bit_code(self) -> None:
        before = replace(blank_64(rip=0xffffffff80100000), code=bytes.fromhex("4c8d3d11000000"))
        after = replace(before, values={**before.values, "rip": 0xffffffff80100007,
                                        "r15": 0xffffffff80100018})
        record = Record(0, "KVM_EXIT_SHUTDOWN", True, 2, -1, 0, [before, after], Memory(0x1000, {}))
        text = "\n".join(report(record, lambda _: ""))
        self.assertRegex(text, r"ffffffff80100000  lea r15, \[rip \+ 0x11\] +r15=ffffffff80100018")

    def test_tables_that_are_not_known(self) -> None:
        for name, values in (("PAE", {"cr4": 1 << 5, "efer": 0}), ("five levels", {"cr4": 1 << 5 | 1 << 12})):
            record = Record(0, "KVM_EXIT_SHUTDOWN", True, 1, -1, 0, [blank_64(**values)], Memory(0x1000, {}))
            with self.subTest(name):
                self.assertIn("are not explained", "\n".join(report(record, lambda _: "")))

    def check(self, code: str, words: str, *stack: int, **values: int) -> None:
        """What an instruction at 0 does, where 1 GB is mapped at 0, and the rest is not; RSP is 0x3000."""
        pages = {0x1000: entries(0x2007), 0x2000: entries(0x83), 0x3000: entries(*stack),
                 0x4000: entries(0, 0xaf9b000000ffff, 0xcf93000000ffff)}
        values = {"rsp": 0x3000, "gdt_base": 0x4000, "gdt_limit": 23, **values}
        state = replace(blank_64(**values), code=bytes.fromhex(code))
        with self.subTest(code):
            self.assertIn(words, str(Executor(Processor(state, Memory(0x10000, pages))).fault()))

    def test_addresses_of_operands(self) -> None:
        odd = 0x800000000000
        self.check("8b03", "None", rbx=0x3000)
        self.check("8b03", "(#GP): reading 0x0000800000000000", rbx=odd)           # mov eax, [rbx]
        self.check("418b4424f8", "(#GP): reading 0x0000800000000000", r12=odd + 8)  # mov eax, [r12 - 8]
        self.check("8b04cb", "(#GP): reading 0x0000800000000008", rbx=odd, rcx=1)  # mov eax, [rbx + rcx * 8]
        self.check("678b03", "None", rbx=odd)                                      # mov eax, [ebx]
        self.check("678b040b", "None", rbx=0xffffffff, rcx=0x3001)                 # mov eax, [ebx + ecx]
        self.check("8b4500", "(#SS): reading 0x0000800000000000", rbp=odd)         # mov eax, [rbp]
        self.check("41f7f0", "(#DE): div r8d divides by 0", r8=1 << 32)            # div r8d
        self.check("8b05f6ffff3f", "(#PF): reading 0x0000000040000000", rip=4)     # mov eax, [rip + ...]

    def test_jumps_calls_and_returns(self) -> None:
        odd = 1 << 47
        for code, words in (("ffe0", "jmp"), ("ffd0", "call")):
            self.check(code, f"(#GP): {words} leads to 0x0000800000000000", rax=odd)
        self.check("c3", "(#SS): ret with RSP", rsp=odd)
        self.check("c3", "(#GP): ret leads to 0x0000800000000000", odd)
        self.check("ffe0", "None", rax=odd - 1)

    def test_32_bit_code(self) -> None:
        state = blank_64(rbx=0x40000000, rsp=0xffffffff00000004)
        code = replace(state.segments["cs"], l=0, db=1)
        memory = Memory(0x10000, {0x1000: entries(0x2007), 0x2000: entries(0x83)})
        for instruction, words in (("8b03", "(#PF): reading 0x0000000040000000, but PDPT entry 1 ("),
                                   ("50", "None")):                            # mov eax, [ebx]; push eax
            changed = replace(state, code=bytes.fromhex(instruction), segments={**state.segments, "cs": code})
            self.assertIn(words, str(Executor(Processor(changed, memory)).fault()))

    def test_iretq(self) -> None:
        self.check("48cf", "None", 0x123, 8, 2, 0x3000, 0)  # in ring 0 SS may be 0
        self.check("48cf", "None", 0x123, 8, 2, 0x3000, 16)
        self.check("48cf", "(#GP): iretq returns to 0x0000800000000000", 1 << 47, 8, 2, 0x3000, 16)
        self.check("48cf", "with SS 0x8: descriptor 0x8", 0x123, 8, 2, 0x3000, 8)


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


def entries(*values: int) -> bytes:
    """The first entries of a table of long mode."""
    return b"".join(value.to_bytes(8, "little") for value in values).ljust(4096, b"\0")


class Walks64(unittest.TestCase):
    """The walk in long mode, by the manual: QEMU's processor has error code 8 for a reserved bit."""

    READ, WRITE, FETCH = Access("reading"), Access("writing to", write=True), fetching(False)
    USER = Access("reading", user=True)
    NX = 1 << 63

    def walk(self, access: Access, pml4: int = 0x2007, pdpt: int = 0x3007, pd: int = 0x4007,
             table: int = 0x5007, linear: int = 0x123, **values: int) -> str:
        pages = {0x1000: entries(pml4), 0x2000: entries(pdpt), 0x3000: entries(pd), 0x4000: entries(table)}
        processor = Processor(blank_64(**values), Memory(0x10000, pages))
        try:
            return f"{processor.translate(linear, access):x}"
        except Fault as fault:
            return str(fault)

    def test_pages_of_each_size(self) -> None:
        self.assertEqual(self.walk(self.READ), "5123")
        self.assertEqual(self.walk(self.READ, pd=0x40000087, linear=0x1ff123), "401ff123")
        self.assertEqual(self.walk(self.READ, pdpt=0x80000087, linear=0x3ffff123), "bffff123")
        self.assertEqual(self.walk(self.READ, pd=0x40001087, linear=0x123), "40000123")  # bit 12 is PAT
        self.assertEqual(self.walk(self.READ, table=0x12345005087), "12345005123")  # as is bit 7

    def test_not_present(self) -> None:
        for level, words in (("pml4", "but PML4 entry 0 (0000000000002006) is not present (error code 0x0)"),
                             ("pdpt", "but PDPT entry 0 (0000000000002006) of PML4 entry 0 (000000000000"),
                             ("pd", "but PD entry 0 (0000000000002006) of PDPT entry 0 ("),
                             ("table", "but page table entry 0 (0000000000002006) of PD entry 0 (")):
            self.assertIn(words, self.walk(self.READ, **{level: 0x2006}))

    def test_a_right_needs_every_level(self) -> None:
        for level, next_table in (("pml4", 0x2000), ("pdpt", 0x3000), ("pd", 0x4000), ("table", 0x5000)):
            with self.subTest(level):
                for access, bits, words in (
                        (self.USER, 3, "allows the kernel only (error code 0x5)"),
                        (self.WRITE, 5, "is read-only (error code 0x3)"),
                        (self.FETCH, self.NX | 7, "has NX set (error code 0x11)")):
                    self.assertIn(words, self.walk(access, cr0=0x80010001, **{level: next_table | bits}))

    def test_the_kernel_may_write_unless_wp_is_set(self) -> None:
        self.assertEqual(self.walk(self.WRITE, pd=0x4005), "5123")
        user = replace(self.WRITE, user=True)
        self.assertIn("is read-only (error code 0x7)", self.walk(user, pd=0x4005))

    def test_reserved_bits(self) -> None:
        for level, entry, words in (("pml4", 0x2087, "PML4 entry 0 (0000000000002087) has"),
                                    ("pdpt", 0x2087, "PDPT entry 0 (0000000000002087) of PML4 entry 0"),
                                    ("pdpt", 0x20000087, "has reserved bits set (0x20000000)"),
                                    ("pd", 0x100087, "has reserved bits set (0x100000) (error code 0x9)")):
            self.assertIn(words, self.walk(self.READ, **{level: entry}))

    def test_nx_without_nxe_is_a_reserved_bit(self) -> None:
        found = self.walk(self.FETCH, table=self.NX | 0x5007, efer=0x500)
        self.assertIn("has reserved bits set (0x8000000000000000) (error code 0x9)", found)
        self.assertIn("(error code 0x0)", self.walk(self.FETCH, table=0, efer=0x500))
        self.assertIn("(error code 0x10)", self.walk(self.FETCH, table=0))

    def test_canonical_addresses(self) -> None:
        for linear in (1 << 47, (1 << 64) - (1 << 47) - 1, 1 << 63):
            self.assertIn("(#GP): reading", self.walk(self.READ, linear=linear))
        for linear in ((1 << 47) - 1, (1 << 64) - (1 << 47)):
            self.assertIn("(#PF): reading", self.walk(self.READ, linear=linear))

    def test_a_table_outside_of_ram(self) -> None:
        found = self.walk(self.READ, pdpt=0x123450007)
        self.assertIn("the PD of PDPT entry 0 (0000000123450007)", found)
        self.assertIn("at 0x123450000 is outside of RAM", found)


class Segments(unittest.TestCase):
    """The checks of segments that QEMU's processor does not make: no guest in the lab VM can show them."""

    def fault(self, code: bytes, real: bool = False, **segment: int) -> str:
        state = blank(rbx=0x123456, cr0=0 if real else 1)
        data = replace(state.segments["ds"], **segment)
        state = replace(state, code=code, segments={**state.segments, "ds": data})
        return str(Executor(Processor(state, Memory(0x1000000))).fault())

    def test_an_access_is_checked(self) -> None:
        write, read = b"\x89\x03", b"\x8b\x03"  # mov [ebx], eax; mov eax, [ebx]
        self.assertEqual(self.fault(write), "None")
        self.assertIn("DS is not a writable data segment (type 1)", self.fault(write, type=1))
        self.assertIn("DS holds the null selector", self.fault(read, unusable=1))
        self.assertIn("the limit of DS is 0xfffff", self.fault(read, limit=0xfffff))

    def test_a_real_mode_segment_ends_at_64_kb(self) -> None:
        read = b"\xa1\xff\xff"  # mov ax, [0xffff]
        self.assertIn("the limit of DS is 0xffff", self.fault(read, real=True, limit=0xffff))
