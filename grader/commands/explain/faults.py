"""The exceptions of memory accesses and of selectors, decoded from the guest's own tables: SDM vol. 3,
chapter 5 "Protection", 4.3 "32-Bit Paging".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from grader.commands.explain.state import (CR0_WP, CR4_PSE, LARGE, LARGE_RESERVED, PRESENT, USER, WRITABLE,
                                           Instruction, Memory, Segment)

DE, DB, BP, OF, BR, UD, NM, DF = 0, 1, 3, 4, 5, 6, 7, 8
TS, NP, SS, GP, PF, MF, AC = 10, 11, 12, 13, 14, 16, 17
NAMES = {
    DE: "divide error (#DE)", DB: "debug exception (#DB)", BP: "breakpoint (#BP)", OF: "overflow (#OF)",
    BR: "bound range exceeded (#BR)", UD: "invalid opcode (#UD)", NM: "no floating-point unit (#NM)",
    DF: "double fault (#DF)", TS: "invalid TSS (#TS)", NP: "segment not present (#NP)",
    SS: "stack fault (#SS)", GP: "general protection (#GP)", PF: "page fault (#PF)",
    MF: "floating-point error (#MF)", AC: "alignment check (#AC)",
}


def name_of(vector: int) -> str:
    """A vector in words."""
    return NAMES.get(vector, f"interrupt 0x{vector:x}")


def short_name(vector: int) -> str:
    """#PF, or interrupt 0x20."""
    return NAMES[vector].rpartition("(")[2].rstrip(")") if vector in NAMES else f"interrupt 0x{vector:x}"


@dataclass(frozen=True)
class Fault(Exception):
    """An exception of the processor, and why."""

    vector: int
    why: str
    topic: str = ""      # for the likely cause: see causes.py

    def __str__(self) -> str:
        return f"{name_of(self.vector)}: {self.why}"


@contextmanager
def topic(name: str) -> Iterator[None]:
    """Gives this topic to the faults of the part."""
    try:
        yield
    except Fault as fault:
        raise Fault(fault.vector, fault.why, name) from None


@dataclass(frozen=True)
class Access:
    """What an instruction does with memory."""

    what: str            # "reading", "writing to" or "fetching the instruction at"
    write: bool = False
    user: bool = False
    topic: str = "not mapped"  # if the page is not


@dataclass(frozen=True)
class Descriptor:
    """An entry of the GDT."""

    selector: int
    low: int
    high: int

    @property
    def segment(self) -> Segment:
        limit = self.low & 0xffff | self.high & 0xf0000
        granular = self.high >> 23 & 1
        base = self.low >> 16 | (self.high & 0xff) << 16 | self.high & 0xff000000
        return Segment(self.selector, base, limit << 12 | 0xfff if granular else limit, self.high >> 8 & 15,
                       self.high >> 12 & 1, self.high >> 13 & 3, self.high >> 15 & 1, self.high >> 22 & 1,
                       self.high >> 21 & 1, granular, 0)

    def __str__(self) -> str:
        return f"descriptor 0x{self.selector & ~7:x} ({self.high:08x} {self.low:08x})"


def is_code(segment: Segment) -> bool:
    return bool(segment.s and segment.type & 8)


def is_writable_data(segment: Segment) -> bool:
    return bool(segment.s and not segment.type & 8 and segment.type & 2)


class Processor:
    """A vCPU in one state, with its memory."""

    def __init__(self, state: Instruction, memory: Memory) -> None:
        self.state = state
        self.memory = memory

    # ---------------------------------------------------------------- addresses

    def translate(self, linear: int, access: Access) -> int:
        """The physical address; raises Fault (#PF)."""
        linear &= 0xffffffff
        if not self.state.paging:
            return linear
        text = f"{access.what} 0x{linear:08x}"
        directory, table = linear >> 22, linear >> 12 & 0x3ff
        entry = self._entry(self.state["cr3"] & ~0xfff, directory, text, "the page directory")
        what = f"page directory entry {directory} ({entry:08x})"
        if not entry & PRESENT:
            raise Fault(PF, f"{text}, but {what} is not present", access.topic)
        rights, names = entry, [what]
        if entry & LARGE and self.state["cr4"] & CR4_PSE:
            if entry & LARGE_RESERVED:
                raise Fault(PF, f"{text}, but {what} has reserved bits set", "reserved")
            phys = entry & 0xffc00000 | linear & 0x3fffff
        else:
            ignored = " (CR4.PSE is 0, so bit 7 does not make it a 4 MB page)" if entry & LARGE else ""
            leaf = self._entry(entry & ~0xfff, table, text, f"the page table of entry {directory}")
            what = f"page table entry {table} ({leaf:08x}) of directory entry {directory} ({entry:08x})"
            if not leaf & PRESENT:
                raise Fault(PF, f"{text}, but {what} is not present{ignored}",
                            "pse" if ignored else access.topic)
            rights, names = entry & leaf, [what]
            phys = leaf & ~0xfff | linear & 0xfff
        if access.user and not rights & USER:
            raise Fault(PF, f"{text} in ring 3, but {names[0]} allows the kernel only", "rights")
        if access.write and not rights & WRITABLE and (access.user or self.state["cr0"] & CR0_WP):
            raise Fault(PF, f"{text}, but {names[0]} is read-only", "rights")
        return phys

    def _entry(self, base: int, index: int, text: str, what: str) -> int:
        data = self.memory.read(base + 4 * index, 4)
        if data is None:
            raise Fault(PF, f"{text}, but {what} at 0x{base:08x} is outside of RAM", "table outside")
        return int(struct.unpack("<I", data)[0])

    def read(self, linear: int, count: int, access: Access) -> bytes:
        """Bytes at a linear address; raises Fault. Outside of RAM everything is ones, as on a bus."""
        found = b""
        for address in range(linear, linear + count):
            phys = self.translate(address, access)
            found += self.memory.read(phys, 1) or b"\xff"
        return found

    def word(self, linear: int, access: Access) -> int:
        return int(struct.unpack("<I", self.read(linear, 4, access))[0])

    def in_segment(self, name: str, segment: Segment, offset: int, count: int, access: Access) -> None:
        """Raises the Fault of an access to `count` bytes of a segment, if any."""
        vector = SS if name == "ss" else GP
        upper = name.upper()
        if not self.state.real:
            if segment.unusable or not segment.selector & ~3 and name != "cs" and not segment.present:
                raise Fault(GP, f"{access.what} {upper}:0x{offset:x}, but {upper} holds the null selector",
                            "null segment")
            if access.write and not is_writable_data(segment):
                raise Fault(GP, f"{access.what} {upper}:0x{offset:x}, but {upper} is not a writable data "
                                f"segment (type {segment.type})", "segment type")
        down = not is_code(segment) and segment.type & 4 and segment.s
        last = offset + count - 1
        top = 0xffffffff if segment.db else 0xffff
        if (offset <= segment.limit or last > top) if down else last > segment.limit:
            raise Fault(vector, f"{access.what} {upper}:0x{offset:x}, but the limit of {upper} is "
                                f"0x{segment.limit:x}", "limit")
        for page in {offset, last}:
            self.translate(segment.base + page, access)

    # ---------------------------------------------------------------- descriptors

    def descriptor(self, selector: int, text: str, vector: int = GP) -> Descriptor:
        """A descriptor of the GDT; raises Fault."""
        base, limit = self.state["gdt_base"], self.state["gdt_limit"]
        if not selector & ~3:
            raise Fault(vector, f"{text}, the null selector", "null selector")
        if selector & 4:
            raise Fault(vector, f"{text}, a selector of the LDT, and there is none", "selector")
        if (selector & ~7) + 7 > limit:
            raise Fault(vector, f"{text}, past the end of the GDT (limit 0x{limit:x})", "selector")
        data = self.read(base + (selector & ~7), 8, Access("reading the GDT at"))
        return Descriptor(selector, *struct.unpack("<II", data))

    def accept(self, descriptor: Descriptor, text: str, absent: int = NP) -> Segment:
        """The last checks before a segment is loaded: it is present, and can be marked as used."""
        segment = descriptor.segment
        if not segment.present:
            raise Fault(absent, f"{text}: {descriptor} is not present", "descriptor present")
        if not segment.s or not segment.type & 1:
            mark = "accessed" if segment.s else "busy"
            self.translate(self.state["gdt_base"] + (descriptor.selector & ~7) + 5,
                           Access(f"marking {descriptor} as {mark}, writing to", write=True))
        return segment

    def check_code(self, selector: int, cpl: int, text: str) -> Segment:
        """The code segment for a far transfer to a ring of at least `cpl`'s rights; raises Fault."""
        descriptor = self.descriptor(selector, text)
        segment = descriptor.segment
        if not is_code(segment):
            raise Fault(GP, f"{text}: {descriptor} is not a code segment", "selector")
        if segment.type & 4 and segment.dpl > cpl or not segment.type & 4 and segment.dpl != cpl:
            raise Fault(GP, f"{text}: {descriptor} has DPL {segment.dpl}, and ring {cpl} was asked for",
                        "selector")
        return self.accept(descriptor, text)

    def check_stack(self, selector: int, cpl: int, text: str, vector: int = GP) -> Segment:
        """The stack segment of ring `cpl`; raises Fault."""
        descriptor = self.descriptor(selector, text, vector)
        segment = descriptor.segment
        if selector & 3 != cpl or segment.dpl != cpl:
            raise Fault(vector, f"{text}: {descriptor} has DPL {segment.dpl} and the selector RPL "
                                f"{selector & 3}, and ring {cpl} needs {cpl}", "selector")
        if not is_writable_data(segment):
            raise Fault(vector, f"{text}: {descriptor} is not a writable data segment", "selector")
        return self.accept(descriptor, text, SS)
