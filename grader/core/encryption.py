"""Sealing a guest: its file tells nothing until its own processor has run it.

A hostile VMM could read the guest's file, find the values in it, and print what the guest would print
without ever entering it. A sealed real-mode guest is its old self encrypted, behind a piece of code that
decrypts it in place and jumps to its beginning. That code is made anew for each guest: other registers,
another cipher of random steps. To answer from the file one has to execute it, and that is the exercise.

The guest then runs at the same addresses with the same registers and flags as ever; it can't tell. What
it may notice is the code's own memory, from SEAL on in its window, above which is only the stack.
Class gradings and autograders seal; a learner at home has nobody to fool, and plain guests are better to
look at.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

SEAL = 0xD800                 # offset of the decrypting code; 2 KB of it leave 8 KB to the stack
MASK = 0xFFFFFFFF
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp")

Step = tuple[str, Callable[[int], int]]    # what it does to the key: in nasm, and in Python


def sealable(source: str, image: bytes) -> bool:
    """Whether this guest is real-mode code with room behind it, and does not say `; seal: no`."""
    return ("bits 16" in source and "bits 32" not in source and "\n; seal: no" not in source
            and 4 <= len(image) <= SEAL - 256)


def seal(image: Path, values: random.Random) -> None:
    """Puts the sealed guest in the place of the plain one."""
    plain = image.read_bytes()
    plain += bytes(-len(plain) % 4)
    key, pointer, word = values.sample(REGISTERS, 3)
    steps = [_step(key, values) for _ in range(values.randint(6, 12))]
    start = values.getrandbits(32)
    sealed = _encrypt(plain, start, [step for _, step in steps])
    code = _assemble(_source(len(plain), int.from_bytes(sealed[:4], "little"), start, (key, pointer, word),
                             [text for text, _ in steps]), image)
    jump = b"\xe9" + (SEAL - 3).to_bytes(2, "little")
    head = jump + values.randbytes(1) + sealed[4:]
    image.write_bytes(head + values.randbytes(SEAL - len(head)) + code)


def _step(key: str, values: random.Random) -> Step:
    """One random step of the cipher that loses nothing of the key."""
    number, odd, turn = values.getrandbits(32), values.getrandbits(31) * 2 + 1, values.randint(1, 31)
    return values.choice([
        (f"add {key}, {number}", lambda x: x + number & MASK),
        (f"xor {key}, {number}", lambda x: x ^ number),
        (f"imul {key}, {key}, {odd}", lambda x: x * odd & MASK),
        (f"rol {key}, {turn}", lambda x: (x << turn | x >> 32 - turn) & MASK),
        (f"bswap {key}", lambda x: int.from_bytes(x.to_bytes(4, "little"), "big")),
        (f"not {key}", lambda x: ~x & MASK),
        (f"neg {key}", lambda x: -x & MASK),
        (f"lea {key}, [{key} + {key} * 4 + {number}]", lambda x: x * 5 + number & MASK),
    ])


def _encrypt(plain: bytes, key: int, steps: list[Callable[[int], int]]) -> bytes:
    """What the decrypting code turns into `plain`. The key goes on with what was encrypted."""
    sealed = b""
    for at in range(0, len(plain), 4):
        for step in steps:
            key = step(key)
        word = int.from_bytes(plain[at:at + 4], "little") ^ key
        sealed += word.to_bytes(4, "little")
        key = key + word & MASK
    return sealed


def _source(size: int, first: int, start: int, registers: tuple[str, ...], steps: list[str]) -> str:
    """The decrypting code. It needs CS alone: no stack, no other segment; it gives back what it used.

    The first word of the guest is where the jump to this code stands, so its encrypted form is kept here.
    """
    key, pointer, word = registers
    saves = [f"mov [cs:saved + {4 * place}], {register}" for place, register in enumerate(registers)]
    restores = [f"mov {register}, [cs:saved + {4 * place}]" for place, register in enumerate(registers)]
    return "\n".join([
        "bits 16", f"org {SEAL}", *saves,
        f"mov dword [cs:0], {first}", f"mov {key}, {start}", f"xor {pointer}, {pointer}",
        "next:", *steps, f"mov {word}, [cs:{pointer}]", f"xor [cs:{pointer}], {key}", f"add {key}, {word}",
        f"add {pointer}, 4", f"cmp {pointer}, {size}", "jb next",
        "mov [cs:saved + 12], eax", "xor ax, ax", "mov ah, 2", "sahf", "mov eax, [cs:saved + 12]",
        *restores, "jmp 0", "saved: dd 0, 0, 0, 0", ""])


def _assemble(source: str, image: Path) -> bytes:
    text, code = image.with_suffix(".seal.asm"), image.with_suffix(".seal")
    text.write_text(source)
    try:
        subprocess.run(["nasm", "-f", "bin", "-Werror", str(text), "-o", str(code)], check=True)
        return code.read_bytes()
    finally:
        text.unlink()
        code.unlink(missing_ok=True)
