"""Which exception an instruction causes, if any: it is checked as the processor checks it (SDM vol. 2, the
"Exceptions" of each instruction).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from capstone import x86 as cs  # type: ignore

from grader.commands.explain.faults import BP, DE, GP, NM, OF, UD, Access, Fault, fetching, topic
from grader.commands.explain.operands import Operands
from grader.commands.explain.state import (CR0_EM, CR0_PE, CR0_PG, CR0_TS, CR4_KNOWN, CR4_OSFXSR,
                                           CR4_PAE, EFER_SCE)

LONGEST = 15  # bytes
TSS_AVAILABLE = (1, 9)  # types of a 16-bit and a 32-bit one
IOPL_SHIFT = 12

PRIVILEGED = frozenset("hlt lgdt lidt lldt ltr lmsw clts invlpg invd wbinvd wrmsr rdmsr rdpmc swapgs "
                       "sysret sysretq".split())
WITH_IOPL = frozenset("cli sti in out insb insw insd outsb outsw outsd".split())
PROTECTED = frozenset("sldt str lldt ltr lar lsl verr verw arpl".split())
FAR_RETURNS = frozenset("retf retfq iret iretd iretq".split())
ALIGNED = frozenset("movaps movapd movdqa movntps movntpd movntdq".split())
SYSTEM_CALLS = ("syscall", "sysret", "sysretq")
OPERAND_SIZE, REX_W = 0x66, 8  # prefixes
SEGMENT_REGISTERS = ("ds", "es", "fs", "gs", "ss")


class Executor(Operands):
    """One instruction about to be executed."""

    def software_interrupt(self) -> int:
        """The vector of an int instruction; -1: it is another one."""
        insn = self.decoded.insn
        if insn is None:
            return -1
        if insn.mnemonic == "int":
            return int(insn.operands[0].imm) & 0xff
        return {"int3": BP, "into": OF if self.state["rflags"] & 1 << 11 else -1}.get(insn.mnemonic, -1)

    def fault(self) -> Fault | None:
        """The exception that the instruction causes; None: none that is known."""
        try:
            self._fetch()
            self._check()
        except Fault as fault:
            return fault
        return None

    def outside(self) -> Iterator[str]:
        """The accesses that lead outside of RAM, in words."""
        fetch = fetching(self.user)
        accesses = self._accesses(self.decoded.insn) if self.decoded.insn else iter(())
        for name, offset, count, access in [("cs", self.state["rip"], 1, fetch), *accesses]:
            phys = self.processor.translate(self.state.segments[name].base + offset, access)
            if phys + count > self.processor.memory.size:
                yield (f"{access.what} {name.upper()}:0x{offset:x}, which is physical address 0x{phys:08x}: "
                       f"RAM ends at 0x{self.processor.memory.size:08x}")

    def _fetch(self) -> None:
        code, rip = self.state.segments["cs"], self.state["rip"]
        if rip > code.limit and self.state.bits != 64:
            raise Fault(GP, f"the instruction pointer 0x{rip:x} is past the limit of CS (0x{code.limit:x})",
                        "limit")
        access = fetching(self.user)
        size = self.decoded.size if self.decoded.insn else max(1, len(self.state.code))
        for address in range(self.state.linear, self.state.linear + min(size, LONGEST)):
            self.processor.translate(address, access)
        if self.decoded.insn is None and len(self.state.code) < LONGEST:
            self.processor.translate(self.state.linear + len(self.state.code), access)

    def _check(self) -> None:
        insn = self.decoded.insn
        if insn is None:
            raise Fault(UD, f"the bytes {self.state.code[:4].hex(' ')} are not an instruction", "data")
        if insn.mnemonic in ("ud2", "ud0", "ud1"):
            raise Fault(UD, f"{insn.mnemonic} is invalid on purpose", "ud2")
        if self.state.real and insn.mnemonic in PROTECTED:
            raise Fault(UD, f"{insn.mnemonic} is not valid in real mode", "data")
        if insn.mnemonic in SYSTEM_CALLS and not self.state["efer"] & EFER_SCE:
            raise Fault(UD, f"{insn.mnemonic} is executed, and EFER.SCE is 0", "syscall")
        self._rights(insn)
        self._floating_point(insn)
        if insn.mnemonic in ("div", "idiv"):
            self._divide(insn)
        self._control(insn)
        self._segment_load(insn)
        if self._is_far(insn):
            self._far_jump(insn)
        if insn.mnemonic in FAR_RETURNS:
            with topic("iret"):
                self._far_return(insn)
        for name, offset, count, access in self._accesses(insn):
            self.processor.in_segment(name, self.state.segments[name], offset, count, access)
            if insn.mnemonic in ALIGNED and offset % count:
                raise Fault(GP, f"{insn.mnemonic} needs an address that is a multiple of {count}, and "
                                f"this is 0x{offset:x}", "alignment")
        if self.state.bits == 64:
            self._target(insn)

    def _target(self, insn: Any) -> None:
        """The address to which a near jump, call or return leads: checked before it is executed."""
        if insn.mnemonic in ("jmp", "call") and not self._is_far(insn):
            address = self._value(insn.operands[0]) & self.state.mask
        elif insn.mnemonic == "ret":
            address = self._popped(0)
        else:
            return
        self.processor.check_canonical(address, f"{insn.mnemonic} leads to")

    # ---------------------------------------------------------------- what the instruction may do

    def _rights(self, insn: Any) -> None:
        control = any(operand.type == cs.X86_OP_REG and insn.reg_name(operand.reg)[:2] in ("cr", "dr")
                      for operand in insn.operands)
        if self.state.cpl > 0 and (insn.mnemonic.split()[-1] in PRIVILEGED or control):
            raise Fault(GP, f"{insn.mnemonic} is a privileged instruction, and this is ring {self.state.cpl}",
                        "privileged")
        level = self.state["rflags"] >> IOPL_SHIFT & 3
        if insn.mnemonic.split()[-1] in WITH_IOPL and not self.state.real and self.state.cpl > level:
            raise Fault(GP, f"{insn.mnemonic} in ring {self.state.cpl} needs IOPL {self.state.cpl}, and it "
                            f"is {level}", "privileged")

    def _floating_point(self, insn: Any) -> None:
        groups = {insn.group_name(group) for group in insn.groups}
        cr0, cr4 = self.state["cr0"], self.state["cr4"]
        vector = any(name.startswith(("sse", "avx")) for name in groups)
        if vector and cr0 & CR0_EM:
            raise Fault(UD, f"{insn.mnemonic} is an SSE instruction, and CR0.EM is 1", "sse")
        if vector and not cr4 & CR4_OSFXSR:
            raise Fault(UD, f"{insn.mnemonic} is an SSE instruction, and CR4.OSFXSR is 0", "sse")
        if vector and cr0 & CR0_TS:
            raise Fault(NM, f"{insn.mnemonic} is an SSE instruction, and CR0.TS is 1", "sse")
        if ("fpu" in groups or insn.mnemonic.startswith("f")) and not vector and cr0 & (CR0_EM | CR0_TS):
            raise Fault(NM, f"{insn.mnemonic} is a floating-point instruction, and CR0.EM or CR0.TS is 1",
                        "sse")

    def _control(self, insn: Any) -> None:
        """Values that the control registers don't take: SDM vol. 3, 2.5 "Control Registers"."""
        name = insn.reg_name(insn.operands[0].reg) if insn.operands and insn.operands[0].reg else ""
        if insn.mnemonic != "mov" or name not in ("cr0", "cr4"):
            return
        value = self._value(insn.operands[1])
        wrong = {"cr0": value & CR0_PG and not value & CR0_PE and "PG is 1 without PE",
                 "cr4": value & ~CR4_KNOWN and "it has reserved bits" or (
                     self.state.long and not value & CR4_PAE and "PAE is 0 in long mode")}[name]
        if wrong:
            raise Fault(GP, f"{self.decoded.text} loads 0x{value:x}, but {wrong}", "control register")

    def _divide(self, insn: Any) -> None:
        operand = insn.operands[0]
        divisor = self._value(operand)
        bits = 8 * operand.size
        high, low = ((self.state["rax"] >> 8, self.state["rax"]) if bits == 8
                     else (self.state["rdx"], self.state["rax"]))
        mask = (1 << bits) - 1
        dividend = (high & mask) << bits | low & mask
        if divisor == 0:
            raise Fault(DE, f"{self.decoded.text} divides by 0", "divide")
        if insn.mnemonic == "idiv":
            dividend, divisor = _signed(dividend, 2 * bits), _signed(divisor, bits)
            quotient = abs(dividend) // abs(divisor) * (1 if (dividend < 0) == (divisor < 0) else -1)
            fits = -(1 << bits - 1) <= quotient < 1 << bits - 1
        else:
            quotient = dividend // divisor
            fits = quotient <= mask
        if not fits:
            raise Fault(DE, f"{self.decoded.text}: the quotient {quotient} does not fit into {bits} bits",
                        "divide")

    # ---------------------------------------------------------------- segments and far transfers

    def _segment_load(self, insn: Any) -> None:
        """mov and pop of a segment register, ltr."""
        operands = insn.operands
        if self.state.real or not operands:
            return
        if insn.mnemonic == "ltr":
            self._task_register(self._value(operands[0]) & 0xffff)
            return
        name = insn.reg_name(operands[0].reg) if operands[0].type == cs.X86_OP_REG else ""
        if name not in SEGMENT_REGISTERS or insn.mnemonic not in ("mov", "pop"):
            return
        if insn.mnemonic == "mov":
            selector = self._value(operands[1]) & 0xffff
        else:
            selector = self._popped(0) & 0xffff
        if not selector & ~3 and (name != "ss" or self.state.bits == 64 and self.state.cpl < 3):
            return
        text = f"{self.decoded.text} loads 0x{selector:x} into {name.upper()}"
        if name == "ss":
            self.processor.check_stack(selector, self.state.cpl, text)
            return
        descriptor = self.processor.descriptor(selector, text)
        segment = descriptor.segment
        readable = segment.s and (not segment.type & 8 or segment.type & 2)
        if not readable:
            raise Fault(GP, f"{text}: {descriptor} is not readable data or code", "selector")
        if not segment.type & 4 and segment.dpl < max(self.state.cpl, selector & 3):
            raise Fault(GP, f"{text}: {descriptor} has DPL {segment.dpl}, and this is ring {self.state.cpl}",
                        "selector")
        self.processor.accept(descriptor, text)

    def _task_register(self, selector: int) -> None:
        text = f"ltr loads 0x{selector:x}"
        descriptor = self.processor.descriptor(selector, text)
        segment = descriptor.segment
        if segment.s or segment.type not in TSS_AVAILABLE[self.state.long:]:
            busy = ", but a busy one" if not segment.s and segment.type - 2 in TSS_AVAILABLE else ""
            raise Fault(GP, f"{text}: {descriptor} has type {segment.type}, not an available TSS (9){busy}",
                        "tss")
        self.processor.accept(descriptor, text)

    def _is_far(self, insn: Any) -> bool:
        """A jump or call that loads CS: vol. 2, JMP and CALL. Capstone 5 calls those through memory near."""
        return insn.mnemonic in ("ljmp", "lcall") or insn.opcode[0] == 0xff and insn.modrm >> 3 & 7 in (3, 5)

    def _far_jump(self, insn: Any) -> None:
        if self.state.real:
            return
        if len(insn.operands) == 2:
            selector = int(insn.operands[0].imm) & 0xffff
        else:
            name, offset = self._address(insn, insn.operands[0])
            short = (self.state.bits == 16) != (OPERAND_SIZE in insn.prefix)
            skipped = 8 if insn.rex & REX_W else 2 if short else 4     # the offset, before the selector
            data = self.processor.read(self.state.segments[name].base + offset + skipped, 2,
                                       Access("reading", user=self.user))
            selector = int.from_bytes(data, "little")
        text = f"{self.decoded.text} loads 0x{selector:x} into CS"
        segment = self.processor.check_code(selector, self.state.cpl, text)
        if not segment.type & 4 and selector & 3 > self.state.cpl:
            raise Fault(GP, f"{text}: its RPL is {selector & 3}, and this is ring {self.state.cpl}",
                        "selector")

    def _far_return(self, insn: Any) -> None:
        if self.state.real:
            return
        selector = self._popped(1) & 0xffff
        text = f"{insn.mnemonic} returns to CS 0x{selector:x}"
        ring = selector & 3
        if ring < self.state.cpl:
            raise Fault(GP, f"{text}, but it can't return from ring {self.state.cpl} to an inner ring")
        code = self.processor.check_code(selector, ring, text)
        if self.state.bits == 64 and code.l:
            self.processor.check_canonical(self._popped(0), f"{insn.mnemonic} returns to")
        from_frame = insn.mnemonic.startswith("iret")
        if ring > self.state.cpl or from_frame and self.state.bits == 64:
            stack = self._popped(4 if from_frame else 3) & 0xffff
            if not stack & ~3 and code.l and ring < 3:
                return
            self.processor.check_stack(stack, ring,
                                       f"{insn.mnemonic} returns to ring {ring} with SS 0x{stack:x}")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value
