"""The checks of memory accesses and of selectors, decoded from the guest's own tables: SDM vol. 3, chapter 5
"Protection".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from grader.commands.explain.faults import GP, NP, SS, Access, Fault
from grader.commands.explain.paging import walk
from grader.commands.explain.state import Instruction, Memory, Segment


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
        """The physical address; raises Fault (#PF, or #GP if the address is not canonical)."""
        if not self.state.long:
            linear &= 0xffffffff
        if not self.state.paging:
            return linear
        self.check_canonical(linear, access.what)
        return walk(self.state, self.memory, linear, access)

    def check_canonical(self, linear: int, text: str, vector: int = GP) -> None:
        """Raises Fault: SDM vol. 1, 3.3.7.1 "Canonical Addressing"."""
        if self.state.long and linear >> 47 not in (0, 0x1ffff):
            raise Fault(vector, f"{text} 0x{linear:016x}, but that address is not canonical: bits 63 to 48 "
                                "differ from bit 47", "canonical")

    def read(self, linear: int, count: int, access: Access) -> bytes:
        """Bytes at a linear address; raises Fault. Outside of RAM everything is ones, as on a bus."""
        found = b""
        for address in range(linear, linear + count):
            phys = self.translate(address & self.state.mask, access)
            found += self.memory.read(phys, 1) or b"\xff"
        return found

    def number(self, linear: int, count: int, access: Access) -> int:
        return int.from_bytes(self.read(linear, count, access), "little")

    def in_segment(self, name: str, segment: Segment, offset: int, count: int, access: Access) -> None:
        """Raises the Fault of an access to `count` bytes of a segment, if any."""
        vector = SS if name == "ss" else GP
        last = offset + count - 1
        if self.state.bits == 64:
            self.reach(segment.base + offset, count, access, vector)
            return
        upper = name.upper()
        if not self.state.real:
            if segment.unusable or not segment.selector & ~3 and name != "cs" and not segment.present:
                raise Fault(GP, f"{access.what} {upper}:0x{offset:x}, but {upper} holds the null selector",
                            "null segment")
            if access.write and not is_writable_data(segment):
                raise Fault(GP, f"{access.what} {upper}:0x{offset:x}, but {upper} is not a writable data "
                                f"segment (type {segment.type})", "segment type")
        down = not is_code(segment) and segment.type & 4 and segment.s
        top = 0xffffffff if segment.db else 0xffff
        if (offset <= segment.limit or last > top) if down else last > segment.limit:
            raise Fault(vector, f"{access.what} {upper}:0x{offset:x}, but the limit of {upper} is "
                                f"0x{segment.limit:x}", "limit")
        for page in {offset, last}:
            self.translate(segment.base + page, access)

    def reach(self, linear: int, count: int, access: Access, vector: int) -> None:
        """Raises the Fault of an access by a 64-bit address, if any; `vector` if it is not canonical."""
        for address in sorted({linear & self.state.mask, linear + count - 1 & self.state.mask}):
            self.check_canonical(address, access.what, vector)
            self.translate(address, access)

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
        if self.state.long and segment.l and segment.db:
            raise Fault(GP, f"{text}: {descriptor} has both L and D/B set", "selector")
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
