"""Labs 5 and 6: lines that only a guest's own code can print, because a number follows each of them.

The number is computed from the line's text by code that is random in each test and that the guest executes
at the privilege level where it belongs. Text that the learner's module prints by itself lacks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from grader.core.random_code import MASK, Step, protected_code, run, steps

LINE_CODE_BYTES = 128
LINE_CODE_MARK = b"\xf4here is the code"        # in grader/labs/lab6-1k-os/programs/say.h
KERNEL, USER = (0x08, 0x10), (0x1b, 0x23)       # the selectors in CS and SS, by privilege level
_RETURN = b"\xc3"


def _selector_step(values: Random, selectors: tuple[int, int]) -> Step:
    """A step that depends on the privilege level: it takes CS or SS into ECX or EDX, and that into EAX."""
    which, register = values.randrange(2), values.choice((1, 2))
    selector = selectors[which]
    opcode, function = values.choice((
        (0x01, lambda x: x + selector & MASK),       # add
        (0x29, lambda x: x - selector & MASK),       # sub
        (0x31, lambda x: x ^ selector)))             # xor
    return bytes([0x66, 0x8c, 0xc8 + 8 * which + register, opcode, 0xc0 + 8 * register]), function


class LineCode:
    """The code of one test, for a guest that runs it with these selectors."""

    def __init__(self, values: Random, selectors: tuple[int, int]) -> None:
        self._steps = steps(values)
        for _ in range(3):
            self._steps.insert(values.randrange(len(self._steps)), _selector_step(values, selectors))
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
