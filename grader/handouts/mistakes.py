"""Common mistakes of learners: what the wrong modules of the labs' mutants/ do, and which tests see it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from grader import labs
from grader.course import LABS


@dataclass(frozen=True)
class Mistake:
    """A wrong module: the exercises whose tests find it, what these tests ask, and what it does."""

    exercises: str
    tests: str
    what: str


def mistakes(lab: int) -> list[Mistake]:
    """The mistakes of a lab that the mutants make, in the order of its exercises."""
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
