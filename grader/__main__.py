"""`python3 -m grader grade`: grades a lab or all of them.

Exit status: 0 full score; 1 less; 2 wrong usage; 3 cannot grade here (what is missing, and its mend, is
printed): that is never a score of 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from grader import labs
from grader.backends import Backend, pick_backend
from grader.framework import Lab
from grader.grading import Choice, Report, grade
from grader.report_files import autolab, write_files
from grader.report_text import print_report, save
from grader.runs import CannotGrade
from grader.values import new_seed

FULL_SCORE, LESS, USAGE, CANNOT_GRADE = 0, 1, 2, 3


def parse(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="grader", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("grade", help="grade a lab, or all labs")
    command.add_argument("--lab", type=int, choices=labs.NUMBERS, help="which lab; all without it")
    command.add_argument("--test", default="", metavar="T", help="an exercise (3.2) or a test's id")
    command.add_argument("--seed", type=int, help="of the random values; printed by each grading")
    command.add_argument("--solution", action="store_true", help="grade solutions/ instead of labs/")
    command.add_argument("--from", dest="source", choices=["mine"],
                         help="earlier labs' modules from labs/, too")
    command.add_argument("--module", type=Path, help="another file in place of the lab's module")
    command.add_argument("--backend", default="", help="auto, kvm or vm: where the VMM runs")
    command.add_argument("--sanitize", default="", help="address,undefined or thread")
    command.add_argument("--cc", default="", help="the compiler")
    command.add_argument("--results", type=Path, help="folder of the results; build/grade/labN without it")
    command.add_argument("--autolab", action="store_true", help="end with Autolab's line of scores")
    parsed = parser.parse_args(arguments)
    if parsed.lab is None and (parsed.test or parsed.module or parsed.results):
        if parsed.test[:1].isdigit() and int(parsed.test[0]) in labs.NUMBERS and not parsed.module:
            parsed.lab = int(parsed.test[0])
        else:
            parser.error("say which lab: --lab N")
    return parsed


def chosen_labs(parsed: argparse.Namespace) -> list[Lab]:
    """The labs to grade."""
    return [labs.load(number) for number in ([parsed.lab] if parsed.lab else labs.NUMBERS)]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Grades and reports; the exit status."""
    parsed = parse(arguments)
    choice = Choice(new_seed() if parsed.seed is None else parsed.seed, parsed.test, parsed.solution,
                    parsed.source == "mine", parsed.module, parsed.sanitize, parsed.cc, parsed.backend,
                    parsed.results)
    told: list[str] = []

    def pick(needs: Sequence[str]) -> Backend:
        backend = pick_backend(choice.backend or "auto", needs=tuple(needs))
        if backend.why not in told:
            told.append(backend.why)
            print(backend.why, flush=True)
        return backend

    reports: list[Report] = []
    try:
        for lab in chosen_labs(parsed):
            if not lab.select(choice.wanted):
                print(f"no test of lab {lab.number} is called {choice.wanted}: there are "
                      + " ".join(test.id for test in lab.tests), file=sys.stderr)
                return USAGE
            report = grade(lab, choice, pick)
            reports.append(report)
            save(report)
            if not report.filtered and not report.cannot:
                write_files(report)
            print_report(report)
    except CannotGrade as error:
        print(f"cannot grade: {error}", file=sys.stderr)
        return CANNOT_GRADE
    if parsed.autolab and not choice.wanted:
        print(autolab(reports))
    if any(report.cannot for report in reports):
        return CANNOT_GRADE
    return FULL_SCORE if all(report.score == report.possible for report in reports) else LESS


if __name__ == "__main__":
    sys.exit(main())
