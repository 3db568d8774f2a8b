"""Correct modules in other styles than the solution's, one per patch in a lab's alternatives/. Each must get
the full score: a test that fails one demands more than the exercise does.
"""

from __future__ import annotations

from collections.abc import Mapping

from grader.core.grading import Report
from grader.core.judge import Kind


def complaints(_: Mapping[str, str], report: Report) -> list[str]:
    """Everything that cost it a point."""
    if report.build_error:
        return [f"it does not compile:\n{report.build_error}"]
    return [f"{v.test.id} is {v.kind.value}: {v.text}"
            for v in report.verdicts if v.kind is not Kind.OK]
