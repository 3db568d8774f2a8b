"""An interactive command in the lab VM, driven by a person or a program.

Input, output and signals are passed on as they occur, like ssh: a descriptor that is a terminal here is a
terminal there, a pipe is a pipe, and stdout and stderr stay separate.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from dataclasses import replace

from grader.execution.connection import result_of
from grader.execution.worker import WorkerDied
from grader.execution.labvm.machine import DEBUGGER_PORT
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import (CannotGrade, Ending, Limits, Record, Result, Run, Terminal, encode,
                                   file_part)

CHUNK = 1 << 16
PORT_FD = 63          # as in runner/job.h
KILL = signal.SIGALRM  # stands for SIGKILL, which can't be caught and passed on
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
             signal.SIGUSR2, KILL)
UNLIMITED = Limits(wall=0, no_output=0, deadlock=0, spin=0, output=0, memory=0, processes=0, file=0)
OUTPUT_MAX = 64 << 20  # bytes of a file that the command writes


def _terminals() -> str:
    """Which of our descriptors 0, 1 and 2 are terminals."""
    return "".join(str(fd) for fd in range(3) if os.isatty(fd))


def _window_size() -> bytes:
    """Rows and columns of our terminal."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
            return b"%d %d" % (rows, columns)
    return b"24 80"


@contextlib.contextmanager
def _raw_terminal(fds: str) -> Iterator[None]:
    """Our terminal passes on every byte; the one in the VM handles line editing, echo and Ctrl-C."""
    if "0" not in fds:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[int]:
    """A descriptor from which each signal to forward can be read as one byte."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    numbers = (*FORWARDED, signal.SIGWINCH)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in numbers}
    signal.set_wakeup_fd(writing)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


class _Session:
    """One command in the VM, from its start to its result."""

    def __init__(self, worker: VmWorker, signals: int) -> None:
        self._channel = worker.channel
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel.socket, selectors.EVENT_READ, self._from_vm)
        self._selector.register(signals, selectors.EVENT_READ, self._from_signals)
        self._listen()
        self._result: Result | None = None
        self._files: list[Record] = []

    def run(self) -> Result:
        """Pass everything on until the command ends."""
        while self._result is None:
            for key, _ in self._selector.select():
                key.data()
        return self._result

    def _listen(self) -> None:
        """Wait for input once. The next read follows when the VM has accepted this input."""
        try:
            self._selector.register(0, selectors.EVENT_READ, self._from_input)
        except PermissionError:  # epoll does not accept regular files: they are always readable
            self._from_input()

    def _from_input(self) -> None:
        try:
            data = os.read(0, CHUNK)
        except OSError:
            data = b""  # the terminal is gone
        with contextlib.suppress(KeyError):
            self._selector.unregister(0)
        self._channel.send(("send", data) if data else ("close", b""))

    def _from_signals(self) -> None:
        for number in os.read(self._signals, 64):
            if number == signal.SIGWINCH:
                self._channel.send(("resize", _window_size()))
            else:
                sent = signal.SIGKILL if number == KILL else number
                self._channel.send(("signal", str(int(sent)).encode()))

    def _from_vm(self) -> None:
        for key, data in self._channel.arrived():
            if key == "taken":
                self._listen()
            elif key == "file":
                self._files.append((key, data))
            elif key in ("stdout", "stderr"):
                self._print(1 if key == "stdout" else 2, data)
            elif key == "result":
                self._result = result_of([*self._files, (key, data)])

    def _print(self, fd: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(fd, data):]
        except OSError:  # the reader is gone
            self._channel.send(("shut", str(fd).encode()))


def listen_on(path: str) -> socket.socket:
    """A Unix socket, which gets its name once it listens."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.new")
        listener.bind(f"{path}.new")
        listener.listen(1)
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise CannotGrade(f"can't wait for a debugger at {path}: {error.strerror or error}",
                          "work in a folder with a shorter name") from error
    return listener


def _live_run(argv: Sequence[str], output: str) -> Run:
    """The run that argv asks for. Only the scratch folder can be written there, so a command with a file as
    output works in that folder, with the file's name and the full paths of all others."""
    fds = _terminals()
    rows, columns = map(int, _window_size().split())
    terminal = Terminal(rows, columns, fds) if fds else None
    if not output:
        return Run(tuple(argv), env=dict(os.environ), cwd=os.getcwd(), limits=UNLIMITED, terminal=terminal)
    name = os.path.basename(output)

    def moved(argument: str) -> str:
        part = file_part(argument)
        option = argument[:len(argument) - len(part)]
        if part == output:
            return option + name
        return option + os.path.abspath(part) if part and os.path.exists(part) else argument

    return Run((argv[0], *map(moved, argv[1:])), env=dict(os.environ), outputs=(name,), terminal=terminal,
               limits=replace(UNLIMITED, file=OUTPUT_MAX))


def run_live(argv: Sequence[str], output: str = "", debugger: str = "") -> Result:
    """Run argv in the lab VM with our own stdin, stdout and stderr. `output`: a file that an argument names
    and that the command writes; it is written here once the command has ended in any way. `debugger`: a Unix
    socket to create; who connects to it is connected with the command's descriptor PORT_FD."""
    run = _live_run(argv, output)
    worker = VmWorker(debugger=listen_on(debugger) if debugger else None)
    try:
        worker.send_files(run)
        port = [("port", DEBUGGER_PORT.encode())] if debugger else []
        records: list[Record] = [*encode(run), ("live", b""), *port, ("go", b"")]
        with _raw_terminal(run.terminal.fds if run.terminal else ""), _signals_as_bytes() as signals:
            worker.channel.send(*records)
            result = _Session(worker, signals).run()
        for content in result.files.values():
            with open(output, "wb") as file:
                file.write(content)
        return result
    except WorkerDied as death:
        raise CannotGrade(f"the lab VM ended: {death}",
                          "try again; if it persists, run `make doctor`") from death
    finally:
        worker.close()


def end_alike(result: Result) -> None:
    """End this process like the command: with its status, or by its signal."""
    sys.stdout.flush()
    if result.ending is Ending.SIGNAL:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if result.code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(result.code, signal.SIG_DFL)
        os.kill(os.getpid(), result.code)
    if result.ending is Ending.NOT_STARTED:
        print(f"lab VM: {result}", file=sys.stderr)
        raise SystemExit(126)
    raise SystemExit(result.code)
