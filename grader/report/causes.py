"""Groups failures by cause, and finds the exercise to work on first."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grader.core.exercises import handout_title
from grader.core.grading import Graded, path_text
from grader.core.judge import Kind
from grader.core.outcome import Outcome
from grader.course import LABS
from grader.execution.runs import Ending

# The VMM's error message, and the parts of it that differ between guests.
_MESSAGE = re.compile(r"^vmm: (?!vcpu\d is at).*$", re.M)
_PARTICULARS = re.compile(r" \(.*?\)|\b(?:0x[0-9a-f]+|\d+)\b")


def failures(graded: Sequence[Graded]) -> list[list[Graded]]:
    """The failed tests, grouped by cause. Tests of single functions come first, because they name the
    function; among the others deadlocks, because they hide later failures."""
    failed = [one for one in graded if one.verdict.kind is Kind.FAILED]
    causes: dict[str, list[Graded]] = {}
    for one in sorted(failed, key=lambda one: (not _tests_function(one), not _deadlocked(one))):
        causes.setdefault(_cause(one), []).append(one)
    return list(causes.values())


def first_open(graded: Sequence[Graded]) -> tuple[Graded, str] | None:
    """What to work on first: a test, and the exercise. None: all tests passed, or none could be run.

    An exercise whose own functions fail comes before one whose guests fail, because guests may fail because
    of a later exercise. An unwritten exercise comes after failures in earlier exercises.
    """
    waiting = [(one, one.verdict.todo.exercise) for one in graded if one.verdict.todo]
    unwritten = min(waiting, key=lambda pair: pair[1], default=None)
    failed = [(one, one.verdict.test.exercise) for one in graded if one.verdict.kind is Kind.FAILED]
    wrong = [pair for pair in failed if not unwritten or pair[1] < unwritten[1]]
    return min(wrong, key=lambda pair: (not _tests_function(pair[0]), not _deadlocked(pair[0])),
               default=unwritten)


def next_lines(number: int, exercise: str, place: str = "") -> list[str]:
    """The next exercise, in the same words everywhere. `place` is where to write it."""
    lab = LABS[number]
    title = handout_title(lab, exercise)
    return [f"Next: exercise {exercise}{', ' + title if title else ''}",
            *([f"  where   {place}"] if place else []),
            f"  read    {path_text(lab.handout)}, section {exercise}",
            f"  grade   make grade LAB={number} T={exercise}"]


def _deadlocked(graded: Graded) -> bool:
    failed = graded.verdict.failed
    return failed is not None and graded.results[failed].ending is Ending.DEADLOCK


def _tests_function(graded: Graded) -> bool:
    """It failed in a test of single functions, not of a guest."""
    failed = graded.verdict.failed
    return failed is not None and graded.planned[failed].white_box


def _cause(graded: Graded) -> str:
    """A key that is equal for tests that seem to have failed for the same reason."""
    verdict = graded.verdict
    text = verdict.hint or (verdict.mismatch.text if verdict.mismatch else "")
    if verdict.failed is None or _tests_function(graded) or graded.results[verdict.failed].hung:
        return text
    message = _MESSAGE.search(Outcome(graded.results[verdict.failed]).words)
    return _PARTICULARS.sub("", message[0]) if message else text
