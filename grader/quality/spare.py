"""Work beside each other inside a test program, with no more at a time than the suite has places for.

The suite runs as many programs at a time as this machine runs well. Lab VMs in larger numbers only disturb
each other: eight gradings took 27 s on two processors with two at a time, 34 s with all eight. So a program
does one thing after another until fewer programs are left than there are places: then the suite writes a
byte into a pipe for each free place, and who reads one may begin. GNU make's jobserver works like this.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_pipe: tuple[int, int] | None = None   # its two ends; None: the program runs alone, so all places are free


def use(pipe: tuple[int, int]) -> None:
    """Takes places from the suite, from now on."""
    global _pipe
    _pipe = pipe


def take(waiting: deque[Item]) -> Iterator[Item]:
    """Its items, shared among all threads that take them."""
    with contextlib.suppress(IndexError):
        while True:
            yield waiting.popleft()


def each(function: Callable[[Item], Made], items: Sequence[Item], at_once: int) -> list[Made]:
    """The function's results for all items, in their order; raises what it raised first."""
    futures: list[Future[Made]] = [Future() for _ in items]
    waiting = deque(zip(futures, items))

    def work() -> None:
        for future, item in take(waiting):
            try:
                future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)

    def help_out() -> None:
        if _pipe:
            os.read(_pipe[0], 1)
        work()
        if _pipe:
            os.write(_pipe[1], b".")

    # A thread that waits for a place does not keep the program from ending.
    for _ in range(min(at_once, len(items)) - 1):
        threading.Thread(target=help_out, daemon=True).start()
    work()
    return [future.result() for future in futures]
