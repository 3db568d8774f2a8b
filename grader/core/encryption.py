"""Encrypts a guest, so that its file reveals nothing until a processor has executed it.

A hostile VMM could read the guest's file, find the values in it, and print the guest's output without ever
entering it. An encrypted real-mode guest starts with code that decrypts it in place and jumps to its
start. That code is generated for each guest, with different registers and a different cipher of random
steps. To predict the output one has to execute the code, and that is the exercise.

The guest then runs at the usual addresses with the usual registers and flags, and can't see a difference
except in the memory of the decrypting code, from DECRYPTOR up in its window; above it is only the stack.
Class gradings and autograders encrypt guests. At home there is no need, and plain guests are easier to
inspect.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

DECRYPTOR = 0xD800            # offset of the decrypting code; its 2 KB leave 8 KB for the stack
MASK = 0xFFFFFFFF
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp")

Step = tuple[str, Callable[[int], int]]    # one change of the key, in nasm and in Python


def encryptable(source: str, image: bytes) -> bool:
    """Whether this guest is real-mode code with enough space after it, without a line `; encrypt: no`."""
    return ("bits 16" in source and "bits 32" not in source and "\n; encrypt: no" not in source
            and 4 <= len(image) <= DECRYPTOR - 256)


def encrypt(image: Path, values: random.Random) -> None:
    """Replaces the plain guest by the encrypted one."""
    plain = image.read_bytes()
    plain += bytes(-len(plain) % 4)
    key, pointer, word = values.sample(REGISTERS, 3)
    steps = [_step(key, values) for _ in range(values.randint(6, 12))]
    start = values.getrandbits(32)
    encrypted = _encrypted(plain, start, [step for _, step in steps])
    code = _assemble(_source(len(plain), int.from_bytes(encrypted[:4], "little"), start, (key, pointer, word),
                             [text for text, _ in steps]), image)
    jump = b"\xe9" + (DECRYPTOR - 3).to_bytes(2, "little")
    head = jump + values.randbytes(1) + encrypted[4:]
    image.write_bytes(head + values.randbytes(DECRYPTOR - len(head)) + code)


def _step(key: str, values: random.Random) -> Step:
    """One random, reversible step of the cipher."""
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


def _encrypted(plain: bytes, key: int, steps: list[Callable[[int], int]]) -> bytes:
    """The bytes that the decrypting code turns into `plain`. Each encrypted word changes the key."""
    encrypted = b""
    for at in range(0, len(plain), 4):
        for step in steps:
            key = step(key)
        word = int.from_bytes(plain[at:at + 4], "little") ^ key
        encrypted += word.to_bytes(4, "little")
        key = key + word & MASK
    return encrypted


def _source(size: int, first: int, start: int, registers: tuple[str, ...], steps: list[str]) -> str:
    """The decrypting code. It needs only CS, no stack or other segment, and restores the registers it uses.

    The jump to this code replaces the guest's first word, so that word's encrypted form is kept here.
    """
    key, pointer, word = registers
    saves = [f"mov [cs:saved + {4 * place}], {register}" for place, register in enumerate(registers)]
    restores = [f"mov {register}, [cs:saved + {4 * place}]" for place, register in enumerate(registers)]
    return "\n".join([
        "bits 16", f"org {DECRYPTOR}", *saves,
        f"mov dword [cs:0], {first}", f"mov {key}, {start}", f"xor {pointer}, {pointer}",
        "next:", *steps, f"mov {word}, [cs:{pointer}]", f"xor [cs:{pointer}], {key}", f"add {key}, {word}",
        f"add {pointer}, 4", f"cmp {pointer}, {size}", "jb next",
        "mov [cs:saved + 12], eax", "xor ax, ax", "mov ah, 2", "sahf", "mov eax, [cs:saved + 12]",
        *restores, "jmp 0", "saved: dd 0, 0, 0, 0", ""])


def _assemble(source: str, image: Path) -> bytes:
    text, code = image.with_suffix(".decryptor.asm"), image.with_suffix(".decryptor")
    text.write_text(source)
    try:
        subprocess.run(["nasm", "-f", "bin", "-Werror", str(text), "-o", str(code)], check=True)
        return code.read_bytes()
    finally:
        text.unlink()
        code.unlink(missing_ok=True)
