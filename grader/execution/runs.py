"""What a run of a program is, and what came of it: the words every back end speaks.

A back end takes `Run`s and gives `Result`s. The same runner program (grader/execution/runner/) executes them
on the host and inside the lab VM, so a limit or a step means the same on both.

    Run(("build/vmm/lab2/vmm", "build/guests/echo.bin"), stdin=b"abc")
    Run((vmm, guest), steps=(Step(after=b"ready\\n", send=b"x"), Step(after=b"got x", signal=SIGTERM)))

On the wire (a pipe, a socket, a virtio port) everything is a record: a line "KEY LENGTH\\n" and LENGTH bytes.
"""

from __future__ import annotations

import enum
import os
import shutil
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass, field

Record = tuple[str, bytes]

MIB = 1024 * 1024


class CannotGrade(Exception):
    """The machine is at fault, never the learner: `reason` says what is missing, `fix` what to do."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}\n  fix: {fix}")
        self.reason = reason
        self.fix = fix


class Ending(str, enum.Enum):
    """How a run ended. All but EXIT and SIGNAL mean that the runner killed it, or that it never ran."""

    EXIT = "exit"                # code is the exit status
    SIGNAL = "signal"            # code is the signal's number; SIGXFSZ is the file size limit
    WALL = "wall"                # still running after limits.wall seconds
    QUIET = "quiet"              # no byte printed and no step taken for limits.quiet seconds
    STILL = "still"              # none of its threads ran at all for limits.still seconds
    SPIN = "spin"                # limits.spin seconds of processor time, and no byte printed, no step taken
    OUTPUT = "output"            # printed more than limits.output bytes
    MEMORY = "memory"            # used more than limits.memory bytes
    PROCESSES = "processes"      # had more than limits.processes processes
    NOT_STARTED = "not-started"  # the program could not be executed: code is errno
    ESCAPED = "escaped"          # it killed its own supervisor: possible only where namespaces are forbidden
    MACHINE = "machine"          # the lab VM died under it, twice


@dataclass(frozen=True)
class Limits:
    """What a run may use. Time is generous: machines of learners and CI are loaded."""

    wall: float = 30.0            # seconds
    quiet: float = 15.0           # seconds without any output, step or end: no progress
    still: float = 3.0            # seconds, 0 for no limit: all threads sleep, and nothing wakes any of them
    spin: float = 4.0             # seconds of processor time without any output or step
    output: int = 1 * MIB         # bytes, stdout and stderr together
    memory: int = 512 * MIB       # bytes resident, all processes together
    processes: int = 32
    file: int = 16 * MIB          # bytes in one file, and in the whole scratch folder


@dataclass(frozen=True)
class Step:
    """One action of the person at the keyboard, taken when the program has printed `after`.

    Steps are taken in order. `after` is looked for behind the place where the step before found
    its own; empty means: at once. Exactly one action is given.
    """

    after: bytes = b""
    stream: str = "stdout"                       # where `after` appears: "stdout" or "stderr"
    send: bytes = b""                            # bytes for stdin; b"\x03" is Ctrl-C in terminal mode
    close: bool = False                          # end of input (terminal mode: the EOF character)
    signal: int = 0                              # a signal for the program
    resize: tuple[int, int] | None = None     # new rows, columns of the terminal

    def __post_init__(self) -> None:
        if sum((bool(self.send), self.close, bool(self.signal), self.resize is not None)) != 1:
            raise ValueError("a step has exactly one action: send, close, signal or resize")
        if self.stream not in ("stdout", "stderr"):
            raise ValueError(f"a step waits on stdout or stderr, not on {self.stream!r}")


@dataclass(frozen=True)
class Terminal:
    """A terminal of this size; `fds` names the descriptors that are on it ("012": stderr too)."""

    rows: int = 24
    columns: int = 80
    fds: str = "01"


def plain_environment() -> dict[str, str]:
    """The environment of a graded run: the same on every machine."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TERM": "dumb"}


@dataclass(frozen=True)
class Run:
    """One program to run. A relative path in argv is meant from `cwd`; where that is empty, from our folder.

    The program sees the file system read-only, but for its scratch folder, which is fresh for each run;
    it is the working folder unless `cwd` names another. Where the machine forbids namespaces (the back end's
    `isolation` is "plain") the rest is as writable as the user's rights make it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=plain_environment)
    cwd: str = ""
    stdin: bytes = b""
    hold_stdin: bool = False            # keep stdin open after the last byte and step (no end of input)
    steps: tuple[Step, ...] = ()
    terminal: Terminal | None = None
    limits: Limits = Limits()
    files: tuple[str, ...] = ()         # files it opens that argv does not name: packed for the lab VM
    outputs: tuple[str, ...] = ()       # names in the scratch folder whose content is wanted in Result.files


@dataclass(frozen=True)
class Result:
    """What came of a run; outputs are the program's own bytes."""

    ending: Ending
    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    wall: float = 0.0                            # seconds
    cpu: float = 0.0                             # seconds, user and system
    left_behind: int = 0                         # processes still there when the program had ended
    steps_done: int = 0
    terminal_restored: bool | None = None     # None without a terminal
    diagnosis: str = ""                          # after a limit: its processes and threads, and what they did
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        """The exit status, or None if it did not exit by itself."""
        return self.code if self.ending is Ending.EXIT else None

    @property
    def hung(self) -> bool:
        """It was stopped because it came to no end."""
        return self.ending in (Ending.WALL, Ending.QUIET, Ending.STILL, Ending.SPIN)

    def __str__(self) -> str:
        """How it ended, in words for a person."""
        if self.ending is Ending.EXIT:
            return f"exit status {self.code}"
        if self.ending is Ending.SIGNAL:
            try:
                return f"killed by {signals.Signals(self.code).name}"
            except ValueError:
                return f"killed by signal {self.code}"
        if self.ending is Ending.NOT_STARTED:
            return f"could not be started: {os.strerror(self.code)}"
        return {
            Ending.WALL: "still running when its time was over",
            Ending.QUIET: "hung: no output and no end",
            Ending.STILL: "hung: all of it slept, and nothing woke it",
            Ending.SPIN: "hung: it kept a processor busy, without output and without an end",
            Ending.OUTPUT: "printed without end",
            Ending.MEMORY: "took too much memory",
            Ending.PROCESSES: "started too many processes",
            Ending.ESCAPED: "killed the process that watched it",
            Ending.MACHINE: "the lab VM died under it",
        }[self.ending]


def program_path(run: Run) -> str:
    """The absolute path of the program: argv[0] looked up as a shell would with the run's PATH."""
    name = run.argv[0]
    if "/" in name:
        return os.path.normpath(os.path.join(run.cwd or os.getcwd(), name))
    return shutil.which(name, path=run.env.get("PATH", "")) or name


def file_part(argument: str) -> str:
    """The part of an argument that can name a file: what stands behind an option's '='."""
    if argument.startswith("-"):
        return argument.partition("=")[2]
    return argument


def absolute_argument(run: Run, argument: str) -> str:
    """An argument made absolute if it is a relative path, with a '/', to something that exists.

    A run without `cwd` works in its scratch folder, where a relative path would miss the file that is meant.
    """
    part = file_part(argument)
    if run.cwd or "/" not in part or not os.path.exists(part):
        return argument
    return argument[:len(argument) - len(part)] + os.path.abspath(part)


def encode(run: Run) -> list[Record]:
    """The records that make the runner execute `run`."""
    limits = run.limits
    records: list[Record] = [("program", os.fsencode(program_path(run)))]
    records.append(("arg", os.fsencode(run.argv[0])))
    records += [("arg", os.fsencode(absolute_argument(run, a))) for a in run.argv[1:]]
    records += [("env", os.fsencode(f"{key}={value}")) for key, value in run.env.items()]
    records += [("cwd", os.fsencode(run.cwd))] if run.cwd else []
    records += [("stdin", run.stdin)] if run.stdin else []
    records += [("hold", b"")] if run.hold_stdin else []
    if run.terminal:
        term = run.terminal
        records.append(("terminal", f"{term.rows} {term.columns} {term.fds}".encode()))
    for step in run.steps:
        records += _encode_step(step)
    records += [("output", os.fsencode(name)) for name in run.outputs]
    records.append(("limits", (f"{limits.wall:.3f} {limits.quiet:.3f} {limits.still:.3f} {limits.spin:.3f} "
                               f"{limits.output} {limits.memory} {limits.processes} {limits.file}").encode()))
    return records


def _encode_step(step: Step) -> list[Record]:
    records: list[Record] = []
    if step.after:
        records.append(("after1" if step.stream == "stdout" else "after2", step.after))
    if step.send:
        records.append(("send", step.send))
    elif step.close:
        records.append(("close", b""))
    elif step.resize:
        records.append(("resize", "{} {}".format(*step.resize).encode()))
    else:
        records.append(("signal", str(step.signal).encode()))
    return records


def decode(records: list[Record]) -> Result:
    """The result from what the runner sent for one run, up to and with its `result` record."""
    out = b"".join(data for key, data in records if key == "stdout")
    err = b"".join(data for key, data in records if key == "stderr")
    diagnosis = b"".join(data for key, data in records if key == "diagnosis").decode("utf-8", "replace")
    files: dict[str, bytes] = {}
    for key, data in records:
        if key == "file":
            name, _, content = data.partition(b"\0")
            files[os.fsdecode(name)] = content
    key, last = records[-1]
    if key != "result":
        raise ValueError(f"the runner ended with {key!r}, not with a result")
    ending, code, wall, cpu, left, steps, term = last.decode().split()
    return Result(Ending(ending), int(code), out, err, float(wall), float(cpu), int(left), int(steps),
                  None if term == "-" else term == "1", diagnosis, files)
