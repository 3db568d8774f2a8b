"""The exercises of a lab: marks in a solution, TODOs in a learner's file, headings in a handout.

In a solution the answer to exercise 3.2 is between the lines `/* answer 3.2 */` and `/* end 3.2 */`, inside
a function. The learner's file has `TODO("3.2");` instead and is otherwise the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from grader.course import Lab

_MARK = re.compile(r"\s*/\* (answer|end) (\d\.\d) \*/\s*")
_NEAR_MARK = re.compile(r"/[*/]\s*(answer|end)\s+\d", re.I)
_TODO = re.compile(r'\bTODO\("(\d\.\d)"\)')
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)


class MarkError(Exception):
    """A mark that is unmatched or misplaced."""


@dataclass(frozen=True)
class Todo:
    """A place in a learner's file that still needs its answer."""

    exercise: str
    path: Path
    line: int


def skeleton(text: str, name: str, answered: Collection[str] = ()) -> str:
    """The learner's version of a solution; `name` is for messages. Exercises in `answered` keep their
    answers, as in the file of a learner who has done these."""
    lines: list[str] = []
    opened, opened_at = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        mark = _MARK.fullmatch(line)
        if mark is None:
            if _NEAR_MARK.search(line):
                raise MarkError(f"{name}:{number}: malformed mark: {line.strip()}")
            if not opened or opened in answered:
                lines.append(line)
        elif mark[1] == "answer":
            if opened:
                raise MarkError(f"{name}:{number}: answer {mark[2]} begins inside answer {opened}")
            opened, opened_at = mark[2], number
            indent = line[: len(line) - len(line.lstrip())]
            if not indent:
                raise MarkError(f"{name}:{number}: answer {mark[2]} is outside a function")
            if opened not in answered:
                lines.append(f'{indent}TODO("{opened}");')
        else:
            if opened != mark[2]:
                raise MarkError(f"{name}:{number}: end {mark[2]} without answer {mark[2]}")
            opened = ""
    if opened:
        raise MarkError(f"{name}:{opened_at}: answer {opened} has no end")
    return "\n".join(lines) + "\n"


def exercises(path: Path) -> list[str]:
    """The exercises answered in a solution, in order, without duplicates."""
    marks = (_MARK.fullmatch(line) for line in path.read_text().splitlines())
    return sorted({mark[2] for mark in marks if mark and mark[1] == "answer"})


def todos(path: Path) -> list[Todo]:
    """The TODOs left in a learner's file, sorted by exercise; comments are ignored."""
    if not path.exists():
        return []
    blanked = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]),
                           path.read_text(errors="replace"))
    found = [Todo(match[1], path, blanked.count("\n", 0, match.start()) + 1)
             for match in _TODO.finditer(blanked)]
    return sorted(found, key=lambda todo: (todo.exercise, todo.line))


def todo_lines(path: Path, exercise: str) -> str:
    """All TODOs of an exercise in a learner's file, like "line 12 and line 30"; empty if it has none."""
    return " and ".join(f"line {todo.line}" for todo in todos(path) if todo.exercise == exercise)


def first_todo(lab: Lab) -> Todo | None:
    """The first TODO of a lab; None: all exercises are written."""
    left = [todo for path in lab.learner_files() for todo in todos(path)]
    return min(left, key=lambda todo: todo.exercise) if left else None


def handout_title(lab: Lab, exercise: str) -> str:
    """The handout's heading for an exercise, without the number; empty if there is none."""
    if not lab.handout.exists():
        return ""
    match = re.search(rf"^### {re.escape(exercise)} (.+)$", lab.handout.read_text(), re.M)
    return match[1] if match else ""


def handout_exercises(lab: Lab) -> list[str]:
    """The exercises that have a heading in the handout."""
    return re.findall(r"^### (\d\.\d) ", lab.handout.read_text(), re.M) if lab.handout.exists() else []
