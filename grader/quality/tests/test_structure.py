"""Arrows between the rooms of the kit point one way: from what is built on top to what it stands on."""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterator

from grader.course import ROOT
from grader.handouts.structure import RANKS, imports, room

PACKAGES = ("grader.execution.labvm", "grader.execution.backends")


def includes(folder: str) -> Iterator[tuple[str, str]]:
    """Each C file, header or makefile of a folder, and each path that it names."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".c", ".h", ".asm", ".mk", ".ld"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace")


class Arrows(unittest.TestCase):
    def test_no_layer_imports_from_one_above_it(self) -> None:
        for module, imported in imports():
            own, other = room(module), room(imported)
            if own != other and other in RANKS:
                self.assertGreater(RANKS[own], RANKS[other], f"{module} imports {imported}")

    def test_every_layer_has_a_rank(self) -> None:
        rooms = {room(module) for module, _ in imports()}
        self.assertEqual(rooms - set(RANKS), set())

    def test_no_two_modules_or_packages_import_each_other(self) -> None:
        def unit(module: str) -> str:
            return next((package for package in PACKAGES if module.startswith(package)), module)

        takes: dict[str, set[str]] = {}
        for module, imported in imports():
            if unit(module) != unit(imported):
                takes.setdefault(unit(module), set()).add(unit(imported))

        def reach(start: str) -> set[str]:
            found: set[str] = set()
            waiting = [start]
            while waiting:
                for name in takes.get(waiting.pop(), set()) - found:
                    found.add(name)
                    waiting.append(name)
            return found

        for name in takes:
            self.assertNotIn(name, reach(name), f"{name} is part of a circle of imports")

    def test_graded_code_does_not_depend_on_the_grader(self) -> None:
        for folder in ("common", "guests", "os-1k", "solutions", "labs"):
            for path, text in includes(folder):
                for line in text.splitlines():
                    if re.match(r"\s*#\s*include|\s*%include", line) or path.endswith(".mk"):
                        self.assertNotIn("grader/", line, f"{path} reaches into the grader")


if __name__ == "__main__":
    unittest.main()
