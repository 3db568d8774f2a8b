"""Writes labs/ from solutions/, without the answers: see grader.core.exercises."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from grader import labs
from grader.core.exercises import MarkError, exercises, handout_exercises, skeleton
from grader.core.version import git_refusal
from grader.course import BUILD, LABS, ROOT, Lab
from grader.execution.tool import run_command

# Copies of the files as last written, to recognize those that have not been edited since.
_WRITTEN = BUILD / "skeletons"


def _committed(path: Path) -> bytes | None:
    """The file's content in the last commit."""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _may_replace(path: Path, written: Path) -> bool:
    """Whether nothing would be lost: the file is absent, as written here, or committed."""
    if not path.exists():
        return True
    content = path.read_bytes()
    return (written.exists() and written.read_bytes() == content) or _committed(path) == content


def write_skeletons(force: bool) -> int:
    """Writes every learner's file and returns an exit status. A file with a learner's work is kept."""
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
        print(f"{name} has been edited and was not changed. Commit it first, or discard the edits with "
              "`make skeletons FORCE=1`.", file=sys.stderr)
    if kept and (refusal := git_refusal()):
        print(f"git can't show what is committed: {refusal}", file=sys.stderr)
    return 1 if kept else 0


def drifts() -> list[str]:
    """Differences between solutions, learners' files and handouts, one sentence each."""
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
    """Exercises that are missing in the solution, the handout or the graded tests. A new lab may have no
    handout or no graded tests yet."""
    solution, found = f"solutions/{lab.folder}", []
    if lab.handout.exists():
        found += _unequal(solution, numbers, str(lab.handout.relative_to(ROOT)), handout_exercises(lab))
    if lab.number in labs.NUMBERS:
        found += _unequal(solution, numbers, str((lab.grading / "tests.py").relative_to(ROOT)),
                          labs.load(lab.number).exercises())
    return found


def _unequal(name: str, numbers: list[str], other_name: str, others: list[str]) -> list[str]:
    found = [f"{name} has exercise {number}, but {other_name} has not" for number in numbers
             if number not in others]
    found += [f"{other_name} has exercise {number}, but {name} has not" for number in others
              if number not in numbers]
    if len(set(others)) != len(others):
        found.append(f"{other_name} has an exercise twice")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make skeletons", description="Writes labs/ from solutions/.")
    parser.add_argument("--force", action="store_true", help="overwrite files that a learner has edited")
    parser.add_argument("--check", action="store_true", help="only report differences")
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
    run_command(main)
