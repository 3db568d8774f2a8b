"""`python3 -m grader grade`: grades one lab or all of them.

Exit status: 0 full score; 1 less; 2 usage error; 3 cannot grade on this machine, which is never reported as a
score of 0: what is missing is printed, with its fix.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from grader import labs
from grader.course import LABS
from grader.execution.backends import Picker
from grader.core.blame import blame_lines
from grader.core.building import NO_SANITIZERS, learner_source, use_jail
from grader.core.framework import Lab
from grader.core.grading import Choice, Report
from grader.core.readable import printable
from grader.execution.tool import run_command
from grader.report.recording import grade_and_keep
from grader.report.files import autolab
from grader.report.text import print_report, total_line
from grader.execution.runs import CannotGrade
from grader.core.values import new_seed, new_seed_for_strangers

FULL_SCORE, LESS, USAGE, CANNOT_GRADE = 0, 1, 2, 3


def module_path(text: str) -> Path:
    """The value of MODULE=, which may be a stranger's name. Raises ArgumentTypeError."""
    if printable(text, len(text)) != text:
        raise argparse.ArgumentTypeError("the file's name has characters that can't be seen: rename it")
    return Path(text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Variables of make that it does not pass on (CC=clang) come from the environment."""
    variable = os.environ.get
    parser = argparse.ArgumentParser(prog="grader", description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--lab", type=int, choices=labs.NUMBERS, help="the lab to grade; default: all")
    common.add_argument("--seed", type=int, help="seed of the random values; each grading prints its own")
    common.add_argument("--backend", default="auto", help="auto, kvm or vm: where the VMM runs")

    command = commands.add_parser("grade", parents=[common], help="grade a lab, or all labs")
    command.add_argument("--test", default="", metavar="T", help="an exercise (3.2) or a test's id")
    command.add_argument("--solution", action="store_true", help="grade solutions/ instead of labs/")
    command.add_argument("--from", dest="source", type=learner_source, default="", metavar="mine",
                         help="also take earlier labs' modules from labs/")
    command.add_argument("--module", type=module_path, help="a file to grade instead of the lab's module")
    command.add_argument("--sanitize", default=variable("SANITIZE", ""), help="address,undefined or thread")
    command.add_argument("--cc", default=variable("CC", ""), help="the C compiler")
    command.add_argument("--results", type=Path, help="folder for results; default: build/grade/labN")
    command.add_argument("--encrypted", action="store_true", help="boot encrypted guests")
    command.add_argument("--jailed", action="store_true",
                         help="compile and link in a jail, and run in the lab VM")
    command.add_argument("--live", action="store_true", help="write results.json after each test")
    command.add_argument("--jobs", type=int, default=0, help="number of concurrent runs")
    command.add_argument("--autolab", action="store_true", help="print Autolab's line of scores last")

    parsed = parser.parse_args(arguments)
    if parsed.command == "grade" and parsed.jailed:
        if parsed.backend == "kvm":
            parser.error("another's module runs in the lab VM, never on this machine: leave out BACKEND=kvm")
        if parsed.sanitize:
            parser.error(NO_SANITIZERS)
        parsed.backend = "vm"
    if parsed.seed is None:
        strange = parsed.command == "grade" and parsed.jailed
        parsed.seed = new_seed_for_strangers() if strange else new_seed()
    if parsed.command == "grade" and parsed.lab is None and (parsed.test or parsed.module or parsed.results):
        if not parsed.test[:1].isdigit() or int(parsed.test[0]) not in labs.NUMBERS or parsed.module:
            parser.error("name the lab: --lab N")
        parsed.lab = int(parsed.test[0])
    if parsed.command == "grade" and parsed.module:
        files = LABS[parsed.lab].files
        if len(files) > 1 and parsed.module.name not in files:
            parser.error(f"lab {parsed.lab} has two files: a module's name must be {' or '.join(files)}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the command line; returns the exit status."""
    parsed = parse(arguments)
    if parsed.jailed:
        use_jail()
    pick = Picker(parsed.backend)
    numbers = [parsed.lab] if parsed.lab else labs.NUMBERS
    try:
        return grade_labs([labs.load(number) for number in numbers], parsed, pick)
    except CannotGrade as error:
        print(f"cannot grade: {error}", file=sys.stderr)
        return CANNOT_GRADE


def grade_labs(chosen: Sequence[Lab], parsed: argparse.Namespace, pick: Picker) -> int:
    """Grades and reports the labs one by one; returns the exit status."""
    choice = Choice(parsed.seed, parsed.test, parsed.solution, parsed.source, parsed.module,
                    parsed.sanitize, parsed.cc, parsed.backend, parsed.results,
                    parsed.encrypted, parsed.live, parsed.jobs)
    reports: list[Report] = []
    for lab in chosen:
        if not choice.tests(lab):
            names = " ".join(test.id for test in replace(choice, wanted="").tests(lab))
            file = f"{choice.module.name} of " if choice.module else ""
            print(f"{file}lab {lab.number} has no test {choice.wanted}; its tests: {names}",
                  file=sys.stderr)
            return USAGE
        report = grade_and_keep(lab, choice, pick)
        reports.append(report)
        print_report(report)
        for line in blame_lines(report, pick):
            print(line, flush=True)
    if len(reports) > 1:
        print(total_line(reports))
    if parsed.autolab and not choice.wanted:
        print(autolab(reports))
    if any(report.cannot for report in reports):
        return CANNOT_GRADE
    return FULL_SCORE if all(report.score == report.possible for report in reports) else LESS


if __name__ == "__main__":
    run_command(main)
