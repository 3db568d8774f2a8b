"""The interface of a back end, and the part that both have: handing runs to workers.

A worker is a connection to one runner: a subprocess on the host, or a lab VM. Workers take runs from one
queue, one at a time; a worker that dies is replaced, and the run under which it died is tried once more by
itself before that is said of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from grader.execution.runs import Ending, Result, Run

OnResult = Callable[[int, Result], None]


class Backend(Protocol):
    """A place where runs happen."""

    name: str        # "kvm" or "vm"
    why: str         # one line: why this one was chosen

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None) -> list[Result]:
        """Execute all runs, `jobs` at a time; results in the order of runs.

        `on_result(index, result)` is called as each ends, by one thread at a time.
        Raises CannotGrade where the machine is at fault.
        """

    def works_still(self) -> bool:
        """Whether it does what it was picked for: the host's KVM may have gone since it was probed."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command line on the host that runs argv there, for a person or pexpect to drive."""


class WorkerDied(Exception):
    """The worker was lost under a run; the text says how."""


class Worker(Protocol):
    """A connection to a runner."""

    def execute(self, run: Run) -> Result:
        """Execute one run. Raises WorkerDied if the runner is lost."""

    def close(self) -> None:
        """End the runner and all that belongs to it. May come twice, and from another thread."""


# Starts a worker; True says that the last one died, whatever it was started from.
StartWorker = Callable[[bool], Worker]


def run_all(start_worker: StartWorker, runs: Sequence[Run], jobs: int,
            on_result: OnResult | None) -> list[Result]:
    """Hand the runs to `jobs` workers and collect their results in order."""
    pool = _Pool(start_worker, runs, on_result)
    threads = [threading.Thread(target=pool.serve, daemon=True) for _ in range(min(jobs, len(runs)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C: end what was started before saying so
        pool.give_up(error)
        for thread in threads:
            thread.join()
    if pool.failure:
        raise pool.failure
    return [pool.results[index] for index in range(len(runs))]


class _Pool:
    """Runs waiting, workers at work, results so far; shared by the threads of one run_all."""

    def __init__(self, start_worker: StartWorker, runs: Sequence[Run],
                 on_result: OnResult | None) -> None:
        self._start_worker = start_worker
        self._runs = runs
        self._on_result = on_result
        self._waiting = iter(range(len(runs)))
        self._lock = threading.RLock()
        self._workers: list[Worker] = []
        self.results: dict[int, Result] = {}
        self.failure: BaseException | None = None

    def give_up(self, failure: BaseException) -> None:
        """Stop: threads that wait for a worker find it dead."""
        with self._lock:
            self.failure = self.failure or failure
            for worker in self._workers:
                worker.close()

    def serve(self) -> None:
        """A thread's work: take a run, execute it, until none is left."""
        worker: Worker | None = None
        try:
            for index in iter(self._next, None):
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

    def _start(self, after_death: bool) -> Worker:
        worker = self._start_worker(after_death)
        with self._lock:
            self._workers.append(worker)
            if self.failure:
                worker.close()
        return worker

    def _execute(self, worker: Worker | None, run: Run) -> tuple[Worker, Result]:
        """One run, on this worker or a new one; a second death in a row is the run's own result."""
        deaths: list[str] = []
        while len(deaths) < 2 and not self.failure:
            worker = worker or self._start(bool(deaths))
            try:
                return worker, worker.execute(run)
            except WorkerDied as death:
                deaths.append(str(death))
                worker.close()
                worker = None
        return self._start(False), Result(Ending.MACHINE, diagnosis="\n".join(deaths))
