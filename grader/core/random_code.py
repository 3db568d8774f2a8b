"""Real-mode code with random steps, and the same in Python.

What such code computes is known to the grader and to the processor that executes it, but cannot be read
in the guest's file or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MASK = 0xFFFFFFFF

Step = tuple[bytes, Callable[[int], int]]    # machine code that changes EAX alone, and its result


def step(values: Random) -> Step:
    """One step; different values stay different."""
    number, odd, turn = values.getrandbits(32), values.getrandbits(31) * 2 + 1, values.randint(1, 31)
    return values.choice([
        (b"\x66\x05" + number.to_bytes(4, "little"), lambda x: x + number & MASK),           # add
        (b"\x66\x35" + number.to_bytes(4, "little"), lambda x: x ^ number),                  # xor
        (b"\x66\x69\xc0" + odd.to_bytes(4, "little"), lambda x: x * odd & MASK),             # imul
        (b"\x66\xc1\xc0" + bytes([turn]), lambda x: (x << turn | x >> 32 - turn) & MASK),    # rol
        (b"\x66\x0f\xc8", lambda x: int.from_bytes(x.to_bytes(4, "little"), "big")),         # bswap
        (b"\x66\xf7\xd0", lambda x: ~x & MASK),                                              # not
        (b"\x66\xf7\xd8", lambda x: -x & MASK),                                              # neg
    ])


def steps(values: Random) -> list[Step]:
    """Enough of them for a cipher."""
    return [step(values) for _ in range(values.randint(8, 14))]


def run(code: Sequence[Step], x: int) -> int:
    """What EAX is after the code, when it was `x` before."""
    for _, function in code:
        x = function(x)
    return x


def protected_code(code: Sequence[Step]) -> bytes:
    """Its bytes for 32-bit code, where no operand has a prefix."""
    return b"".join(text[1:] for text, _ in code)


def machine_code(code: Sequence[Step]) -> list[int]:
    """Its bytes, as a guest's STEPS."""
    return list(b"".join(text for text, _ in code))
