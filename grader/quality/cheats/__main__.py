"""`make cheats`: grades every hostile module, and checks that none gains a point, harms the grader, or
outlives it. Those in this folder attack the grader; those that constant.py generates do nothing right, or
nothing of one exercise.

    python3 -m grader.quality.cheats [--lab N] [--backend kvm] [--only NAME] [--whole]

The header that a module includes says what it attacks: lab1.h to lab5.h, lab6_boot.h, lab6_sched.h, lab7.h,
lab8_devices.h, lab8_linux.h; or lab.h: the first file of each lab. Without --whole only a few tests of that
lab are graded, one of each kind: a unit test, a guest judged by registers, one by its output. Generated
modules are graded by all tests.
Exit status: 0 all were stopped; 1 one was not, with what it achieved; 3 cannot grade on this machine.

All are graded as a class is: compiled in the jail, with encrypted guests.

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
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from grader import labs
from grader.core.strange_files import FILE_MAX, HEADERS_MAX
from grader.execution.backends import pick_backend
from grader.course import BUILD, LABS, ROOT
from grader.core.building import use_jail
from grader.core.framework import Lab, Test
from grader.core.grading import Choice, grade
from grader.core.jailed_make import JAILED
from grader.core.judge import Kind
from grader.core.plan import Plan
from grader.execution.tool import run_command
from grader.quality.cheats.constant import constant_modules, without_answers
from grader.report.files import gradescope
from grader.execution.runs import CannotGrade, Limits
from grader.core.values import new_seed_for_strangers

FOLDER = Path(__file__).resolve().parent
# One test of each kind. The first is a unit test if the lab has them.
FEW = {"lab1": ("1.1-opens", "1.1-no-device", "1.2-vm-failures", "1.3-vcpu-failures", "1.5-segments",
                "1.5-hlt", "1.5-accesses", "1.5-fail-entry", "1.6-twice"),
       "lab2": ("2.1-decode", "2.1-operands", "2.4-string-count", "2.4-write", "2.2-exit-status",
                "2.2-putchar"),
       "lab3": ("3.1-bases", "3.3-lines", "3.4-kick-wakes"), "lab4": ("4.2-first", "4.2-injects"),
       "lab5": ("5.1-encode", "5.5-walks", "5.4-high", "5.4-halves", "5.3-refused", "5.5-walks-nowhere",
                "5.5-walks-edges"),
       "lab6_boot": ("6.1-loads", "6.3-shell", "6.2-no-archive", "6.2-large-archive"),
       "lab6_sched": ("6.4-frame", "6.4-ring3", "6.5-order", "6.5-turns", "6.6-wait", "6.6-release"),
       "lab7": ("7.1-tables", "7.6-walks", "7.5-long-registers", "7.5-hello"),
       "lab8_devices": ("8.1-reaches", "8.2-polled"),
       "lab8_linux": ("8.5-start-state", "8.5-state-of-guest", "8.6-linux", "8.6-linux-panic")}
SECOND_FILES = ("lab6_sched", "lab8_linux")
EVERY_VMM = tuple(target for target in FEW if target not in SECOND_FILES)
# The build refuses these; any other that does not compile tests nothing.
REFUSED = ("asm_incbin", "asm_include", "asm_space", "c_include", "clone_table", "constructor",
           "indirect_function", "kernel_include", "lto_bytecode", "lto_options")
# These use up their time in every run, so one test is enough.
SLOW = ("sleep_forever", "fork_bomb", "eat_memory")
# The tests that these are about; in others, some only wait until their time is up.
ALONE = {"release_by_count": ("6.6-release",),
         "status_only": ("3.2-end-signalled-last", "3.4-kick", "3.4-kick-order", "3.4-check-order",
                         "3.4-kick-taken-back", "3.4-stop-order", "3.5-own-vms", "3.5-stop-isolated"),
         "said_todo": ("4.1-expired",),
         "memory_slots": ("5.4-high", "5.4-halves", "5.4-permutation", "5.4-devices", "5.5-string-pages"),
         "fixed_clock": ("4.1-period", "4.1-timer-failure", "4.1-expired", "4.5-ring-guarded")}
TIME_MAX = 300.0     # seconds for a run under any load; its limits are a tenth of that
SPIN_MAX = 1.0       # seconds of processor time without output, for modules whose guests often never end
CANNOT_GRADE = 3
SECRET = "what only the instructor may read"


@dataclass(frozen=True)
class Cheat:
    """A module, and what it attacks."""

    name: str
    target: str
    text: str
    generated: bool = False
    exercise: str = ""       # only its tests must fail; or those of all exercises
    other: Cheat | None = None    # for the lab's other file: each test must fail with one of the two

    @property
    def kind(self) -> str:
        return "generated" if self.generated else "hostile"


@dataclass
class Outcome:
    """The outcome of a cheat. `managed`: what it achieved and should not have, one sentence each."""

    tests: int = 0
    seconds: float = 0.0
    hung: int = 0        # runs that were stopped because they did not end
    passed: set[str] = field(default_factory=set)      # tests
    managed: list[str] = field(default_factory=list)


def cheats() -> list[Cheat]:
    """The modules in this folder."""
    return [Cheat(module.stem, target, module.read_text())
            for module in sorted(FOLDER.glob("*.c")) for target in _targets(module)]


def generated(numbers: Sequence[int] = labs.NUMBERS) -> list[Cheat]:
    """The modules that do nothing right, for each file of these labs."""
    return _paired(Cheat(name, target, text, generated=True) for target in FEW if lab_of(target) in numbers
                   for name, text in constant_modules(lab_of(target), _file(target)).items())


def incomplete(numbers: Sequence[int] = labs.NUMBERS) -> list[Cheat]:
    """The solutions of these labs, each time without one exercise."""
    return _paired(Cheat(f"without_{exercise}", target, text, generated=True, exercise=exercise)
                   for target in FEW if lab_of(target) in numbers
                   for exercise, text in without_answers(lab_of(target), _file(target)).items())


def _paired(modules: Iterable[Cheat]) -> list[Cheat]:
    """Lab 8's files are parts of one module, and only one can be replaced at a time: two of the same name
    become one."""
    found: dict[tuple[str, str], Cheat] = {}
    for cheat in modules:
        key = (cheat.name, "" if lab_of(cheat.target) == 8 else cheat.target)
        found[key] = replace(cheat, other=found.get(key))
    return list(found.values())


def _file(target: str) -> str:
    """The learner's file that a cheat stands for."""
    files = LABS[lab_of(target)].files
    return next((file for file in files if Path(file).stem == target.partition("_")[2]), files[0])


def _targets(module: Path) -> tuple[str, ...]:
    found = re.search(r'^#include "(lab\w*)\.h"', module.read_text(), re.M)
    if not found:
        raise ValueError(f"{module.name} does not include a lab's header")
    return EVERY_VMM if found[1] == "lab" else (found[1],)


def lab_of(target: str) -> int:
    return int(target[3])


def try_cheat(cheat: Cheat, backend: str, whole: bool = False) -> Outcome:
    """Grades one and checks what it left. Raises CannotGrade if the machine can't grade at all."""
    outcome = _try_file(cheat, backend, whole)
    if cheat.other:
        other = _try_file(cheat.other, backend, whole)
        outcome.passed &= other.passed
        outcome.managed += other.managed
        outcome.seconds += other.seconds
        outcome.hung += other.hung
    outcome.managed += [f"it passed {test}" for test in sorted(outcome.passed)]
    return outcome


def _try_file(cheat: Cheat, backend: str, whole: bool) -> Outcome:
    outcome = Outcome()
    lab = labs.load(lab_of(cheat.target))
    few = () if whole or cheat.generated else FEW[cheat.target]
    if cheat.name in SLOW:
        few = FEW[cheat.target][1:2]
    few = ALONE.get(cheat.name, few)
    tests = [test for test in lab.tests
             if (not few or test.id in few) and cheat.exercise in ("", test.exercise)]
    hasty = cheat.generated or "8.6-linux" in few     # whose patience is for a boot of Linux
    lab = Lab(lab.number, lab.title, lab.needs, [*map(_hasty, tests)] if hasty else tests)
    outcome.tests = len(lab.tests)
    results = BUILD / "cheats" / f"{cheat.name}-{cheat.target}"
    use_jail()
    choice = Choice(new_seed_for_strangers(), module=_put(cheat), backend=backend, folder=results,
                    encrypted=True, jobs=1)
    before, began = _kit(), time.monotonic()
    report = grade(lab, choice, lambda needs: pick_backend(backend, tuple(needs)))
    outcome.seconds = time.monotonic() - began
    outcome.hung = sum(result.hung for graded in report.graded for result in graded.results)
    for verdict in report.verdicts:
        if verdict.points:
            outcome.passed.add(verdict.test.id)
        if verdict.kind is Kind.CANNOT:
            outcome.managed.append(f"{verdict.test.id} could not be graded: {verdict.text}")
        if verdict.kind is Kind.TODO:
            outcome.managed.append(f"{verdict.test.id} was reported as not written yet")
    if bool(report.build_error) != (cheat.name in REFUSED):
        outcome.managed.append(f"it does not compile, so it tests nothing:\n{report.build_error}"
                               if report.build_error else "the build did not refuse it")
    if gradescope(report)["score"] != 0 and not report.score:
        outcome.managed.append("the results have points")
    if SECRET in json.dumps(gradescope(report)) + report.build_error:
        outcome.managed.append("the report shows a file of the instructor's")
    if outcome.seconds > TIME_MAX * max(1, len(report.graded)):
        outcome.managed.append(f"it took {outcome.seconds:.0f} s")
    outcome.managed += [f"it left process {text}" for text in left_processes(lab.number)]
    outcome.managed += [f"it left {path}" for path in _files()]
    outcome.managed += [f"it changed {name}" for name, digest in _kit().items() if before.get(name) != digest]
    return outcome


def _hasty(test: Test) -> Test:
    """The test with less patience: it need not pass."""
    def body(plan: Plan) -> None:
        test.body(plan)
        for planned in plan.planned:
            limits = replace(planned.run.limits, spin=SPIN_MAX, no_output=Limits().no_output)
            planned.run = replace(planned.run, limits=limits)
    return replace(test, body=body)


def _kit() -> dict[str, str]:
    """Digests of the files that a cheat could try to change."""
    paths = [ROOT / "Makefile", *(ROOT / "grader").rglob("*.py"), *(ROOT / "solutions").rglob("*.c")]
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _put(cheat: Cheat) -> Path:
    """The module as a file, at one place for all: so the rest of the VMM is compiled once."""
    place = BUILD / "cheats" / cheat.target
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if not cheat.generated:
        _put_headers(cheat, place)
    module = place / _file(cheat.target)
    module.write_text(cheat.text)
    return module


def _put_headers(cheat: Cheat, place: Path) -> None:
    """What the modules in this folder include."""
    for header in FOLDER.glob("*.h"):
        shutil.copy(header, place)
    (place / "lab.h").write_text(f'#include "{cheat.target}.h"\n')
    secret = place.with_name("secret")
    secret.write_text(f"{SECRET}\n")
    (place / "secret.h").write_text(f'#define SECRET_FILE "{secret}"\n')
    if cheat.name in _MADE:
        _MADE[cheat.name](place, secret)


def _make_headers(place: Path, secret: Path) -> None:
    for number in range(HEADERS_MAX - 1 - len(list(place.glob("*.h")))):
        text = f'#include "many{number + 1:02}.h"\n'
        (place / f"many{number:02}.h").write_text(text + f"/* {'x' * (FILE_MAX - len(text) - 8)} */\n")
    (place / f"many{number + 1:02}.h").write_text("")


def _make_bytecode(place: Path, secret: Path) -> None:
    """What the compiler here has for its linker, with the assembler's words in it."""
    inner = f'__attribute__((used)) void f(void) {{ __asm__(".include \\"{secret}\\""); }}\n'
    done = subprocess.run(["gcc", "-O2", "-flto", "-S", "-x", "c", "-", "-o", "-"], input=inner, text=True,
                          stdout=subprocess.PIPE, check=True)
    lines = [json.dumps(f"{line}\n") for line in done.stdout.splitlines() if ".file" not in line]
    (place / "bytecode.h").write_text("__asm__(" + "\n".join([*lines, '".text"']) + ");\n")


# Headers of a cheat that are made for it.
_MADE = {"many_headers": _make_headers, "lto_bytecode": _make_bytecode}


def left_processes(lab: int) -> list[str]:
    """Remaining processes of this lab's programs with a cheat."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            program = os.readlink(place / "exe")
        except OSError:
            continue
        if program.startswith(f"{JAILED}/") and f"/lab{lab}-" in program:
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
    parser.add_argument("--backend", default="vm", help="kvm or vm")
    parser.add_argument("--only", default="", metavar="NAME", help="just this one")
    parser.add_argument("--whole", action="store_true", help="all tests of the lab")
    arguments = parser.parse_args()
    numbers = [arguments.lab] if arguments.lab else labs.NUMBERS
    chosen = [cheat for cheat in [*cheats(), *generated(), *incomplete()]
              if arguments.only in ("", cheat.name) and lab_of(cheat.target) in numbers]
    print(f"modules to grade: {len(chosen)}", flush=True)
    held: Counter[str] = Counter()
    for cheat in chosen:
        try:
            outcome = try_cheat(cheat, arguments.backend, arguments.whole)
        except CannotGrade as error:
            print(f"cannot grade: {error}", file=sys.stderr)
            return CANNOT_GRADE
        held[cheat.kind] += not outcome.managed
        print(f"{'ok' if not outcome.managed else 'FAIL':4} {cheat.name:22} {cheat.target}, "
              f"{outcome.tests} tests, {outcome.seconds:.0f} s", flush=True)
        for sentence in outcome.managed:
            print(f"       {sentence}")
    tried = Counter(cheat.kind for cheat in chosen)
    for kind, count in tried.items():
        print(f"{held[kind]} of {count} {kind} modules gained nothing and left nothing")
    return 0 if chosen and held == tried else 1


if __name__ == "__main__":
    run_command(main)
