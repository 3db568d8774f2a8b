"""Rows that take minutes to hours, and are measured only if they are named: seconds of whole commands.

With OLDER= the same command of that revision runs right after it, in a folder of its own: the baseline can be
rebuilt, and is measured in the same run.
"""

from __future__ import annotations

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
CLASS = 30                 # submissions
LONG = ("grading", "class", "suite")


def commands(row: str) -> "Iterator[tuple[str, list[str]]]":
    """The commands of a row, with their titles."""
    grade = [sys.executable, "-m", "grader", "grade", "--solution"]
    if row == "grading":
        yield from ((f"lab {lab}", [*grade, f"--lab={lab}"]) for lab in LABS)
        yield "all labs", grade
    elif row == "class":
        yield (f"{CLASS} submissions of lab 1",
               [sys.executable, "-m", "grader.classroom.grade_class", "--lab=1",
                f"--submissions={_submissions()}", f"--out={FOLDER / 'graded'}"])
    else:
        yield "make test", [sys.executable, "-m", "grader.quality.suite"]


def _submissions() -> Path:
    """A class in which everyone has submitted the solution."""
    folder = FOLDER / "submissions"
    [solution] = LABS[1].solution_files()
    for number in range(CLASS):
        place = folder / f"learner{number:02}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(solution, place / solution.name)
    return folder


def timed(command: Sequence[str], folder: Path) -> Union[float, str]:
    """The seconds that a command takes, or how it failed."""
    shutil.rmtree(FOLDER / "graded", ignore_errors=True)    # else a class is resumed
    begin = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"ended with status {done.returncode}: {last}"
    return time.monotonic() - begin


def measure(row: str, title: str, command: Sequence[str], older: "tuple[str, Path] | None") -> Measured:
    """One command of this kit and, if given, of an older one."""
    ours = timed(command, ROOT)
    if isinstance(ours, str):
        return Measured(row, title, "s", None, note=ours)
    if not older:
        return Measured(row, title, "s", spread([ours]))
    name, folder = older
    theirs = timed(command, folder)
    if isinstance(theirs, str):
        return Measured(row, title, "s", spread([ours]), note=f"{name} {theirs}")
    return Measured(row, title, "s", spread([ours]),
                    (Comparison(name, spread([theirs]), ratios([ours], [theirs])),))
