"""What becomes of an exception or interrupt, decoded from the guest's own tables: SDM vol. 3, chapter 6
"Interrupt and Exception Handling"; its last part has the differences of long mode.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from grader.commands.explain.faults import (AC, DE, DF, GP, NP, PF, SS, TS, Access, Fault, fetching, name_of,
                                            short_name, topic)
from grader.commands.explain.processor import Processor, is_code
from grader.commands.explain.state import Segment

CONTRIBUTORY = (DE, TS, NP, SS, GP)  # SDM table 6-5 "Conditions for Generating a Double Fault"
WITH_ERROR_CODE = (DF, TS, NP, SS, GP, PF, AC)

GATES = {6: 2, 7: 2, 14: 4, 15: 4}  # types of interrupt and trap gates, and the bytes of a word in the frame
GATES_64 = {14: 8, 15: 8}
IST = 7               # of a gate's second word
TSS_STACKS, TSS_IST = 4, 36  # where they are in a TSS
FRAME_ALIGNMENT = 16  # of the frame's end in long mode


@dataclass(frozen=True)
class Handler:
    """Where the processor continues after an exception or interrupt."""

    linear: int
    text: str
    topic: str = ""


class Delivery:
    """The way to a handler."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.state = processor.state

    def deliver(self, vector: int, software: bool = False) -> Handler:
        """The handler; raises the Fault that keeps the processor from it."""
        base, limit, size = self.state["idt_base"], self.state["idt_limit"], self._entry_bytes()
        if vector * size + size - 1 > limit:
            raise Fault(GP, f"the IDT's limit is 0x{limit:x}, so it has no entry {vector}", "no idt")
        with topic("idt address"):
            data = self.processor.read(base + vector * size, size, Access(f"reading IDT entry {vector} at"))
        if self.state.real:
            offset, segment = struct.unpack("<HH", data)
            linear, place = (segment << 4) + offset, f"{segment:04x}:{offset:04x}"
            if not any(data):
                return Handler(linear, f"entry {vector} of the vector table is empty, so execution continues "
                                       f"at {place}", "no vector")
            return Handler(linear, f"its handler at {place} is called")
        return self._through_gate(vector, software, data)

    def _entry_bytes(self) -> int:
        return 16 if self.state.long else 4 if self.state.real else 8

    def _through_gate(self, vector: int, software: bool, gate: bytes) -> Handler:
        low, high = struct.unpack_from("<II", gate)
        words = [f"{word:08x}" for word, in struct.iter_unpack("<I", gate)]
        text = f"IDT entry {vector} ({' '.join(reversed(words))})"
        kind, kinds = high >> 8 & 0x1f, GATES_64 if self.state.long else GATES
        if kind not in kinds:
            why = f"has type {kind}, which is not an interrupt or trap gate" if any(gate) else "is empty"
            raise Fault(GP, f"{text} {why}", "gate type" if any(gate) else "no handler")
        if software and high >> 13 & 3 < self.state.cpl:
            raise Fault(GP, f"{text} has DPL {high >> 13 & 3}, so ring {self.state.cpl} can't use it with "
                            "int", "gate dpl")
        if not high >> 15 & 1:
            raise Fault(NP, f"{text} is not present", "gate present")
        with topic("gate selector"):
            segment = self._gate_segment(low >> 16, f"{text} has selector 0x{low >> 16:x}")
        pushed = 3 + (vector in WITH_ERROR_CODE)
        offset = low & 0xffff | (high & 0xffff0000 if kinds[kind] > 2 else 0)
        if self.state.long:
            self._push_long_frame(segment, pushed + 2, high & IST)
            linear = offset | int.from_bytes(gate[8:12], "little") << 32
            with topic("gate offset"):
                self.processor.check_canonical(linear, f"{text} leads to")
            return Handler(linear, f"its handler at 0x{linear:016x} is called")
        self._push_frame(segment, pushed, kinds[kind])
        if offset > segment.limit:
            raise Fault(GP, f"{text}: the handler's offset 0x{offset:x} is past the limit of its segment",
                        "gate selector")
        linear = segment.base + offset & 0xffffffff
        return Handler(linear, f"its handler at 0x{linear:08x} is called")

    def _gate_segment(self, selector: int, text: str) -> Segment:
        descriptor = self.processor.descriptor(selector, text)
        segment = descriptor.segment
        if not is_code(segment) or segment.dpl > self.state.cpl:
            raise Fault(GP, f"{text}: {descriptor} is not a code segment for ring {self.state.cpl} or "
                            "inner rings")
        if self.state.long and (not segment.l or segment.db):
            raise Fault(GP, f"{text}: {descriptor} is not 64-bit code: that has L set, and D/B clear")
        return self.processor.accept(descriptor, text)

    def _push_frame(self, code: Segment, words: int, width: int) -> None:
        """Checks the stack on which the frame is stored."""
        stack, pointer, where = self.state.segments["ss"], self.state["rsp"] & 0xffffffff, "the stack (ESP"
        if self._to_inner_ring(code):
            place = TSS_STACKS + 8 * code.dpl
            pointer = self._from_tss(place, 4, 6, f"stack for ring {code.dpl}")
            selector = self._from_tss(place + 4, 2, 2, f"stack for ring {code.dpl}")
            with topic("trap stack"):
                text = f"TSS.ss{code.dpl} is 0x{selector:x}"
                stack = self.processor.check_stack(selector, code.dpl, text, TS)
            words, where = words + 2, f"the stack of ring {code.dpl} (TSS.esp{code.dpl}"
        access = Access(f"pushing on {where} is 0x{pointer:08x}), writing to", write=True)
        mask = 0xffffffff if stack.db else 0xffff
        with topic("trap stack" if "TSS" in where else "stack"):
            for index in range(1, words + 1):
                self.processor.in_segment("ss", stack, pointer - width * index & mask, width, access)

    def _to_inner_ring(self, code: Segment) -> bool:
        return not code.type & 4 and code.dpl < self.state.cpl

    def _from_tss(self, place: int, size: int, needed: int, what: str) -> int:
        """A field of the TSS, of which `needed` bytes from there on must be within its limit."""
        task = self.state.segments["tr"]
        if place + needed - 1 > task.limit:
            raise Fault(TS, f"the TSS has no {what}: TR's limit is 0x{task.limit:x}", "tss")
        with topic("tss"):
            return self.processor.number(task.base + place, size, Access("reading the TSS at"))

    # ---------------------------------------------------------------- long mode

    def _push_long_frame(self, code: Segment, words: int, ist: int) -> None:
        """Checks the stack: SDM 6.14.2 "64-Bit Mode Stack Frame", 6.14.5 "Interrupt Stack Table"."""
        pointer, where, name = self.state["rsp"], "the stack (RSP", "stack"
        if ist:
            pointer = self._from_tss(TSS_IST + 8 * (ist - 1), 8, 8, f"stack {ist} of the IST")
            where, name = f"the stack that the gate names (TSS.ist{ist}", "ist"
        elif self._to_inner_ring(code):
            pointer = self._from_tss(TSS_STACKS + 8 * code.dpl, 8, 8, f"stack for ring {code.dpl}")
            where, name = f"the stack of ring {code.dpl} (TSS.rsp{code.dpl}", "trap stack"
        access = Access(f"pushing on {where} is 0x{pointer:016x}), writing to", write=True)
        end = pointer & -FRAME_ALIGNMENT
        with topic(name):
            for index in range(1, words + 1):
                self.processor.reach(end - 8 * index, 8, access, SS)


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
            handler = Delivery(processor).deliver(vector, software=vector == software and not first)
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
            processor.translate(handler.linear, fetching(False, f"{handler.text}, but "))
        except Fault as fault:
            vector, first = PF, fault
            yield Link(f"{fault.why} -> #PF", "gate offset")
        else:
            yield Link(handler.text, handler.topic)
            return
    yield Link("and so on, until the stack is used up")
