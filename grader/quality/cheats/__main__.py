"""`make cheats`: grades every hostile module in this folder, and checks that none gains a point, harms the
grader, or outlives it.

    python3 -m grader.quality.cheats [--lab N] [--backend vm] [--only NAME] [--whole]

The header that a module includes, lab1.h to lab5.h, determines its lab; one with lab.h is tried in each lab.
Without --whole only one test of each kind is graded: a unit test, a guest judged by its registers, one judged
by its output.
Exit status: 0 all were stopped; 1 one was not, with what it achieved; 3 cannot grade on this machine.

Limits: in the lab VM a module can reach only its own virtual machine, which is discarded. On the host
(BACKEND=kvm) namespaces, a read-only file system and limits confine it. Without namespaces, a learner who is
root could fool the grader on their own machine. Grades that count come from `make grade-class` or an
autograder, which use the lab VM and encrypted guests (grader/core/encryption.py). A module that contains an
emulator of the processor and answers as the guest would can't be distinguished from an honest one, and is
more work than the lab.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from grader import labs
from grader.execution.backends import pick_backend
from grader.course import BUILD, ROOT
from grader.core.framework import Lab
from grader.core.grading import Choice, grade
from grader.core.judge import Kind
from grader.execution.tool import run_command
from grader.report.files import gradescope
from grader.execution.runs import CannotGrade
from grader.core.values import new_seed

FOLDER = Path(__file__).resolve().parent
# One test of each kind. The first is a unit test if the lab has them.
FEW = {1: ("1.1-opens", "1.5-segments", "1.5-hlt"), 2: ("2.1-decode", "2.2-exit-status", "2.2-putchar"),
       3: ("3.1-bases", "3.3-lines"), 4: ("4.2-first", "4.2-injects"), 5: ("5.1-encode", "5.5-walks")}
# These use up their time in every run, so one test is enough.
SLOW = ("sleep_forever", "fork_bomb", "eat_memory")
TIME_MAX = 300.0     # seconds for a run under any load; its limits are a tenth of that
CANNOT_GRADE = 3


@dataclass
class Outcome:
    """The outcome of a cheat. `managed`: what it achieved and should not have, one sentence each."""

    name: str
    lab: int
    tests: int = 0
    seconds: float = 0.0
    managed: list[str] = field(default_factory=list)


def cheats() -> list[Path]:
    """The hostile modules."""
    return sorted(FOLDER.glob("*.c"))


def labs_of(module: Path) -> list[int]:
    """The labs that a module attacks."""
    found = re.search(r'^#include "lab(\d?)\.h"', module.read_text(), re.M)
    if not found:
        raise ValueError(f"{module.name} does not include a lab's header")
    return [int(found[1])] if found[1] else sorted(FEW)


def try_cheat(module: Path, number: int, backend: str, whole: bool = False) -> Outcome:
    """Grades one in a lab and checks what it left. Raises CannotGrade if the machine can't grade at all."""
    outcome = Outcome(module.stem, number)
    lab = labs.load(number)
    few = FEW[number][1:2] if module.stem in SLOW else FEW[number] if not whole else ()
    if few:
        lab = Lab(lab.number, lab.title, lab.needs, [test for test in lab.tests if test.id in few])
    outcome.tests = len(lab.tests)
    results = BUILD / "cheats" / module.stem
    choice = Choice(new_seed(), module=_put(module, number), backend=backend, folder=results, encrypted=True)
    before, began = _kit(), time.monotonic()
    report = grade(lab, choice, lambda needs: pick_backend(backend, tuple(needs)))
    outcome.seconds = time.monotonic() - began
    for verdict in report.verdicts:
        if verdict.points:
            outcome.managed.append(f"it passed {verdict.test.id}")
        if verdict.kind is Kind.TODO:
            outcome.managed.append(f"{verdict.test.id} was reported as not written yet")
    if gradescope(report)["score"] != 0:
        outcome.managed.append("the results have points")
    if outcome.seconds > TIME_MAX * max(1, len(report.graded)):
        outcome.managed.append(f"it took {outcome.seconds:.0f} s")
    outcome.managed += [f"it left process {text}" for text in _left()]
    outcome.managed += [f"it left {path}" for path in _files()]
    outcome.managed += [f"it changed {name}" for name, digest in _kit().items() if before.get(name) != digest]
    return outcome


def _kit() -> dict[str, str]:
    """Digests of the files that a cheat could try to change."""
    paths = [ROOT / "Makefile", *(ROOT / "grader").rglob("*.py"), *(ROOT / "solutions").rglob("*.c")]
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _put(module: Path, lab: int) -> Path:
    """A copy of the module at the same path for all cheats, so that the rest of the VMM is compiled once."""
    place = BUILD / "cheats" / f"lab{lab}"
    place.mkdir(parents=True, exist_ok=True)
    for header in FOLDER.glob("*.h"):
        shutil.copy(header, place)
    shutil.copy(FOLDER / f"lab{lab}.h", place / "lab.h")
    return Path(shutil.copyfile(module, place / "cheat.c"))


def _left() -> list[str]:
    """Remaining processes of a program with a cheat."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            program = os.readlink(place / "exe")
        except OSError:
            continue
        if program.startswith(f"{BUILD}/vmm/") and "build_cheats_lab" in program:
            found.append(f"{place.name} ({program})")
    return found


def _files() -> list[Path]:
    """Files created by a cheat where it must not."""
    return [path for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", str(ROOT))
            for path in Path(folder).glob("cheat-*")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cheats", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, help="only cheats for this lab")
    parser.add_argument("--backend", default="auto", help="auto, kvm or vm")
    parser.add_argument("--only", default="", metavar="NAME", help="just this one")
    parser.add_argument("--whole", action="store_true", help="all tests of the lab")
    arguments = parser.parse_args()
    chosen = [(module, lab) for module in cheats() for lab in labs_of(module)
              if arguments.only in ("", module.stem) and arguments.lab in (None, lab)]
    held = 0
    for module, lab in chosen:
        try:
            outcome = try_cheat(module, lab, arguments.backend, arguments.whole)
        except CannotGrade as error:
            print(f"cannot grade: {error}", file=sys.stderr)
            return CANNOT_GRADE
        held += not outcome.managed
        print(f"{'ok' if not outcome.managed else 'FAIL':4} {outcome.name:18} lab {outcome.lab}, "
              f"{outcome.tests} tests, {outcome.seconds:.0f} s", flush=True)
        for sentence in outcome.managed:
            print(f"       {sentence}")
    print(f"{held} of {len(chosen)} cheats gained nothing and left nothing")
    return 0 if chosen and held == len(chosen) else 1


if __name__ == "__main__":
    run_command(main)
