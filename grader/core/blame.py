"""With FROM=mine: finds out whether the fault is in this lab's module or in an earlier one. The failed tests
are graded again with the earlier labs' solutions, first all of them, then one at a time, to see which makes
them pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grader.core.building import learner_labs
from grader.course import LABS
from grader.core.framework import Test
from grader.core.grading import Pick, Report, grade, path_text
from grader.core.judge import Kind

TESTS_MAX = 4                        # graded again: more tests would add nothing


@dataclass(frozen=True)
class Blame:
    """Earlier labs whose solution makes failed tests pass; `alone`: each of them by itself."""

    labs: tuple[int, ...]
    alone: bool
    tests: tuple[Test, ...]          # the tests that pass then


def find_blame(report: Report, pick: Pick) -> Blame | None:
    """None: the fault is in this lab, or nothing failed."""
    mine = learner_labs(report.choice.source, report.lab.number)
    wrong = [v.test for v in report.verdicts if v.kind in (Kind.FAILED, Kind.TODO)][:TESTS_MAX]
    if not mine or not wrong or report.choice.solution:
        return None
    passing = _passing(report, wrong, [], pick)
    if not passing:
        return None
    guilty = tuple(lab for lab in mine if _passing(report, passing, [n for n in mine if n != lab], pick))
    return Blame(guilty or tuple(mine), bool(guilty), tuple(passing))


def _passing(report: Report, tests: list[Test], mine: list[int], pick: Pick) -> list[Test]:
    """Those of the tests that pass when only these earlier labs' modules are the learner's."""
    name = "".join(map(str, mine)) or "solutions"
    choice = replace(report.choice, wanted="", source=",".join(map(str, mine)),
                     folder=report.folder / f"from-{name}")
    again = grade(replace(report.lab, tests=tests), choice, pick)
    return [v.test for v in again.verdicts if v.kind is Kind.OK]


def blame_lines(report: Report, pick: Pick) -> list[str]:
    """The report for the learner; empty unless an earlier lab is at fault."""
    blame = find_blame(report, pick)
    if not blame:
        return []
    files = {lab: " and ".join(map(path_text, LABS[lab].learner_modules())) for lab in blame.labs}
    names = ", ".join(test.id for test in blame.tests)
    if not blame.alone:
        return [f"An earlier lab is at fault: with the solutions of labs {', '.join(map(str, blame.labs))} "
                f"instead of yours, these tests pass: {names}", "Grade these labs: "
                + "; ".join(f"make grade LAB={lab}" for lab in blame.labs)]
    return [line for lab, file in files.items() for line in (
        f"Lab {lab} is at fault: with its solution instead of your {file}, these tests pass: {names}",
        f"Grade that lab: make grade LAB={lab}")]
