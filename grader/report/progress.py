"""A learner's progress: build/grade/labN/progress.json keeps the latest verdict on each test of their own
file, with a digest of the graded file. Grading one test updates only its entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.course import BUILD, LABS
from grader.core.framework import Lab, Test
from grader.core.grading import Report
from grader.core.judge import Kind
from grader.report.causes import first_open


def _file(number: int) -> Path:
    return BUILD / "grade" / f"lab{number}" / "progress.json"


def digest(files: Sequence[Path]) -> str:
    """A digest of the files' contents; a missing file counts as empty."""
    found = hashlib.sha256()
    for path in files:
        found.update(path.read_bytes() if path.exists() else b"")
        found.update(b"\0")
    return found.hexdigest()


def record(report: Report) -> None:
    """Keeps a report's verdicts if it is about the learner's own file, graded without special options."""
    choice = report.choice
    if choice.solution or choice.module or choice.folder or choice.sanitize or report.cannot:
        return
    path = _file(report.lab.number)
    known = _read(path) if report.filtered else {}
    source = digest(LABS[report.lab.number].learner_files())
    known.update({v.test.id: {"kind": v.kind.value, "source": source} for v in report.verdicts})
    found = first_open(report.graded)
    if found:
        known[found[0].verdict.test.id]["next"] = found[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


@dataclass(frozen=True)
class Progress:
    """A lab's tests with their latest verdicts."""

    lab: Lab
    kinds: dict[str, Kind]           # by test id; a missing test was never graded
    nexts: dict[str, str]            # tests to work on first, with the exercise to do
    changed: bool                    # the file has changed since some of them were graded

    @property
    def points(self) -> int:
        return sum(test.points for test in self.lab.tests if self.kinds.get(test.id) is Kind.OK)

    def exercise(self, exercise: str) -> str:
        """One word for all tests of the exercise."""
        found = {self.kinds.get(test.id) for test in self.lab.select(exercise)}
        if found == {Kind.OK}:
            return "ok"
        for kind in (Kind.FAILED, Kind.TODO):
            if kind in found:
                return str(kind.value)
        return "-"

    def first_open(self) -> Test | None:
        """The test to work on first, among those that have not passed yet."""
        left = [test for test in self.lab.tests if self.kinds.get(test.id) is not Kind.OK]
        return next((test for test in left if test.id in self.nexts), left[0] if left else None)

    def exercise_of(self, test: Test) -> str:
        """The exercise to do for an open test: its own, or a later one that it depends on."""
        return self.nexts.get(test.id, test.exercise)


def read(lab: Lab) -> Progress:
    """The lab's recorded progress."""
    known = _read(_file(lab.number))
    ids = {test.id for test in lab.tests}
    source = digest(LABS[lab.number].learner_files())
    kinds = {name: Kind(entry["kind"]) for name, entry in known.items()
             if name in ids and entry.get("kind") in list(Kind)}
    nexts = {name: known[name]["next"] for name in kinds if "next" in known[name]}
    return Progress(lab, kinds, nexts, any(known[name].get("source") != source for name in kinds))
