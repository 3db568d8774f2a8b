"""A worker's connection: records over a socket to a runner, on the host or in the lab VM."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from grader.execution.worker import WorkerDied
from grader.execution.runs import Record, Result, Run, decode, encode

# Seconds past a run's own wall-clock limit: to start, kill and report it on a loaded machine.
ANSWER_SLACK = 60.0


class Connection:
    """Records to and from one runner. Both directions raise WorkerDied when it is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = bytearray()

    def send(self, *records: Record) -> None:
        """Send records in one go."""
        try:
            self.socket.sendall(b"".join(b"%s %d\n%s" % (k.encode(), len(v), v) for k, v in records))
        except OSError as error:
            raise WorkerDied(f"the runner is gone: {error}") from error

    def receive(self, timeout: float | None = None) -> Record:
        """The next record. Raises WorkerDied if none arrives within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            record = self._parse()
            if record:
                return record
            self._fill(deadline)

    def arrived(self) -> Iterator[Record]:
        """The records that have arrived already, once the socket is readable."""
        self._fill(None)
        while True:
            record = self._parse()
            if not record:
                return
            yield record

    def _parse(self) -> Record | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            return None
        key, _, length = bytes(self._buffer[:end]).partition(b" ")
        size = int(length)
        if len(self._buffer) < end + 1 + size:
            return None
        data = bytes(self._buffer[end + 1:end + 1 + size])
        del self._buffer[:end + 1 + size]
        return key.decode(), data

    def _fill(self, deadline: float | None) -> None:
        try:
            self.socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(1 << 18)
        except socket.timeout as error:
            raise WorkerDied("the runner did not answer in time") from error
        except OSError as error:
            raise WorkerDied(f"the runner is gone: {error}") from error
        if not data:
            raise WorkerDied("the runner is gone")
        self._buffer += data

    def execute(self, run: Run) -> Result:
        """Send a run and collect its result."""
        self.send(*encode(run), ("go", b""))
        deadline = time.monotonic() + run.limits.wall + ANSWER_SLACK
        records: list[Record] = []
        while not records or records[-1][0] != "result":
            records.append(self.receive(max(0.001, deadline - time.monotonic())))
            if records[-1][0] == "error":
                raise WorkerDied(records[-1][1].decode("utf-8", "replace"))
        return decode(records)

    def close(self) -> None:
        """Close the connection. Safe from another thread: a blocked receive raises WorkerDied."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side closed it first
        self.socket.close()
