"""The processor's exceptions, and the accesses to memory that cause them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    fetch: bool = False


def fetching(user: bool, text: str = "") -> Access:
    """The fetch of an instruction; `text` comes before the words for it."""
    return Access(f"{text}fetching the instruction at", user=user, fetch=True)
