"""Finding answers where they must not be: in what is handed out to learners.

A single line like `return 0;` proves nothing. Two consecutive lines of an answer, of a certain length
together, do, whatever file they were copied to. Pairs that the skeletons and common/ also have are given to
learners anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from grader.course import LABS, ROOT
from grader.core.exercises import skeleton

PAIR_MIN = 50     # characters of two lines, blanks apart
LINE_MIN = 12     # of each of them
_MARK = re.compile(r"/\* (answer|end) \d\.\d \*/")

Pair = tuple[str, str]


def answer_lines(text: str) -> Iterator[list[str]]:
    """The lines of each answer of a solution's text."""
    inside: list[str] = []
    opened = False
    for line in text.splitlines():
        mark = _MARK.search(line)
        if mark:
            opened = mark[1] == "answer"
            if not opened:
                yield inside
                inside = []
        elif opened:
            inside.append(line)


def pairs(lines: Iterable[str]) -> set[Pair]:
    """Pairs of consecutive lines that are long enough to identify an answer; blank lines are skipped."""
    words = [" ".join(line.split()) for line in lines]
    words = [word for word in words if word]
    return {(one, two) for one, two in zip(words, words[1:])
            if min(len(one), len(two)) >= LINE_MIN and len(one) + len(two) >= PAIR_MIN}


def answer_pairs() -> set[Pair]:
    """The identifying pairs of all answers, without those that common/ or a skeleton has anyway."""
    found: set[Pair] = set()
    given: set[Pair] = set()
    for lab in LABS.values():
        for path in lab.solution_files():
            if path.exists():
                text = path.read_text()
                given |= pairs(skeleton(text, path.name).splitlines())
                for lines in answer_lines(text):
                    found |= pairs(lines)
    for path in (ROOT / "common" / "vmm").glob("*.[ch]"):
        given |= pairs(path.read_text().splitlines())
    return found - given


def leaks(folder: Path) -> list[str]:
    """Each answer found in the files below `folder`, a sentence each."""
    wanted = answer_pairs()
    found: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("utf-8", "replace")
        name = path.relative_to(folder)
        if _MARK.search(text) and path.suffix in (".c", ".h", ".asm"):
            found.append(f"{name} has the marks of an answer")
        for one, _ in sorted(pairs(text.splitlines()) & wanted):
            found.append(f"{name} has lines of an answer, from: {one}")
    return found
