"""`python3 -m grader.report.actions LAB`: reports a lab's latest results to a job of GitHub Actions.

The job's summary gets a table with a row for each test; a test that failed becomes an annotation. (GitHub
shows the first ten annotations of a step.) Exit status 0, or 3 if there are no results.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from html import escape
from typing import Any

from grader.core.readable import printable
from grader.course import BUILD, LABS
from grader.execution.tool import run_command

NO_RESULTS = 3


def summary(lab: int, results: Mapping[str, Any]) -> str:
    """The summary, in Markdown."""
    tests = results["tests"]
    possible = sum(test["max_score"] for test in tests)
    rows = [f"| {'✅' if test['status'] == 'passed' else '❌'} | {_cell(test['name'])} "
            f"| {test['score']} of {test['max_score']} | {_cell(first_line(test))} |" for test in tests]
    return "\n".join([f"## Lab {lab}: {results['score']} of {possible}", "", "| | test | points | |",
                      "| --- | --- | --- | --- |", *rows, ""])


def failures(lab: int, results: Mapping[str, Any]) -> list[str]:
    """A workflow command for each test that failed."""
    file = f"labs/{LABS[lab].folder}/{LABS[lab].files[0]}"
    return [f"::error file={_property(file)},title={_property(test['name'])}::{_data(first_line(test))}"
            for test in results["tests"] if test["status"] != "passed"]


def as_text(report: str, environment: Mapping[str, str]) -> str:
    """A report for standard output. A job of GitHub Actions obeys no command in it until the random word."""
    if not environment.get("GITHUB_ACTIONS"):
        return report
    word = secrets.token_hex(16)
    return f"::stop-commands::{word}\n{report}\n::{word}::"


def first_line(test: Mapping[str, Any]) -> str:
    """What a learner should read first about a test: the hint, or else the first line of its output."""
    lines = [line.strip() for line in test["output"].splitlines() if line.strip()]
    return printable(next((line for line in lines if line.startswith("hint: ")), "".join(lines[:1])))


def _cell(text: str) -> str:
    return escape(printable(text)).replace("|", "&#124;").replace("`", "&#96;").replace("[", "&#91;")


def _data(text: str) -> str:
    """Escaped as in GitHub's toolkit: the output of a learner's program must not become a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")


def main() -> int:
    lab = int(sys.argv[1])
    try:
        results = json.loads((BUILD / "grade" / f"lab{lab}" / "results.json").read_text())
    except FileNotFoundError:
        print(f"::error title=lab {lab}::There are no results: this machine could not grade. See the log.")
        return NO_RESULTS
    print("\n".join(failures(lab, results)))
    if "GITHUB_STEP_SUMMARY" in os.environ:
        with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
            file.write(summary(lab, results))
    return 0


if __name__ == "__main__":
    run_command(main)
