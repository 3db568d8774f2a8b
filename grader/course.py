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

    def learner_files(self) -> list[Path]:
        return [ROOT / "labs" / self.folder / name for name in self.files]

    def solution_files(self) -> list[Path]:
        return [ROOT / "solutions" / self.folder / name for name in self.files]


def _read_labs() -> dict[int, Lab]:
    text = (ROOT / "Makefile").read_text()
    files: dict[int, tuple[str, list[str]]] = {}
    for number, paths in re.findall(r"^(?:KERNEL_)?MODULE_(\d+) := (.+)$", text, re.M):
        for path in paths.split():
            folder, name = path.split("/")
            files.setdefault(int(number), (folder, []))[1].append(name)
    return {number: Lab(number, folder, tuple(names)) for number, (folder, names) in files.items()}


LABS = _read_labs()
