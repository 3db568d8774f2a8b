"""Random values of one test: determined by the seed, whatever else is graded."""

from __future__ import annotations

import hashlib
import random
import secrets

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def new_seed() -> int:
    """A seed short enough to be typed."""
    return secrets.randbelow(900_000) + 100_000


def new_seed_for_strangers() -> int:
    """A seed that a hostile module can't find by trying all of them."""
    return secrets.randbits(62)


class Values(random.Random):
    """The random numbers of a test, and the kinds of values for guests. A module can't compute others from
    those that it has seen: they are cut from digests of the seed, the test and a count."""

    def __init__(self, seed: int, test: str) -> None:
        super().__init__()
        self._key = f"{seed} {test}"
        self._count = 0

    def getrandbits(self, k: int) -> int:
        """As Random.getrandbits, which all but `random` are made of."""
        self._count += 1
        digest = hashlib.shake_256(f"{self._key} {self._count}".encode()).digest((k + 7) // 8)
        return int.from_bytes(digest, "little") >> -k % 8

    def random(self) -> float:
        """As Random.random."""
        return self.getrandbits(53) / 2 ** 53

    def word(self, letters: int = 6) -> str:
        """Lower-case letters."""
        return "".join(self.choices(_LETTERS, k=letters))

    def text(self, words: int = 4) -> str:
        """Words of different lengths, separated by one blank."""
        return " ".join(self.word(self.randint(3, 8)) for _ in range(words))

    def number(self, bits: int = 32) -> int:
        """A number whose highest bit is set, so that a lost half is noticed."""
        return self.getrandbits(bits - 1) | 1 << bits - 1


def letters(seed: int, count: int) -> str:
    """The letters that the guests `strings` and `write` compute."""
    text = ""
    for _ in range(count):
        text += chr(ord("a") + (seed >> 8) % 26)
        seed = (seed * 25173 + 13849) & 0xffff
    return text
