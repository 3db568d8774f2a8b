"""Labs 5 to 8: lines that only a guest's own code can print, because a number follows each of them.

The number is computed from the line's text by code that is random in each test and that the guest executes
at the privilege level where it belongs. Text that the learner's module prints by itself lacks it. A process
of Linux has the selectors of the VMM's own process, so there the code also reads what CPUID shows a guest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from grader.core.random_code import MASK, Step, protected_code, run, steps

LINE_CODE_BYTES = 128
LINE_CODE_MARK = b"\xf4here is the code"        # in grader/labs/lab6-1k-os/programs/say.h
KERNEL, USER = (0x08, 0x10), (0x1b, 0x23)       # the selectors in CS and SS, by privilege level
_RETURN = b"\xc3"


def _selector_step(values: Random, selectors: tuple[int, int]) -> Step:
    """A step that depends on the privilege level: it takes CS or SS into ECX or EDX, and that into EAX."""
    which, register = values.randrange(2), values.choice((1, 2))
    opcode, function = _into_eax(values, selectors[which])
    return bytes([0x66, 0x8c, 0xc8 + 8 * which + register, opcode, 0xc0 + 8 * register]), function


def _cpuid_step(values: Random, signature: tuple[int, int, int]) -> Step:
    """A step of 64-bit code that depends on CPUID's leaf 0x40000000: it takes EBX, ECX or EDX of it into ECX,
    and that into EAX. Its first byte is left out, as with the others."""
    which = values.randrange(3)
    opcode, function = _into_eax(values, signature[which])
    take = (b"\x89\xd9", b"", b"\x89\xd1")[which]                         # mov ecx, ebx or edx
    return (b"\x66\x50\x53\xb8\x00\x00\x00\x40\x0f\xa2" + take         # push rax, rbx; mov eax, leaf; cpuid
            + bytes([0x5b, 0x58, opcode, 0xc8])), function                  # pop rbx, rax


def _into_eax(values: Random, value: int) -> tuple[int, Callable[[int], int]]:
    """An operation of EAX with a register that holds this value: its opcode, and its result."""
    return values.choice((
        (0x01, lambda x: x + value & MASK),          # add
        (0x29, lambda x: x - value & MASK),          # sub
        (0x31, lambda x: x ^ value)))                # xor


class LineCode:
    """The code of one test, for a guest that runs it with these selectors, and reads this from CPUID."""

    def __init__(self, values: Random, selectors: tuple[int, int],
                 signature: tuple[int, int, int] | None = None) -> None:
        self._steps = steps(values)
        for _ in range(3):
            self._steps.insert(values.randrange(len(self._steps)), _selector_step(values, selectors))
        if signature:
            self._steps.insert(values.randrange(len(self._steps)), _cpuid_step(values, signature))
        self.image = (protected_code(self._steps) + _RETURN).ljust(LINE_CODE_BYTES, b"\x90")

    def after(self, number: int, byte: int) -> int:
        """The number when one more byte comes after those that it is computed from."""
        return run(self._steps, number ^ byte)

    def number(self, text: bytes) -> int:
        """What follows this text."""
        number = 0
        for byte in text:
            number = self.after(number, byte)
        return number

    def line(self, text: str) -> str:
        """The line with this text, as the guest prints it."""
        return f"{text} [{self.number(text.encode()):08x}]\n"

    def lines(self, texts: Iterable[str]) -> str:
        """Several of them."""
        return "".join(map(self.line, texts))

    def put_into(self, program: bytes) -> bytes:
        """A program of grader/labs/lab6-1k-os/programs/ with this code."""
        before, mark, after = program.partition(LINE_CODE_MARK)
        return before + self.image + after[LINE_CODE_BYTES - len(mark):] if mark else program
