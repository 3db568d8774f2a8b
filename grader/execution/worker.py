"""The interface of a back end, and what both share: distributing runs to workers.

A worker is a connection to one runner: a subprocess on the host, or a lab VM. Workers take runs from one
queue, one at a time; several workers take those with the longest time limit first, so that none works at the
end while all others have nothing to do. A worker that crashes is replaced, and its run is repeated once
before the run is reported as the cause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from grader.execution.budget import Account
from grader.execution.runs import Ending, Result, Run

OnResult = Callable[[int, Result], None]


class Backend(Protocol):
    """A place to execute runs."""

    name: str        # "kvm" or "vm"
    why: str         # one line: the reason for this choice

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        """Executes all runs, `jobs` at a time, and returns the results in the same order.

        `on_result(index, result)` is called as each run ends, by one thread at a time. Runs are charged to
        the account; once it is used up, the others end with BUDGET.
        Raises CannotGrade if the machine is at fault.
        """

    def works_still(self) -> bool:
        """Whether it still supports what it was picked for: the host's KVM may be gone since the probe."""

    def command(self, argv: Sequence[str], output: str = "") -> list[str]:
        """A command line for the host that runs argv there, for a person or for pexpect. `output`: a file
        that an argument names and that the program writes; it is there at the end, however the program ends.
        SIGALRM ends the program like SIGKILL."""

    def debug_command(self, argv: Sequence[str], socket_path: str) -> list[str]:
        """As `command`, for a VMM that waits until gdb connects to this Unix socket."""


class WorkerDied(Exception):
    """The worker was lost during a run; the text says how."""


class Worker(Protocol):
    """A connection to a runner."""

    used: float      # seconds of its runs so far, as an account counts them

    def execute(self, run: Run) -> Result:
        """Execute one run. Raises WorkerDied if the runner is lost."""

    def close(self) -> None:
        """End the runner and everything that belongs to it. May be called twice, from any thread."""


StartWorker = Callable[[], Worker]


def run_all(start_worker: StartWorker, runs: Sequence[Run], jobs: int, on_result: OnResult | None,
            account: Account | None = None) -> list[Result]:
    """Distribute the runs to `jobs` workers and collect the results in order."""
    pool = _Pool(start_worker, runs, _order(runs, jobs), on_result, account)
    threads = [threading.Thread(target=pool.serve, daemon=True) for _ in range(min(jobs, len(runs)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C: end the workers first
        pool.give_up(error)
        for thread in threads:
            thread.join()
    if pool.failure:
        raise pool.failure
    return [pool.results[index] for index in range(len(runs))]


def _order(runs: Sequence[Run], jobs: int) -> list[int]:
    """The order in which the runs are taken."""
    places = list(range(len(runs)))
    return sorted(places, key=lambda place: -runs[place].limits.wall) if jobs > 1 else places


class _Pool:
    """Waiting runs, active workers and results so far, shared by the threads of one run_all."""

    def __init__(self, start_worker: StartWorker, runs: Sequence[Run], order: Sequence[int],
                 on_result: OnResult | None, account: Account | None) -> None:
        self._start_worker = start_worker
        self._runs = runs
        self._on_result = on_result
        self._account = account
        self._waiting = iter(order)
        self._lock = threading.RLock()
        self._workers: list[Worker] = []
        self.results: dict[int, Result] = {}
        self.failure: BaseException | None = None

    def give_up(self, failure: BaseException) -> None:
        """Stop: closes all workers, so that no thread waits for one."""
        with self._lock:
            self.failure = self.failure or failure
            for worker in self._workers:
                worker.close()

    def serve(self) -> None:
        """A thread's loop: executes runs until none is left."""
        worker: Worker | None = None
        try:
            for index in iter(self._next, None):
                if self._account and self._account.is_used_up():
                    result = Result(Ending.BUDGET)
                else:
                    worker, result = self._execute(worker, self._runs[index])
                with self._lock:
                    self.results[index] = result
                    if self._on_result:
                        self._on_result(index, result)
        except BaseException as error:  # raised again by run_all, in the caller's thread
            self.give_up(error)
        finally:
            if worker:
                worker.close()

    def _next(self) -> int | None:
        with self._lock:
            return None if self.failure else next(self._waiting, None)

    def _start(self) -> Worker:
        worker = self._start_worker()
        with self._lock:
            self._workers.append(worker)
            if self.failure:
                worker.close()
        return worker

    def _execute(self, worker: Worker | None, run: Run) -> tuple[Worker, Result]:
        """One run, on this worker or a new one; a second crash in a row becomes the run's result."""
        crashes: list[str] = []
        while len(crashes) < 2 and not self.failure:
            worker = worker or self._start()
            before, active = worker.used, worker
            try:
                return worker, worker.execute(run)
            except WorkerDied as crash:
                crashes.append(str(crash))
                worker.close()
                worker = None
            finally:
                if self._account:
                    self._account.charge(active.used - before)
        return self._start(), Result(Ending.MACHINE, diagnosis="\n".join(crashes))
