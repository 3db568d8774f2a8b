"""What becomes of an exception or interrupt, decoded from the guest's own tables: SDM vol. 3, chapter 6
"Interrupt and Exception Handling".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from grader.commands.explain.faults import (AC, DE, DF, GP, NP, PF, SS, TS, Access, Fault, Processor, is_code,
                                            name_of, short_name, topic)
from grader.commands.explain.state import Segment

CONTRIBUTORY = (DE, TS, NP, SS, GP)  # SDM table 6-5 "Conditions for Generating a Double Fault"
WITH_ERROR_CODE = (DF, TS, NP, SS, GP, PF, AC)

GATES = {6: 16, 7: 16, 14: 32, 15: 32}  # types of interrupt and trap gates, and their widths


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
        base, limit, size = self.state["idt_base"], self.state["idt_limit"], 4 if self.state.real else 8
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
        descriptor = self.processor.descriptor(selector, text)
        segment = descriptor.segment
        if not is_code(segment) or segment.dpl > self.state.cpl:
            raise Fault(GP, f"{text}: {descriptor} is not a code segment for ring {self.state.cpl} or "
                            "inner rings")
        return self.processor.accept(descriptor, text)

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
                pointer = self.processor.word(place, access)
                selector = self.processor.word(place + 4, access) & 0xffff
            with topic("trap stack"):
                text = f"TSS.ss{code.dpl} is 0x{selector:x}"
                stack = self.processor.check_stack(selector, code.dpl, text, TS)
            words, where = words + 2, f"the stack of ring {code.dpl} (TSS.esp{code.dpl}"
        access = Access(f"pushing on {where} is 0x{pointer:08x}), writing to", write=True)
        mask = 0xffffffff if stack.db else 0xffff
        with topic("trap stack" if "TSS" in where else "stack"):
            for index in range(1, words + 1):
                self.processor.in_segment("ss", stack, pointer - width * index & mask, width, access)


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
            processor.translate(handler.linear, Access(f"{handler.text}, but fetching the instruction at"))
        except Fault as fault:
            vector, first = PF, fault
            yield Link(f"{fault.why} -> #PF", "gate offset")
        else:
            yield Link(handler.text, handler.topic)
            return
    yield Link("and so on, until the stack is used up")
