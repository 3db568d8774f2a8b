"""Grades the one submission in an autograder's container: read as for a class, graded in the lab VM.

    python3 -m grader.classroom.adapters.submission --lab 3 --submission PLACE --results FOLDER [--autolab]

PLACE is the file or the folder that was submitted. FOLDER/results.json grows with each test, in Gradescope's
format, and is there from the beginning, so that a container that runs out of time still has results.
With --autolab the last line printed is Autolab's JSON; --classroom50 writes Classroom 50's result.json.

Exit status: 0 graded, whatever the score, or refused: the learner reads why, with a score of 0; 3 this
machine could not grade: there is no results.json then, and no line of scores. Any other status is a fault of
the grader, and what it wrote counts for nothing.

Where the container forbids namespaces, as unprivileged ones do, the lab VM is the compiler's jail
(grader/execution/jail.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader import labs
from grader.classroom.grade_one import Processes, Settings, grade_one
from grader.classroom.claims import Claims
from grader.classroom.record import GRADED, MACHINE, REFUSED, Record, TestScore
from grader.classroom.submissions import Submission
from grader.classroom.tree import Tree
from grader.course import LABS
from grader.core.readable import printable
from grader.core.values import new_seed_for_strangers
from grader.core.whole_file import write_whole
from grader.execution.tool import run_command
from grader.report.actions import as_text

CANNOT_GRADE = 3
OUTPUT_MAX = 2000      # characters about one test


def write(path: Path, results: dict[str, object]) -> None:
    """results.json, whole at any moment."""
    write_whole(path, json.dumps(results, indent=2) + "\n")


def without_runs(lab: int, why: str) -> dict[str, object]:
    """results.json of what was not run: all tests failed, with the reason on top."""
    return {
        "score": 0, "output": why, "output_format": "text", "visibility": "visible",
        "tests": [{"number": test.exercise, "name": f"{test.id}: {test.title}", "score": 0,
                   "max_score": test.points, "status": "failed", "output": "", "visibility": "visible"}
                  for test in labs.load(lab).tests],
    }


def grade(lab: int, place: Path, results: Path) -> Record:
    """Grades it; results.json is then complete."""
    write(results / "results.json", without_runs(lab, "The grading was cut short before a test had ended."))
    with tempfile.TemporaryDirectory(prefix="mini-kvm-") as name:
        settings = Settings(LABS[lab], new_seed_for_strangers(), Path(name) / "reports", results)
        submission = Submission("submission", place)
        record = grade_one(settings, submission, Tree(Claims(Path(name) / "trees"), LABS[lab]), Processes())
        if record.status != MACHINE:
            report = (settings.folder(submission) / "report.txt").read_text(errors="replace")
            print(as_text(report, os.environ), flush=True)
            if record.status == REFUSED or record.reason:
                write(results / "results.json", without_runs(lab, report))
    return record


def autolab_line(lab: int, tests: list[TestScore]) -> str:
    """Autolab's last line: the problem is called after the lab."""
    return json.dumps({"scores": {f"lab{lab}": sum(test.score for test in tests)}})


def classroom50(results: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Classroom 50's result.json from results.json; its runner adds owner and kind of assignment."""
    tests = [{"test-name": test["name"], "passed": test["score"] == test["max_score"],
              "score": int(test["score"]), "max-score": int(test["max_score"]),
              "output": test["output"][:OUTPUT_MAX]} for test in results["tests"]]
    return {
        "schema": "classroom50/result/v1",
        "classroom": environment["CLASSROOM"],
        "assignment": environment["ASSIGNMENT"],
        "submission": environment["SUBMISSION_TAG"],
        "commit": environment["COMMIT_URL"],
        "release": environment["RELEASE_URL"],
        "review": environment.get("REVIEW_URL") or environment["COMMIT_URL"],
        "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "score": sum(test["score"] for test in tests),
        "max-score": sum(test["max-score"] for test in tests),
        "tests": tests,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="submission", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=LABS, required=True)
    parser.add_argument("--submission", type=Path, required=True, help="the file or folder submitted")
    parser.add_argument("--results", type=Path, required=True,
                        help="folder for results.json; what is in it is removed")
    parser.add_argument("--autolab", action="store_true", help="end with Autolab's line of scores")
    parser.add_argument("--classroom50", type=Path, metavar="FILE", help="write Classroom 50's result.json")
    arguments = parser.parse_args()
    record = grade(arguments.lab, arguments.submission.absolute(), arguments.results.absolute())
    if record.status not in (GRADED, REFUSED):
        (arguments.results / "results.json").unlink(missing_ok=True)
        print(f"This submission {printable(record.reason, 2000)}", file=sys.stderr)
        return CANNOT_GRADE
    if arguments.classroom50:
        results = json.loads((arguments.results / "results.json").read_text())
        write(arguments.classroom50, classroom50(results, os.environ))
    if arguments.autolab:
        print(autolab_line(arguments.lab, record.tests), flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
