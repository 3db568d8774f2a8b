"""Where an instruction stands: the line of a guest's source, or the function of an ELF file."""

from __future__ import annotations

import bisect
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from grader.course import BUILD, ROOT
from grader.commands.explain.state import Instruction

PT_LOAD = 1
# By an ELF file's class: where its header has the place of the program headers, their size and count; and
# what a program header is: kind, offset in the file, virtual address, physical address, bytes in the file.
HEADERS = {1: ("<I", 28, 42, "<5I"), 2: ("<Q", 32, 54, "<I4x4Q")}
LISTING = re.compile(r"^ *\d+ ([0-9A-F]{8}) (\S+) +(?:<\d+> +)?(.*)$")


@dataclass
class Source:
    """An image that nasm has written, and the source line of each offset."""

    image: bytes
    lines: dict[int, str]

    @classmethod
    def of(cls, image: Path) -> Source:
        """Of one of guests/; any other file has no lines."""
        source = ROOT / "guests" / f"{image.stem}.asm"
        lines: dict[int, str] = {}
        if source.exists() and image.parent == BUILD / "guests":
            listing = image.with_suffix(".lst")
            subprocess.run(["nasm", "-f", "bin", f"-I{BUILD}/", "-Iguests/", str(source), "-o", "/dev/null",
                            "-l", str(listing)], cwd=ROOT, check=True)
            for line in listing.read_text().splitlines():
                found = LISTING.match(line)
                code = found[3].partition(";")[0].strip() if found else ""
                if found and code:
                    lines.setdefault(int(found[1], 16), code)
        return cls(image.read_bytes(), lines)

    def place(self, state: Instruction) -> str:
        """The source line of the instruction; empty: not known."""
        for offset in (state["rip"], state.linear & 0x3ffff, state.linear & 0xfffff):
            if offset in self.lines and self.image[offset:offset + 4] == state.code[:4]:
                return self.lines[offset]
        return ""


@dataclass
class Program:
    """The functions of an ELF file."""

    name: str
    file: bytes
    addresses: list[int]
    names: list[str]

    @classmethod
    def of(cls, path: Path) -> Program:
        listing = subprocess.run(["nm", "-n", "--defined-only", str(path)], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
        symbols = [line.split() for line in listing.stdout.splitlines()]
        code = [(int(address, 16), name) for address, kind, name in symbols if kind in "tT"]
        return cls(path.stem, path.read_bytes(), [address for address, _ in code], [name for _, name in code])

    def _holds(self, state: Instruction) -> bool:
        """Whether the file has these bytes at that address."""
        address, at_offset, at_size, header = HEADERS[self.file[4]]
        offset, = struct.unpack_from(address, self.file, at_offset)
        size, count = struct.unpack_from("<HH", self.file, at_size)
        for index in range(count):
            kind, place, start, _, length = struct.unpack_from(header, self.file, offset + size * index)
            at = state.linear - start
            if kind == PT_LOAD and 0 <= at < length:
                return self.file[place + at:place + at + 4] == state.code[:4] != b""
        return False

    def place(self, state: Instruction) -> str:
        """kernel: schedule+22, or the file alone if it names no functions; empty: not there."""
        if not self._holds(state):
            return ""
        index = bisect.bisect(self.addresses, state.linear) - 1
        if index < 0:
            return self.name
        return f"{self.name}: {self.names[index]}+{state.linear - self.addresses[index]}"
