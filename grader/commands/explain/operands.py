"""An instruction decoded by Capstone, and its operands: registers, addresses, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import capstone  # type: ignore
from capstone import x86 as cs

from grader.commands.explain.faults import Access
from grader.commands.explain.processor import Processor
from grader.commands.explain.state import Instruction


NUMBERED = {"d": 32, "w": 16, "b": 8}  # the parts of r8 to r15, in bits


@dataclass(frozen=True)
class Decoded:
    """An instruction in text, and what is checked."""

    text: str
    size: int
    insn: Any  # Capstone's; None: it is not valid


def decode(state: Instruction) -> Decoded:
    """The instruction at CS:EIP."""
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    engine = capstone.Cs(capstone.CS_ARCH_X86, modes[state.bits])
    engine.detail = True
    for insn in engine.disasm(state.code, state["rip"], 1):
        return Decoded(f"{insn.mnemonic} {insn.op_str}".strip(), insn.size, insn)
    text = "(not a valid instruction)" if state.code else "(can't be fetched)"
    return Decoded(text, len(state.code), None)


class Operands:
    """Those of the instruction about to be executed."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.state = processor.state
        self.user = self.state.cpl == 3
        self.decoded = decode(self.state)

    def _register(self, name: str) -> int:
        """A general register's value."""
        if name in ("ah", "bh", "ch", "dh"):
            return self.state[f"r{name[0]}x"] >> 8 & 0xff
        if name == "rip":
            return self.state["rip"] + self.decoded.size
        if name[0] == "r":
            width = NUMBERED.get(name[-1], 64) if name[1].isdigit() else 64
            return self.state[name if width == 64 else name[:-1]] & (1 << width) - 1
        width = 8 if name.endswith("l") else 32 if name.startswith("e") else 16
        core = name[:-1] if name in ("sil", "dil", "bpl", "spl") else name
        if width == 32:
            core = core[1:]
        core = {"al": "ax", "bl": "bx", "cl": "cx", "dl": "dx"}.get(core, core)
        return self.state[f"r{core}"] & (1 << width) - 1

    def _address(self, insn: Any, operand: Any) -> tuple[str, int]:
        """Segment and offset of a memory operand."""
        memory = operand.mem
        offset = memory.disp
        based_on = insn.reg_name(memory.base) if memory.base else ""
        if based_on:
            offset += self._register(based_on)
        if memory.index:
            offset += self._register(insn.reg_name(memory.index)) * memory.scale
        segment = insn.reg_name(memory.segment) if memory.segment else (
            "ss" if based_on in ("bp", "sp", "ebp", "esp", "rbp", "rsp") else "ds")
        return segment, offset & (1 << 8 * insn.addr_size) - 1

    def _value(self, operand: Any) -> int:
        insn = self.decoded.insn
        if operand.type == cs.X86_OP_REG:
            return self._register(insn.reg_name(operand.reg))
        if operand.type == cs.X86_OP_IMM:
            return int(operand.imm)
        name, offset = self._address(insn, operand)
        segment = self.state.segments[name]
        access = Access("reading", user=self.user)
        self.processor.in_segment(name, segment, offset, operand.size, access)
        return int.from_bytes(self.processor.read(segment.base + offset, operand.size, access), "little")

    def _accesses(self, insn: Any) -> Iterator[tuple[str, int, int, Access]]:
        """The memory that the instruction uses: segment, offset, bytes and how."""
        if insn.mnemonic in ("lea", "nop", "invlpg"):
            return
        for operand in insn.operands:
            if operand.type == cs.X86_OP_MEM:
                name, offset = self._address(insn, operand)
                write = bool(operand.access & capstone.CS_AC_WRITE)
                what = "writing to" if write else "reading"
                yield name, offset, operand.size, Access(what, write, self.user)
        mask, width, rsp = self.state.stack_mask, self.state.bits // 8, self._stack_pointer
        pointer = self.state["rsp"] & mask
        count = {"pushal": 8, "pushaw": 8}.get(insn.mnemonic, 1)
        if insn.mnemonic.startswith("push") or insn.mnemonic in ("call", "enter"):
            yield "ss", pointer - width * count & mask, width * count, Access(
                f"{insn.mnemonic} with {rsp}, writing to", True, self.user, "stack")
        elif insn.mnemonic.startswith("pop") or insn.mnemonic == "ret":
            yield "ss", pointer, width, Access(f"{insn.mnemonic} with {rsp}, reading",
                                               False, self.user, "stack")
        elif insn.mnemonic == "leave":
            frame = self.state["rbp"] & mask
            name = "RBP" if self.state.bits == 64 else "EBP"
            yield "ss", frame, width, Access(f"leave with {name} 0x{frame:x}, reading", False, self.user,
                                             "stack")

    @property
    def _stack_pointer(self) -> str:
        """In words."""
        name = "RSP" if self.state.bits == 64 else "ESP"
        return f"{name} 0x{self.state['rsp'] & self.state.stack_mask:x}"

    def _popped(self, index: int) -> int:
        """A word of the stack, as the instruction pops it."""
        stack = self.state.segments["ss"]
        width = 4 if self.decoded.insn.mnemonic in ("iretd", "retf") and self.state.bits == 64 else (
            self.state.bits // 8)
        offset = self.state["rsp"] + width * index & self.state.stack_mask
        access = Access(f"{self.decoded.insn.mnemonic} with {self._stack_pointer}, reading", user=self.user)
        self.processor.in_segment("ss", stack, offset, width, access)
        return self.processor.number(stack.base + offset, width, access)
