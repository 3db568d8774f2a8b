"""The labs: their folders and the learner's files, read from the Makefile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"


@dataclass(frozen=True)
class Lab:
    """One lab. Its files are in labs/<folder>/, and the finished ones in solutions/<folder>/."""

    number: int
    folder: str
    files: tuple[str, ...]
    kernel: str = ""                 # the one of them that is part of a guest's kernel, not of the VMM

    @property
    def handout(self) -> Path:
        return ROOT / "handouts" / f"{self.folder}.md"

    @property
    def grading(self) -> Path:
        """The folder of its tests, unit programs, mutants and alternatives."""
        return ROOT / "grader/labs" / self.folder

    def unit(self, source: str) -> Path:
        """One of its unit programs."""
        return self.grading / "units" / f"{source}.c"

    def modules(self) -> list[str]:
        """Those of its files that are part of the VMM."""
        return [name for name in self.files if name != self.kernel]

    def learner_modules(self) -> list[Path]:
        return [ROOT / "labs" / self.folder / name for name in self.modules()]

    def learner_files(self) -> list[Path]:
        return [ROOT / "labs" / self.folder / name for name in self.files]

    def solution_files(self) -> list[Path]:
        return [ROOT / "solutions" / self.folder / name for name in self.files]


def _read_labs() -> dict[int, Lab]:
    text = (ROOT / "Makefile").read_text()
    labs: dict[int, Lab] = {}
    for kernel, digits, paths in re.findall(r"^(KERNEL_)?MODULE_(\d+) := (.+)$", text, re.M):
        folder, = {path.split("/")[0] for path in paths.split()}
        names = tuple(path.split("/")[1] for path in paths.split())
        earlier = labs[int(digits)].files if kernel else ()
        labs[int(digits)] = Lab(int(digits), folder, earlier + names, names[0] if kernel else "")
    return labs


LABS = _read_labs()
