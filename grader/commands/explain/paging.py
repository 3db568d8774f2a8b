"""The walk through page tables: SDM vol. 3, 4.3 "32-Bit Paging", 4.5 "4-Level Paging", 4.6 "Access Rights",
4.7 "Page-Fault Exceptions".
"""

from __future__ import annotations

from dataclasses import dataclass

from grader.commands.explain.faults import PF, Access, Fault
from grader.commands.explain.state import CR0_WP, CR4_PSE, EFER_NXE, Instruction, Memory

PRESENT, WRITABLE, USER, LARGE, NX = 1, 2, 4, 0x80, 1 << 63
FRAME = 0x000ffffffffff000
# Of a page fault's error code; its lowest bit is PRESENT.
ERROR_WRITE, ERROR_USER, ERROR_RESERVED, ERROR_FETCH = 1 << 1, 1 << 2, 1 << 3, 1 << 4


@dataclass(frozen=True)
class Level:
    """The tables of one level."""

    table: str         # the name of such a table
    entry: str         # of an entry, where one of a lower table is described; empty: the last level
    shift: int         # an entry covers 1 << shift bytes
    reserved: int = 0  # bits that must be 0 where LARGE is set


# The entry of a 4 MB page has the address above 4 GB below bit 21; a longer entry has PAT in bit 12.
LEVELS_32 = (Level("page directory", "directory entry", 22, 1 << 21), Level("page table", "", 12))
LEVELS_64 = (Level("PML4", "PML4 entry", 39, LARGE), Level("PDPT", "PDPT entry", 30, 0x3fffe000),
             Level("PD", "PD entry", 21, 0x1fe000), Level("page table", "", 12))


def walk(state: Instruction, memory: Memory, linear: int, access: Access) -> int:
    """The physical address; raises Fault (#PF)."""
    levels, size = (LEVELS_64, 8) if state.long else (LEVELS_32, 4)
    text = f"{access.what} 0x{linear:0{2 * size}x}"
    table, path, ignored = state["cr3"] & FRAME & state.mask, "", ""
    denied: dict[int, str] = {}  # a right, and the uppermost entry without it
    for level in levels:
        index = linear >> level.shift & 4096 // size - 1
        data = memory.read(table + size * index, size)
        if data is None:
            raise _fault(state, access, f"{text}, but the {level.table}{path} at 0x{table:08x} is outside of "
                                        "RAM", "table outside")
        entry = int.from_bytes(data, "little")
        value = f"{index} ({entry:0{2 * size}x}){path}"
        what, path = f"{level.table} entry {value}", f" of {level.entry} {value}"
        if not entry & PRESENT:
            raise _fault(state, access, f"{text}, but {what} is not present{ignored}",
                         "pse" if ignored else access.topic)
        large = entry & LARGE and level.entry and (state.long or state["cr4"] & CR4_PSE)
        reserved = entry & level.reserved if large else 0
        if state.long and not state["efer"] & EFER_NXE:
            reserved |= entry & NX
        if reserved:
            raise _fault(state, access, f"{text}, but {what} has reserved bits set (0x{reserved:x})",
                         "reserved", PRESENT | ERROR_RESERVED)
        for right in (USER, WRITABLE, NX):
            if bool(entry & right) == (right == NX):
                denied.setdefault(right, what)
        if large or not level.entry:
            _check_rights(state, access, text, denied)
            offset = (1 << level.shift) - 1
            return entry & FRAME & state.mask & ~offset | linear & offset
        ignored = " (CR4.PSE is 0, so bit 7 does not make it a 4 MB page)" if entry & LARGE else ""
        table = entry & FRAME
    raise AssertionError("the last level maps a page")


def _check_rights(state: Instruction, access: Access, text: str, denied: dict[int, str]) -> None:
    """Raises Fault: SDM 4.6. A right needs every level; NX in one of them is enough."""
    why = ""
    if access.user and USER in denied:
        why = f" in ring 3, but {denied[USER]} allows the kernel only"
    elif access.write and WRITABLE in denied and (access.user or state["cr0"] & CR0_WP):
        why = f", but {denied[WRITABLE]} is read-only"
    elif access.fetch and NX in denied and state.long:
        raise _fault(state, access, f"{text}, but {denied[NX]} has NX set", "nx", PRESENT)
    if why:
        raise _fault(state, access, f"{text}{why}", "rights", PRESENT)


def _fault(state: Instruction, access: Access, why: str, topic: str, error: int = 0) -> Fault:
    """#PF with its error code: SDM 4.7."""
    error |= (ERROR_WRITE if access.write else 0) | (ERROR_USER if access.user else 0)
    if access.fetch and state.long and state["efer"] & EFER_NXE:
        error |= ERROR_FETCH
    return Fault(PF, f"{why} (error code 0x{error:x})", topic)
