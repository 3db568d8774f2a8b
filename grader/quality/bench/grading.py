"""Rows that take minutes to hours, and are measured only if they are named: seconds of whole commands.

With OLDER= the same command of that revision runs right after it, in a folder of its own: the baseline can be
rebuilt, and is measured in the same run.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

from grader.core.building import clean_environment
from grader.course import BUILD, LABS, ROOT
from grader.quality.bench.cases import Comparison, Measured, ratios, spread

FOLDER = BUILD / "bench"
GRADED = FOLDER / "graded"
CLASS = 30                 # submissions
LONG = ("grading", "class", "suite")


def commands(row: str, kit: Path) -> "Iterator[tuple[str, list[str]]]":
    """The commands of a row in this kit's folder, with their titles. An older kit knows them as well, and
    grades its own solutions."""
    grade = ["make", "grade", "SOLUTION=1"]
    if row == "grading":
        yield from ((f"lab {lab}", [*grade, f"LAB={lab}"]) for lab in LABS)
        yield "all labs", grade
    elif row == "class":
        yield (f"{CLASS} submissions of lab 1",
               [sys.executable, "-m", "grader.classroom.grade_class", "--lab=1",
                f"--submissions={_submissions(kit)}", f"--out={GRADED}"])
    else:
        yield "make test", ["make", "test"]


def _submissions(kit: Path) -> Path:
    """A class in which everyone has submitted the kit's solution."""
    folder = kit / "build/bench/submissions"
    [solution] = [kit / path.relative_to(ROOT) for path in LABS[1].solution_files()]
    for number in range(CLASS):
        place = folder / f"learner{number:02}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(solution, place / solution.name)
    return folder


def timed(command: Sequence[str], kit: Path) -> Union[float, str]:
    """The seconds that a command takes, or how it failed."""
    shutil.rmtree(GRADED, ignore_errors=True)    # else a class is resumed
    begin = time.monotonic()
    done = subprocess.run(command, cwd=kit, env=clean_environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"ended with status {done.returncode}: {last}"
    return not_graded(GRADED / "scores.csv") or seconds


def not_graded(scores: Path) -> str:
    """The first submission of a class of solutions that has less than all points: the work was not done."""
    if scores.exists():
        with scores.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["score"] != "100":
                    return f"{line['name']} has {line['score']} points: {line['status']} {line['reason']}"
    return ""


def measure(row: str, older: "tuple[str, Path] | None") -> "Iterator[Measured]":
    """A row's commands, and right after each the same one of an older kit, if given."""
    theirs = list(commands(row, older[1])) if older else []
    for number, (title, command) in enumerate(commands(row, ROOT)):
        other = (*older, theirs[number][1]) if older else None
        yield compared(row, title, command, other)


def compared(row: str, title: str, command: Sequence[str],
             older: "tuple[str, Path, Sequence[str]] | None") -> Measured:
    """One command of this kit and, if given, that of an older one: its name, folder and command."""
    ours = timed(command, ROOT)
    if isinstance(ours, str):
        return Measured(row, title, "s", None, note=ours)
    if not older:
        return Measured(row, title, "s", spread([ours]))
    name, kit, same = older
    theirs = timed(same, kit)
    if isinstance(theirs, str):
        return Measured(row, title, "s", spread([ours]), note=f"{name} {theirs}")
    return Measured(row, title, "s", spread([ours]),
                    (Comparison(name, spread([theirs]), ratios([ours], [theirs])),))
