"""Writes labs/ from solutions/.

In a solution the answer to exercise 3.2 stands between the lines `/* answer 3.2 */` and `/* end 3.2 */`,
inside a function. The learner's file has `TODO("3.2");` in its place and is otherwise the same.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from grader import labs
from grader.course import BUILD, LABS, ROOT, Lab

_MARK = re.compile(r"\s*/\* (answer|end) (\d\.\d) \*/\s*")
_NEAR_MARK = re.compile(r"/[*/]\s*(answer|end)\s+\d", re.I)
_TODO = re.compile(r'\bTODO\("(\d\.\d)"\)')
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
# Copies of what was written last, to know a file that nobody has edited since.
_WRITTEN = BUILD / "skeletons"


class MarkError(Exception):
    """A mark without its counterpart, or out of place."""


@dataclass(frozen=True)
class Todo:
    """A place in a learner's file that still waits for its answer."""

    exercise: str
    path: Path
    line: int


def skeleton(text: str, name: str, answered: Collection[str] = ()) -> str:
    """The learner's version of a solution's text; `name` is for messages. Exercises that are `answered`
    keep their answers: the file of a learner who has come so far."""
    lines: list[str] = []
    opened, opened_at = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        mark = _MARK.fullmatch(line)
        if mark is None:
            if _NEAR_MARK.search(line):
                raise MarkError(f"{name}:{number}: not quite a mark: {line.strip()}")
            if not opened or opened in answered:
                lines.append(line)
        elif mark[1] == "answer":
            if opened:
                raise MarkError(f"{name}:{number}: answer {mark[2]} begins inside answer {opened}")
            opened, opened_at = mark[2], number
            indent = line[: len(line) - len(line.lstrip())]
            if not indent:
                raise MarkError(f"{name}:{number}: answer {mark[2]} stands outside a function")
            if opened not in answered:
                lines.append(f'{indent}TODO("{opened}");')
        else:
            if opened != mark[2]:
                raise MarkError(f"{name}:{number}: end {mark[2]} without its answer {mark[2]}")
            opened = ""
    if opened:
        raise MarkError(f"{name}:{opened_at}: answer {opened} has no end")
    return "\n".join(lines) + "\n"


def exercises(path: Path) -> list[str]:
    """The exercises that a solution answers, in order, each once."""
    marks = (_MARK.fullmatch(line) for line in path.read_text().splitlines())
    return sorted({mark[2] for mark in marks if mark and mark[1] == "answer"})


def todos(path: Path) -> list[Todo]:
    """The TODOs left in a learner's file, in the order of their exercises; comments don't count."""
    if not path.exists():
        return []
    blanked = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]),
                           path.read_text(errors="replace"))
    found = [Todo(match[1], path, blanked.count("\n", 0, match.start()) + 1)
             for match in _TODO.finditer(blanked)]
    return sorted(found, key=lambda todo: (todo.exercise, todo.line))


def first_todo(lab: Lab) -> Todo | None:
    """The exercise to do next in a lab; None: all are written."""
    left = [todo for path in lab.learner_files() for todo in todos(path)]
    return min(left, key=lambda todo: todo.exercise) if left else None


def handout_title(lab: Lab, exercise: str) -> str:
    """The handout's heading of an exercise, without the number; empty: there is none."""
    if not lab.handout.exists():
        return ""
    match = re.search(rf"^### {re.escape(exercise)} (.+)$", lab.handout.read_text(), re.M)
    return match[1] if match else ""


def handout_exercises(lab: Lab) -> list[str]:
    """The exercises that a handout has a heading for."""
    return re.findall(r"^### (\d\.\d) ", lab.handout.read_text(), re.M) if lab.handout.exists() else []


def _committed(path: Path) -> str | None:
    """The file's text in the last commit."""
    done = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout if done.returncode == 0 else None


def _may_replace(path: Path, written: Path) -> bool:
    """Whether the file holds nothing that would be lost: absent, as written here, or committed."""
    if not path.exists():
        return True
    text = path.read_text(errors="replace")
    return (written.exists() and written.read_text() == text) or _committed(path) == text


def write_skeletons(force: bool) -> int:
    """Writes every learner's file; an exit status. A file with a learner's work stays as it is."""
    kept: list[str] = []
    for lab in LABS.values():
        for solution, target in zip(lab.solution_files(), lab.learner_files()):
            if not solution.exists():
                continue
            name = str(target.relative_to(ROOT))
            text = skeleton(solution.read_text(), str(solution.relative_to(ROOT)))
            written = _WRITTEN / lab.folder / target.name
            if target.exists() and target.read_text(errors="replace") == text:
                continue
            if not force and not _may_replace(target, written):
                kept.append(name)
                continue
            for path in (target, written):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            print(f"wrote {name}")
    for name in kept:
        print(f"{name} has been edited and is left as it is. Commit it first, or lose the edits with "
              "`make skeletons FORCE=1`.", file=sys.stderr)
    return 1 if kept else 0


def drifts() -> list[str]:
    """What is wrong between solutions, learners' files and handouts, a sentence each."""
    found: list[str] = []
    for lab in LABS.values():
        numbers: list[str] = []
        for solution, target in zip(lab.solution_files(), lab.learner_files()):
            if not solution.exists():
                continue
            name = str(target.relative_to(ROOT))
            try:
                text = skeleton(solution.read_text(), str(solution.relative_to(ROOT)))
            except MarkError as error:
                found.append(str(error))
                continue
            numbers += exercises(solution)
            if not target.exists():
                found.append(f"{name} is missing; `make skeletons` writes it")
            elif target.read_text() != text:
                found.append(f"{name} is not what `make skeletons` writes")
        found += _without_twin(lab, sorted(set(numbers)))
    return found


def _without_twin(lab: Lab, numbers: list[str]) -> list[str]:
    """Exercises that solution, handout and graded tests don't share. A lab in the making may have no handout
    or no graded tests at all."""
    solution, found = f"solutions/{lab.folder}", []
    if lab.handout.exists():
        found += _unequal(solution, numbers, str(lab.handout.relative_to(ROOT)), handout_exercises(lab))
    if lab.number in labs.NUMBERS:
        found += _unequal(solution, numbers, f"grader/labs/lab{lab.number}.py",
                          labs.load(lab.number).exercises())
    return found


def _unequal(name: str, numbers: list[str], other_name: str, others: list[str]) -> list[str]:
    found = [f"{name} has exercise {number}, {other_name} has not" for number in numbers
             if number not in others]
    found += [f"{other_name} has exercise {number}, {name} has not" for number in others
              if number not in numbers]
    if len(set(others)) != len(others):
        found.append(f"{other_name} has an exercise twice")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make skeletons", description="Writes labs/ from solutions/.")
    parser.add_argument("--force", action="store_true", help="overwrite files that a learner has edited")
    parser.add_argument("--check", action="store_true", help="only say what has drifted apart")
    arguments = parser.parse_args()
    try:
        if not arguments.check:
            return write_skeletons(arguments.force)
    except MarkError as error:
        print(error, file=sys.stderr)
        return 1
    found = drifts()
    print("\n".join(found) or "labs/, solutions/, handouts/ and the graded tests agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
