"""Progress of a grading: a temporary line on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from grader.execution.worker import OnResult
from grader.execution.runs import Result
from grader.execution.tool import in_place

CLEAR_LINE = "\r\033[K"


@contextmanager
def counting(total: int, on_result: OnResult | None) -> Iterator[OnResult | None]:
    """Wraps `on_result`: also counts results on standard error, if that is a terminal."""
    if not in_place():
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
        show(f"{done} of {total} runs" + (f", {hung} hung: they use up their time" if hung else ""))
        if on_result:
            on_result(place, result)

    show(f"0 of {total} runs")
    try:
        yield take
    finally:
        show("")
