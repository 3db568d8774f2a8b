"""What a command is doing, on standard error: on a terminal a line that is written over, elsewhere one line.

    with Progress("building the guests") as progress:
        progress.step("hello.bin")
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from grader.execution.runs import Result
from grader.execution.tool import in_place
from grader.execution.worker import OnResult

_CLEAR_LINE = "\r\033[K"


class Progress:
    """Nothing is shown before the first step. Other threads are silent: their callers show their own."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._quiet = threading.current_thread() is not threading.main_thread()
        self._live = in_place()
        self._said = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def step(self, detail: str = "") -> None:
        """Something is about to be done; only a terminal shows which detail."""
        if not self._quiet and self._live:
            text = f"{self._what}: {detail}" if detail else self._what
            self._write(text[:shutil.get_terminal_size().columns - 1])
        elif not self._quiet and not self._said:
            print(self._what, file=sys.stderr, flush=True)
        self._said = True

    def clear(self) -> None:
        """Clears the terminal's line, so that other output starts there."""
        if self._said and self._live and not self._quiet:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(_CLEAR_LINE + text)
        sys.stderr.flush()


@contextmanager
def counting(total: int, on_result: OnResult | None) -> Iterator[OnResult | None]:
    """Wraps `on_result`: also counts a grading's results, if standard error is a terminal."""
    if not in_place():
        yield on_result
        return
    done = hung = 0

    def step() -> None:
        progress.step(f"{done} of {total} runs" + (f", {hung} hung: they use up their time" if hung else ""))

    def take(place: int, result: Result) -> None:
        nonlocal done, hung
        done += 1
        hung += result.hung
        step()
        if on_result:
            on_result(place, result)

    with Progress("grading") as progress:
        step()
        yield take
