"""The vm back end: runs in the lab VM, on the runner inside."""

from __future__ import annotations

import os
import sys
from typing import List, Optional, Sequence, Set, Tuple

from grader.backends.base import OnResult, Worker, WorkerDied, run_all
from grader.labvm import snapshot
from grader.labvm.pack import files_needed
from grader.runs import CannotGrade, Record, Result, Run


class VmWorker:
    """A lab VM, restored for this worker. It knows which files it was sent already."""

    def __init__(self, fresh: bool = False) -> None:
        self._machine = snapshot.start(fresh)
        self._sent: Set[Tuple[str, int, int]] = set()
        self.channel = self._machine.channel

    def send_files(self, run: Run) -> None:
        """Send what the run needs and is not there yet."""
        for path in files_needed(run):
            try:
                status = os.stat(path)
                mark = (path, status.st_size, status.st_mtime_ns)
                if mark not in self._sent:
                    self.channel.send(_unpack_record(path, status.st_mode))
                    self._sent.add(mark)
            except OSError as error:
                raise CannotGrade(f"can't read {path} for the lab VM: {error.strerror}",
                                  "make it readable for you") from error

    def execute(self, run: Run) -> Result:
        """Execute one run. WorkerDied carries the console's last words."""
        try:
            self.send_files(run)
            return self.channel.execute(run)
        except WorkerDied as death:
            raise WorkerDied("\n".join([str(death), *self._machine.console()[-12:]])) from death

    def close(self) -> None:
        """End the VM."""
        self._machine.close()


def _unpack_record(path: str, mode: int) -> Record:
    head = b"%o %s\0" % (mode & 0o777, os.fsencode(path))
    if path.endswith("/"):
        return "unpack", head
    with open(path, "rb") as file:
        return "unpack", head + file.read()


class VmBackend:
    """The lab VM."""

    name = "vm"

    def __init__(self, why: str = "") -> None:
        self.why = why

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: Optional[OnResult] = None) -> List[Result]:
        """As Backend.run. Each of the jobs has a VM of its own."""
        def start(fresh: bool) -> Worker:
            return VmWorker(fresh)
        return run_all(start, runs, jobs, on_result)

    def command(self, argv: Sequence[str]) -> List[str]:
        """As Backend.command: our own module, which starts a VM for it."""
        return [sys.executable, "-m", "grader.labvm", "run", "--", *argv]
