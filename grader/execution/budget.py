"""The time budget of a submission: all of its runs together. Each run has limits of its own, but a program
that uses them up in every run would delay the class.

What counts is the time of the lab VM without its waits for a processor (Machine.own_time), so a loaded
machine does not use up a budget. A slow one does, but there the solution takes longer as well, and the budget
is a multiple of its time. The solution is measured only when a submission has used more than FREE_SECONDS.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

FREE_SECONDS = 180.0     # the solution of a lab takes 5 to 20 on a laptop
FACTOR = 10.0            # of the solution's time


class Account:
    """What runs have used together. Several workers may share it."""

    def __init__(self) -> None:
        self.used = 0.0
        self._lock = threading.Lock()

    def charge(self, seconds: float) -> None:
        """Add what a run has used."""
        with self._lock:
            self.used += seconds

    def is_used_up(self) -> bool:
        """Whether nothing may run any more."""
        return False


class Budget(Account):
    """What the runs of one submission may use."""

    def __init__(self, measure_solution: Callable[[], float]) -> None:
        """`measure_solution` executes the same runs with the solution, and returns the seconds used."""
        super().__init__()
        self._measure_solution = measure_solution
        self._limit: float | None = None

    def is_used_up(self) -> bool:
        """As Account.is_used_up. Once it may take as long as the solution does."""
        with self._lock:
            if self.used <= FREE_SECONDS:
                return False
            if self._limit is None:
                self._limit = max(FREE_SECONDS, FACTOR * self._measure_solution())
            return self.used > self._limit
