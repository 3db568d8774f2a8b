"""How far a grading is: a line on a person's terminal that goes away again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from grader.execution.worker import OnResult
from grader.execution.runs import Result

CLEAR_LINE = "\r\033[K"


@contextmanager
def counting(total: int, on_result: OnResult | None) -> Iterator[OnResult | None]:
    """What to call with each result: it counts on standard error, if that is a terminal, and passes it on."""
    if not sys.stderr.isatty():
        yield on_result
        return
    done = hung = 0

    def show(text: str) -> None:
        sys.stderr.write(CLEAR_LINE + text)
        sys.stderr.flush()

    def take(place: int, result: Result) -> None:
        nonlocal done, hung
        done += 1
        hung += result.hung
        show(f"{done} of {total} runs" + (f", {hung} hung: each of these takes its time" if hung else ""))
        if on_result:
            on_result(place, result)

    show(f"0 of {total} runs")
    try:
        yield take
    finally:
        show("")
