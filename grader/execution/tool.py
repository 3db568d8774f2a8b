"""Common to all commands of the kit: output, colours and exit status.

    if __name__ == "__main__":
        run_command(main)

Output is UTF-8. If the reader is gone, the command ends silently, as by SIGPIPE. Output that can't be
written, or a machine that can't do what is asked, is reported as a one-line error. A lasting command
continues without its output and reports the error at the end.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO, Union

from grader.execution import place
from grader.execution.runs import CannotGrade

CANNOT, OUTPUT_FAILED = 3, 74     # 74: EX_IOERR of sysexits.h, as in the VMM


class OutputFailed(Exception):
    """Standard output can't be written. Not an OSError: that means files that a command reads and writes."""


class _Output(io.FileIO):
    """A descriptor that keeps its first error, raises it if `raising`, and drops all later output."""

    def __init__(self, fd: int, raising: bool) -> None:
        super().__init__(fd, "wb", closefd=False)
        self.failure: OSError | None = None
        self._raising = raising

    def write(self, data: object) -> int:
        if self.failure is None:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.failure = error
                if self._raising:
                    raise OutputFailed(str(error)) from error
        return memoryview(data).nbytes  # type: ignore[arg-type]


def _escape(error: UnicodeError) -> tuple[Union[str, bytes], int]:
    """Bytes of a name that is not UTF-8 are printed unchanged; anything else is escaped."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("kit", _escape)


def _text_output(fd: int, raising: bool) -> tuple[TextIO, _Output]:
    raw = _Output(fd, raising)
    text = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="kit",
                            line_buffering=raw.isatty() or fd == 2)
    return text, raw


def _open_standard_descriptors() -> None:
    """The next file to be opened would get a closed descriptor's number; /dev/null takes its place."""
    for fd, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", flags)


def in_place() -> bool:
    """Whether a line on standard error may be written over: a terminal that knows how."""
    return os.environ.get("TERM") != "dumb" and sys.stderr.isatty()


def on_terminal() -> bool:
    """Whether standard output is a terminal that understands escape sequences."""
    return os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def in_colour() -> bool:
    """For all commands: NO_COLOR (no-color.org) decides, then TERM=dumb, then whether it is a terminal."""
    return not os.environ.get("NO_COLOR") and on_terminal()


def run_command(main: Callable[[], int | None], lasting: bool = False) -> NoReturn:
    """Run a command and exit with its status."""
    _open_standard_descriptors()
    sys.stdout, output = _text_output(1, not lasting)
    sys.stderr, _ = _text_output(2, False)
    try:
        status = _status(main)
        failure = output.failure
    except OutputFailed:
        status, failure = OUTPUT_FAILED, output.failure
    if failure and failure.errno == errno.EPIPE and not lasting:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    if failure and failure.errno != errno.EPIPE:
        print(f"can't write standard output: {failure.strerror}", file=sys.stderr)
        status = status or OUTPUT_FAILED
    sys.exit(status)


def _status(main: Callable[[], int | None]) -> int:
    """The status that main returns or that its exception means; its output is flushed."""
    try:
        return main() or 0
    except CannotGrade as error:
        print(error, file=sys.stderr)
        return CANNOT
    except OSError as error:
        cause = place.cause(error)
        if cause is None:
            raise
        print(cause, file=sys.stderr)
        return CANNOT
    finally:
        sys.stdout.flush()
