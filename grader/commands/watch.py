"""`make watch LAB=3`: grades the lab at every save and shows the next thing to do, until Ctrl-C."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from grader import labs
from grader.execution.backends import Picker
from grader.core.blame import blame_lines
from grader.core.building import learner_labs, learner_source
from grader.commands.file_changes import signature, wait_for_change
from grader.course import LABS
from grader.core.grading import Choice, Graded, Report
from grader.core.judge import Kind
from grader.execution.tool import in_colour, on_terminal, run_command
from grader.report.causes import failures, first_open
from grader.report.recording import grade_and_keep
from grader.report.text import failure_lines, next_lines
from grader.execution.runs import CannotGrade
from grader.core.readable import first_lines
from grader.core.values import new_seed

CLEAR = "\033[H\033[2J\033[3J"


def next_thing(report: Report, colour: bool = False) -> list[str]:
    """The next thing to fix: the compiler's error, or else the first test that does not pass."""
    passed = sum(verdict.kind is Kind.OK for verdict in report.verdicts)
    head = (f"Lab {report.lab.number}, {report.lab.title}: {report.score} of {report.possible} points, "
            f"{passed} of {len(report.verdicts)} tests pass ({report.seconds:.0f} s)")
    if report.build_error:
        return [head, "", "It does not compile:",
                *("  " + line for line in first_lines(report.build_error, 30))]
    if passed == len(report.verdicts):
        other = LABS[report.lab.number].solution_files()[0].exists()
        return [head, "", "The lab is done." +
                (f" make diff LAB={report.lab.number} compares it with the solution." if other else "")]
    first = _first_failure(report)
    failure = [*failure_lines(report, first, True, colour), ""] if first else []
    return [head, "", *failure, *next_lines(report)]


def _first_failure(report: Report) -> Graded | None:
    """The failure to fix first; None: the next exercise is not written yet."""
    found = first_open(report.graded)
    if found and found[0].verdict.kind is Kind.TODO:
        return None
    cannot = [[graded] for graded in report.graded if graded.verdict.kind is Kind.CANNOT]
    return (cannot + failures(report.graded))[0][0]


def show(lines: Sequence[str]) -> None:
    """Prints one screen of lines; on a terminal it is cleared first."""
    if on_terminal():
        lines = lines[:max(10, shutil.get_terminal_size().lines - 2)]
        sys.stdout.write(CLEAR)
    print("\n".join(lines), flush=True)


def watch(number: int, source: str, backend: str) -> None:
    """Grades, shows the result and waits for a change, forever."""
    mine = [*learner_labs(source, number), number]
    files = [path for lab in mine for path in LABS[lab].learner_files()]
    pick = Picker(backend)
    choice = Choice(new_seed(), source=source, backend=backend)
    while True:
        before = signature(files)
        show([f"Lab {number}: grading ..."])
        try:
            report = grade_and_keep(labs.load(number), choice, pick)
            lines = [*next_thing(report, in_colour()), *blame_lines(report, pick)]
        except CannotGrade as error:
            lines = [f"cannot grade: {error}"]
        show([*lines, "", f"{time.strftime('%H:%M:%S')}: waiting for a save; Ctrl-C ends."])
        wait_for_change(files, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Watches until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="grader.commands.watch", description=str(__doc__))
    parser.add_argument("--lab", type=int, choices=labs.NUMBERS, required=True)
    parser.add_argument("--from", dest="source", type=learner_source, default="", metavar="mine")
    parser.add_argument("--backend", default="auto")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        watch(parsed.lab, parsed.source, parsed.backend)
    except KeyboardInterrupt:
        print("\nStopped watching; make status shows your progress.", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
