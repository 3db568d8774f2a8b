"""A lab VM as a worker: it receives the files that a run needs, then the run."""

from __future__ import annotations

import os
import socket

from grader.execution.labvm import snapshot
from grader.execution.labvm.pack import files_needed
from grader.execution.runs import CannotGrade, Record, Result, Run
from grader.execution.worker import WorkerDied


class VmWorker:
    """A lab VM, restored for this worker; it records which files it has already."""

    def __init__(self, debugger: socket.socket | None = None) -> None:
        self._machine = snapshot.start(debugger)
        self._sent: set[tuple[str, int, int]] = set()
        self.used = 0.0
        self.channel = self._machine.channel

    def send_files(self, run: Run) -> None:
        """Send the files that the run needs and the VM lacks."""
        for path in files_needed(run):
            try:
                status = os.stat(path)
                mark = (path, status.st_size, status.st_mtime_ns)
                if mark not in self._sent:
                    self.channel.send(_unpack_record(path, status.st_mode))
                    self._sent.add(mark)
            except OSError as error:
                raise CannotGrade(f"can't read {path} for the lab VM: {error.strerror}",
                                  "make it readable to you") from error

    def execute(self, run: Run) -> Result:
        """Execute one run. WorkerDied includes the console's last lines."""
        began = self._machine.own_time()
        try:
            self.send_files(run)
            return self.channel.execute(run)
        except WorkerDied as death:
            raise WorkerDied("\n".join([str(death), *self._machine.last_messages(12)])) from death
        finally:
            self.used += self._machine.own_time() - began

    def close(self) -> None:
        """End the VM."""
        self._machine.close()


def _unpack_record(path: str, mode: int) -> Record:
    head = b"%o %s\0" % (mode & 0o777, os.fsencode(path))
    if path.endswith("/"):
        return "unpack", head
    with open(path, "rb") as file:
        return "unpack", head + file.read()
