"""Which exception an instruction causes, and what becomes of its delivery, decoded from the guest's own
tables: SDM vol. 3, chapter 6 "Interrupt and Exception Handling", 5 "Protection", 4.3 "32-Bit Paging".
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
CONTRIBUTORY = (DE, TS, NP, SS, GP)  # SDM table 6-5 "Conditions for Generating a Double Fault"
WITH_ERROR_CODE = (DF, TS, NP, SS, GP, PF, AC)

TASK_GATE, GATES = 5, {6: 16, 7: 16, 14: 32, 15: 32}  # types of gates in the IDT, and their widths


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


@dataclass(frozen=True)
class Handler:
    """Where the processor continues after an exception or interrupt."""

    linear: int
    text: str
    topic: str = ""


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
            raise Fault(PF, f"{text}, but {what} is not present", "not mapped")
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
                            "pse" if ignored else "not mapped")
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

    # ---------------------------------------------------------------- delivery

    def deliver(self, vector: int, software: bool = False) -> Handler:
        """The handler; raises the Fault that keeps the processor from it."""
        base, limit, size = self.state["idt_base"], self.state["idt_limit"], 4 if self.state.real else 8
        if vector * size + size - 1 > limit:
            raise Fault(GP, f"the IDT's limit is 0x{limit:x}, so it has no entry {vector}", "no idt")
        with topic("idt address"):
            data = self.read(base + vector * size, size, Access(f"reading IDT entry {vector} at"))
        if self.state.real:
            offset, segment = struct.unpack("<HH", data)
            linear, place = (segment << 4) + offset, f"{segment:04x}:{offset:04x}"
            if not any(data):
                return Handler(linear, f"entry {vector} of the vector table is empty, so execution continues "
                                       f"at {place}", "no vector")
            return Handler(linear, f"its handler at {place} is called")
        return self._through_gate(vector, software, *struct.unpack("<II", data))

    def _through_gate(self, vector: int, software: bool, low: int, high: int) -> Handler:
        text = f"IDT entry {vector} ({high:08x} {low:08x})"
        kind = high >> 8 & 0x1f
        if kind not in GATES:
            why = f"has type {kind}, which is not an interrupt or trap gate" if low or high else "is empty"
            raise Fault(GP, f"{text} {why}", "gate type" if low or high else "no handler")
        if software and high >> 13 & 3 < self.state.cpl:
            raise Fault(GP, f"{text} has DPL {high >> 13 & 3}, so ring {self.state.cpl} can't use it with "
                            "int", "gate dpl")
        if not high >> 15 & 1:
            raise Fault(NP, f"{text} is not present", "gate present")
        with topic("gate selector"):
            segment = self._gate_segment(low >> 16, f"{text} has selector 0x{low >> 16:x}")
        self._push_frame(segment, vector, GATES[kind] // 8)
        offset = low & 0xffff | (high & 0xffff0000 if GATES[kind] == 32 else 0)
        if offset > segment.limit:
            raise Fault(GP, f"{text}: the handler's offset 0x{offset:x} is past the limit of its segment",
                        "gate selector")
        linear = segment.base + offset & 0xffffffff
        return Handler(linear, f"its handler at 0x{linear:08x} is called")

    def _gate_segment(self, selector: int, text: str) -> Segment:
        descriptor = self.descriptor(selector, text)
        segment = descriptor.segment
        if not is_code(segment) or segment.dpl > self.state.cpl:
            raise Fault(GP, f"{text}: {descriptor} is not a code segment for ring {self.state.cpl} or "
                            "inner rings")
        return self.accept(descriptor, text)

    def _push_frame(self, code: Segment, vector: int, width: int) -> None:
        """Checks the stack on which the frame is stored."""
        words = 3 + (vector in WITH_ERROR_CODE)
        stack, pointer, where = self.state.segments["ss"], self.state["rsp"] & 0xffffffff, "the stack (ESP"
        if not code.type & 4 and code.dpl < self.state.cpl:
            task = self.state.segments["tr"]
            place = task.base + 4 + 8 * code.dpl
            if 4 + 8 * code.dpl + 5 > task.limit:
                raise Fault(TS, f"the TSS has no stack for ring {code.dpl}: TR's limit is 0x{task.limit:x}",
                            "tss")
            access = Access("reading the TSS at")
            with topic("tss"):
                pointer = self.word(place, access)
                selector = self.word(place + 4, access) & 0xffff
            with topic("trap stack"):
                stack = self.check_stack(selector, code.dpl, f"TSS.ss{code.dpl} is 0x{selector:x}", TS)
            words, where = words + 2, f"the stack of ring {code.dpl} (TSS.esp{code.dpl}"
        access = Access(f"pushing on {where} is 0x{pointer:08x}), writing to", write=True)
        mask = 0xffffffff if stack.db else 0xffff
        with topic("trap stack" if "TSS" in where else "stack"):
            for index in range(1, words + 1):
                self.in_segment("ss", stack, pointer - width * index & mask, width, access)


@dataclass(frozen=True)
class Link:
    """One event of a chain."""

    text: str
    topic: str = ""


def chain(processor: Processor, first: Fault | None, interrupt: int = -1,
          software: int = -1) -> Iterator[Link]:
    """What follows from an exception, an interrupt or an int instruction, to a handler or the shutdown."""
    vector = first.vector if first else interrupt if interrupt >= 0 else software
    yield Link(str(first), first.topic) if first else Link(
        f"{name_of(vector)} arrives" if interrupt >= 0 else f"int 0x{vector:x} is executed")
    called = 0
    while called < 3:
        try:
            handler = processor.deliver(vector, software=vector == software and not first)
        except Fault as fault:
            text = f"delivering {short_name(vector)}: {fault.why}"
            if vector == DF and (fault.vector in CONTRIBUTORY or fault.vector == PF):
                yield Link(f"{text}: a third fault, and the processor shuts down", fault.topic)
                return
            double = fault.vector in (PF, *CONTRIBUTORY) and (
                vector == PF or vector in CONTRIBUTORY and fault.vector != PF)
            vector, first = DF if double else fault.vector, fault
            result = ", so a double fault (#DF)" if double else ""
            yield Link(f"{text} -> {short_name(fault.vector)}{result}", fault.topic)
            continue
        called += 1
        try:
            processor.translate(handler.linear, Access(f"{handler.text}, but fetching the instruction at"))
        except Fault as fault:
            vector, first = PF, fault
            yield Link(f"{fault.why} -> #PF", "gate offset")
        else:
            yield Link(handler.text, handler.topic)
            return
    yield Link("and so on, until the stack is used up")
