"""Wrong modules that the grader must see through: each patch of grader/mutants/labN/ is a solution with a
mistake that learners make.

    # what: the API version is not checked
    # fails: 1.1-version
    # hint: KVM_API_VERSION
    --- a/solutions/lab1-real-mode/vm.c
    ...

`fails` names exercises or tests: all failing tests must be among these, and each must be hit. The words of
`hint` must be in what the learner reads about one of the failed tests.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader import labs
from grader.course import BUILD, LABS, ROOT
from grader.grading import Choice, Pick, Report, grade
from grader.judge import Kind, Verdict
from grader.runs import CannotGrade

FOLDER = Path(__file__).parent / "mutants"


@dataclass(frozen=True)
class Mutant:
    """One mistake."""

    lab: int
    name: str
    patch: Path
    what: str
    fails: tuple[str, ...]
    hint: str


def read_mutants(lab: int) -> list[Mutant]:
    """The mutants of a lab, by name."""
    return [_read(lab, path) for path in sorted((FOLDER / f"lab{lab}").glob("*.patch"))]


def _read(lab: int, path: Path) -> Mutant:
    fields = dict(re.findall(r"^# (what|fails|hint): (.+)$", path.read_text(), re.M))
    return Mutant(lab, path.stem, path, fields["what"], tuple(fields["fails"].split()), fields["hint"])


def make_module(mutant: Mutant) -> Path:
    """The solution with the mistake, in build/."""
    [source, *_] = LABS[mutant.lab].solution_files()
    module = BUILD / "mutants" / f"lab{mutant.lab}" / mutant.name / source.name
    module.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["patch", "--silent", f"--output={module}", str(source), str(mutant.patch)],
                          cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise CannotGrade(f"{mutant.patch.name} no longer fits {source.name}:\n{done.stdout}",
                          "make the patch anew from today's solution")
    return module


def grade_mutant(mutant: Mutant, seed: int, backend: str, pick: Pick) -> list[str]:
    """What is wrong with the grading of this mutant; empty if the grader saw through it."""
    module = make_module(mutant)
    choice = Choice(seed, module=module, backend=backend, folder=module.parent / "results")
    report = grade(labs.load(mutant.lab), choice, pick)
    return complaints(mutant, report)


def complaints(mutant: Mutant, report: Report) -> list[str]:
    """Compares what failed with what must fail."""
    if report.build_error:
        return [f"it does not compile:\n{report.build_error}"]
    failed = [v for v in report.verdicts if v.kind is Kind.FAILED]
    found = [f"{v.test.id} is {v.kind.value}" for v in report.verdicts if v.kind in (Kind.TODO, Kind.CANNOT)]
    found += [f"{v.test.id} failed, too: {_read_by_learner(v)}" for v in failed
              if not {v.test.id, v.test.exercise} & set(mutant.fails)]
    found += [f"{wanted} did not fail" for wanted in mutant.fails
              if not any(wanted in (v.test.id, v.test.exercise) for v in failed)]
    if failed and not any(mutant.hint in _read_by_learner(v) for v in failed):
        found.append(f"no hint has the words {mutant.hint!r}: " + " / ".join(map(_read_by_learner, failed)))
    return found


def _read_by_learner(verdict: Verdict) -> str:
    return verdict.hint + (f" [{verdict.mismatch.text}]" if verdict.mismatch else "")


def run(numbers: Sequence[int], only: str, seed: int, backend: str, pick: Pick) -> bool:
    """Grades the mutants of these labs and tells; true if all were seen through."""
    passed = total = 0
    for mutant in (m for number in numbers for m in read_mutants(number) if only in ("", m.name)):
        wrong = grade_mutant(mutant, seed, backend, pick)
        total += 1
        passed += not wrong
        print(f"lab {mutant.lab} {mutant.name}: {mutant.what}: {'FAILED' if wrong else 'ok'}", flush=True)
        for complaint in wrong:
            print("    " + complaint, flush=True)
    print(f"{passed} of {total} mutants seen through (seed {seed})")
    return passed == total
