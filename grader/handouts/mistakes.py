"""Common mistakes: what the wrong modules in the labs' mutants/ do, and which tests find it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from grader import labs
from grader.course import LABS


@dataclass(frozen=True)
class Mistake:
    """A wrong module: what it does, and the exercises and tests that find it."""

    exercises: str
    tests: str
    what: str


def mistakes(lab: int) -> list[Mistake]:
    """The mistakes in a lab's mutants, in the order of its exercises."""
    found = []
    for path in sorted((LABS[lab].grading / "mutants").glob("*.patch")):
        fields = dict(re.findall(r"^# (what|fails): (.+)$", path.read_text(), re.M))
        tests = [test for name in fields.get("fails", "").split() for test in labs.load(lab).select(name)]
        if tests:
            exercises = sorted({test.exercise for test in tests})
            titles = list(dict.fromkeys(test.title for test in tests))
            shown = "; ".join(titles[:2]) + (f"; and {len(titles) - 2} more" if len(titles) > 2 else "")
            found.append(Mistake(", ".join(exercises), shown, fields["what"]))
    return sorted(found, key=lambda mistake: mistake.exercises)
