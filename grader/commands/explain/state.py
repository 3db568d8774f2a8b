"""What the VMM records of a crash (common/debug/replay.c): the vCPU at its last instructions, and memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

PAGE = 4096
PREFIX = "explain: "

CR0_PE, CR0_EM, CR0_TS, CR0_WP, CR0_PG = 1 << 0, 1 << 2, 1 << 3, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_OSFXSR, CR4_LA57 = 1 << 4, 1 << 5, 1 << 9, 1 << 12
CR4_KNOWN = 0x007f7fff
EFER_SCE, EFER_LMA, EFER_NXE = 1 << 0, 1 << 10, 1 << 11

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
WITHOUT_BASE = ("cs", "ds", "es", "ss")  # in 64-bit code


@dataclass(frozen=True)
class Segment:
    """A segment register, with what it was loaded with."""

    selector: int
    base: int
    limit: int
    type: int
    s: int
    dpl: int
    present: int
    db: int
    l: int  # noqa: E741 (the bit's name)
    g: int
    unusable: int


@dataclass(frozen=True)
class Instruction:
    """The vCPU before it executes an instruction."""

    code: bytes          # at CS:EIP; less than 15 bytes if the next page is not mapped
    repeated: int        # how often, for a repeated string instruction
    handler: bool        # the processor came here to deliver an exception or interrupt
    values: dict[str, int]
    segments: dict[str, Segment]

    @classmethod
    def parse(cls, text: str) -> Instruction:
        """From a line of the record."""
        fields: dict[str, Any] = json.loads(text)
        segments = {name: Segment(**fields.pop(name)) for name in SEGMENTS}
        state = cls(bytes.fromhex(fields.pop("code")), fields.pop("repeated"), bool(fields.pop("handler")),
                    fields, segments)
        for name in WITHOUT_BASE if state.bits == 64 else ():
            segments[name] = replace(segments[name], base=0)
        return state

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @property
    def real(self) -> bool:
        return not self["cr0"] & CR0_PE

    @property
    def paging(self) -> bool:
        return bool(self["cr0"] & CR0_PG)

    @property
    def covered(self) -> bool:
        """Whether this program knows the mode's tables: not PAE's, nor those of five levels."""
        return not self.paging or (not self["cr4"] & CR4_LA57 if self.long else not self["cr4"] & CR4_PAE)

    @property
    def long(self) -> bool:
        """Long mode, for 64-bit code and for 32-bit code."""
        return bool(self["efer"] & EFER_LMA)

    @property
    def cpl(self) -> int:
        return 0 if self.real else self.segments["ss"].dpl

    @property
    def linear(self) -> int:
        """The address of the instruction."""
        if self.bits == 64:
            return self["rip"]
        return (self.segments["cs"].base + self["rip"]) & 0xffffffff

    @property
    def bits(self) -> int:
        if self.long and self.segments["cs"].l:
            return 64
        return 32 if self.segments["cs"].db and not self.real else 16

    @property
    def mask(self) -> int:
        """For addresses."""
        return 0xffffffffffffffff if self.long else 0xffffffff

    @property
    def stack_mask(self) -> int:
        """For the stack pointer."""
        if self.bits == 64:
            return self.mask
        return 0xffffffff if self.segments["ss"].db and not self.real else 0xffff


@dataclass
class Memory:
    """Guest RAM."""

    size: int
    pages: dict[int, bytes] = field(default_factory=dict)  # the others are zeros

    def read(self, phys: int, count: int) -> bytes | None:
        """Bytes at a physical address; None: not all of them are in RAM."""
        if phys < 0 or phys + count > self.size:
            return None
        found = b""
        while count:
            offset = phys % PAGE
            part = self.pages.get(phys - offset, bytes(PAGE))[offset:offset + count]
            found, phys, count = found + part, phys + len(part), count - len(part)
        return found


@dataclass(frozen=True)
class Record:
    """A crash."""

    vcpu: int
    reason: str              # the exit's name, "hang" or "no exit"
    same: bool               # the second time it ended as the first
    count: int               # instructions since the checkpoint
    injected: int            # vector of the interrupt that was delivered first; -1: none
    interrupts: int          # delivered since the start
    history: list[Instruction]
    memory: Memory

    @property
    def last(self) -> Instruction:
        return self.history[-1]

    @property
    def interrupt(self) -> int:
        """The vector of an interrupt that came before the last instruction was executed; -1: none."""
        return self.injected if self.count == 1 else -1


def parse(lines: list[str]) -> Iterator[Record]:
    """The records in the VMM's standard error, one for each guest that crashed; none that is cut."""
    head: dict[str, Any] = {}
    history: list[Instruction] = []
    memory = Memory(0)
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        kind, _, text = line[len(PREFIX):].partition(" ")
        if kind == "crash":
            head = json.loads(text)
            history, memory = [], Memory(head["ram"])
        elif kind == "instruction":
            history.append(Instruction.parse(text))
        elif kind == "page":
            page = json.loads(text)
            memory.pages[page["address"]] = bytes.fromhex(page["bytes"])
        elif kind == "end" and head and history:
            yield Record(head["vcpu"], head["reason"], bool(head["same"]), head["instructions"],
                         head["injected"], head["interrupts"], history, memory)
