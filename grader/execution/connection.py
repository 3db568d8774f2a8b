"""A worker's connection: records over a socket to a runner, on the host or in the lab VM.

What comes from there is not trusted, because a module may have taken over its lab VM. A strange answer counts
like none.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

from grader.execution.worker import WorkerDied
from grader.execution.runs import Record, Result, Run, decode, encode

HEAD_MAX = 64              # bytes of a record's first line
RECORD_MAX = 64 << 20      # bytes of a record's data: files, and the output of a live run, come in pieces
SLACK_BYTES = 4 << 20      # of a run's records past what its limits allow
# Seconds past a run's own wall-clock limit: to start, kill and report it on a loaded machine.
ANSWER_SLACK = 60.0


_HEAD = re.compile(rb"([a-z]{1,20}) ([0-9]{1,9})")


def result_of(records: list[Record]) -> Result:
    """As decode; raises WorkerDied for what a runner never sends."""
    try:
        return decode(records)
    except ValueError as error:
        raise WorkerDied(f"the runner sent a strange result: {error}") from error


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
        end = self._buffer.find(b"\n", 0, HEAD_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_MAX:
                raise WorkerDied("the runner sent a strange record")
            return None
        head = _HEAD.fullmatch(self._buffer, 0, end)
        if not head or int(head[2]) > RECORD_MAX:
            raise WorkerDied("the runner sent a strange record")
        behind = end + 1 + int(head[2])
        if len(self._buffer) < behind:
            return None
        data = bytes(self._buffer[end + 1:behind])
        key = head[1].decode()
        del head         # while it is there, the buffer can't shrink
        del self._buffer[:behind]
        return key, data

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
        room = SLACK_BYTES + run.limits.output + run.limits.file * len(run.outputs)
        records: list[Record] = []
        while not records or records[-1][0] != "result":
            key, data = self.receive(max(0.001, deadline - time.monotonic()))
            if key == "error":
                raise WorkerDied(data.decode("utf-8", "replace"))
            room -= HEAD_MAX + len(data)
            if room < 0:
                raise WorkerDied("the runner sent more than the run's limits allow")
            records.append((key, data))
        return result_of(records)

    def close(self) -> None:
        """Close the connection. Safe from another thread: a blocked receive raises WorkerDied."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side closed it first
        self.socket.close()
