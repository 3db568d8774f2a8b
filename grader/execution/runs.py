"""Runs of programs and their results: the interface that every back end implements.

A back end takes `Run`s and gives `Result`s. The same runner program (grader/execution/runner/) executes them
on the host and inside the lab VM, so limits and steps mean the same on both.

    Run(("build/vmm/lab2/vmm", "build/guests/echo.bin"), stdin=b"abc")
    Run((vmm, guest), steps=(Step(after=b"ready\\n", send=b"x"), Step(after=b"got x", signal=SIGTERM)))

On the wire (a pipe, a socket, a virtio port) everything is a record: a line "KEY LENGTH\\n" and LENGTH bytes.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass, field

Record = tuple[str, bytes]

MIB = 1024 * 1024


class CannotGrade(Exception):
    """The machine is at fault, never the learner: `reason` is what is missing, `fix` what to do."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}\n  fix: {fix}")
        self.reason = reason
        self.fix = fix


class Ending(str, enum.Enum):
    """How a run ended. Except for EXIT and SIGNAL, the runner killed it or could not run it."""

    EXIT = "exit"                # code is the exit status
    SIGNAL = "signal"            # code is the signal's number; SIGXFSZ is the file size limit
    TIMEOUT = "timeout"          # wall-clock timeout: still running after limits.wall seconds
    NO_OUTPUT = "no-output"      # no-output timeout: no output and no step for limits.no_output seconds
    DEADLOCK = "deadlock"        # none of its threads ran for limits.deadlock seconds
    SPIN = "spin"                # limits.spin seconds of CPU time without output and without a step
    PROCESSOR = "processor"      # used more than limits.processor seconds of CPU time, all processes together
    OUTPUT = "output"            # printed more than limits.output bytes
    MEMORY = "memory"            # used more than limits.memory bytes
    PROCESSES = "processes"      # had more than limits.processes processes
    NOT_STARTED = "not-started"  # the program could not be executed; code is errno
    ESCAPED = "escaped"          # it killed its supervisor; possible only where namespaces are forbidden
    MACHINE = "machine"          # the lab VM crashed twice during the run
    BUDGET = "budget"            # not run: the submission's budget was used up (grader/execution/budget.py)


@dataclass(frozen=True)
class Limits:
    """What a run may use. Times are generous: learners' machines and CI may be loaded."""

    wall: float = 30.0            # seconds
    no_output: float = 15.0       # seconds without output, step or end: no progress
    after_steps: float = 0.0      # the same once all steps are done; 0: no_output, too
    deadlock: float = 3.0         # seconds with all threads asleep and none woken; 0: no limit
    spin: float = 4.0             # seconds of CPU time without output or step
    processor: float = 0.0        # seconds of CPU time of all processes, ended ones included; 0: no limit
    output: int = 1 * MIB         # bytes of stdout and stderr together
    memory: int = 512 * MIB       # resident bytes of all processes together
    processes: int = 32
    file: int = 16 * MIB          # bytes per file, and in the whole scratch folder


@dataclass(frozen=True)
class Step:
    """One action of the person at the keyboard, taken once the program has printed `after`.

    Steps are taken in order. The search for `after` starts where the previous step's match ended; an empty
    `after` means at once. Each step has exactly one action.
    """

    after: bytes = b""
    stream: str = "stdout"                       # where `after` must appear: "stdout" or "stderr"
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
    """A terminal of this size; `fds` lists the descriptors connected to it ("012" includes stderr)."""

    rows: int = 24
    columns: int = 80
    fds: str = "01"


def plain_environment() -> dict[str, str]:
    """The environment of a graded run: the same on every machine."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TERM": "dumb"}


@dataclass(frozen=True)
class Run:
    """One program to run. Relative paths in argv are relative to `cwd`, or to our folder if `cwd` is empty.

    The file system is read-only for the program, except for its scratch folder, which is new for each run
    and is the working folder unless `cwd` names another. Where the machine forbids namespaces (the back
    end's `isolation` is "plain"), the user's permissions apply to the rest.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=plain_environment)
    cwd: str = ""
    stdin: bytes = b""
    hold_stdin: bool = False            # keep stdin open after the last byte and step: no end of input
    steps: tuple[Step, ...] = ()
    terminal: Terminal | None = None
    limits: Limits = Limits()
    files: tuple[str, ...] = ()         # files it opens that are not in argv; packed for the lab VM
    outputs: tuple[str, ...] = ()       # files of the scratch folder to return in Result.files
    kvm: bool = True                    # it opens /dev/kvm
    kvm_devices: bool = True            # or it may ask KVM only for memory and processors


@dataclass(frozen=True)
class Result:
    """The result of a run; outputs are the program's own bytes."""

    ending: Ending
    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    wall: float = 0.0                            # seconds
    cpu: float = 0.0                             # seconds, user and system
    left_behind: int = 0                         # processes still alive after the program ended
    steps_done: int = 0
    terminal_restored: bool | None = None     # None without a terminal
    diagnosis: str = ""                          # after a limit: what its processes and threads were doing
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        """The exit status; None if it did not exit by itself."""
        return self.code if self.ending is Ending.EXIT else None

    @property
    def hung(self) -> bool:
        """It was stopped because it did not end."""
        return self.ending in (Ending.TIMEOUT, Ending.NO_OUTPUT, Ending.DEADLOCK, Ending.SPIN)

    def __str__(self) -> str:
        """How it ended, for messages."""
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
            Ending.TIMEOUT: "wall-clock timeout: it was still running",
            Ending.NO_OUTPUT: "no-output timeout: it hung without output",
            Ending.DEADLOCK: "deadlock: every thread waits, and nothing wakes one",
            Ending.SPIN: "busy loop: CPU time without output",
            Ending.PROCESSOR: "used too much processor time",
            Ending.OUTPUT: "printed too much output",
            Ending.MEMORY: "used too much memory",
            Ending.PROCESSES: "started too many processes",
            Ending.ESCAPED: "killed its supervisor",
            Ending.MACHINE: "the lab VM crashed during the run",
            Ending.BUDGET: "not run: all runs together took too long",
        }[self.ending]


def program_path(run: Run) -> str:
    """The absolute path of the program: argv[0], searched in the run's PATH as a shell would."""
    name = run.argv[0]
    if "/" in name:
        return os.path.normpath(os.path.join(run.cwd or os.getcwd(), name))
    return shutil.which(name, path=run.env.get("PATH", "")) or name


def file_part(argument: str) -> str:
    """The part of an argument that can name a file: for an option, the text after '='."""
    if argument.startswith("-"):
        return argument.partition("=")[2]
    return argument


def absolute_argument(run: Run, argument: str) -> str:
    """The argument, made absolute if it is a relative path with a '/' to an existing file.

    A run without `cwd` works in its scratch folder, where a relative path would not find that file.
    """
    part = file_part(argument)
    if run.cwd or "/" not in part or not os.path.exists(part):
        return argument
    return argument[:len(argument) - len(part)] + os.path.abspath(part)


def encode(run: Run) -> list[Record]:
    """The records that request this run from the runner."""
    limits = run.limits
    records: list[Record] = [("program", os.fsencode(program_path(run)))]
    records.append(("arg", os.fsencode(run.argv[0])))
    records += [("arg", os.fsencode(absolute_argument(run, a))) for a in run.argv[1:]]
    records += [("env", os.fsencode(f"{key}={value}")) for key, value in run.env.items()]
    records += [("cwd", os.fsencode(run.cwd))] if run.cwd else []
    records += [("stdin", run.stdin)] if run.stdin else []
    records += [("hold", b"")] if run.hold_stdin else []
    records += [] if run.kvm_devices else [("no-kvm-devices", b"")]
    if run.terminal:
        term = run.terminal
        records.append(("terminal", f"{term.rows} {term.columns} {term.fds}".encode()))
    for step in run.steps:
        records += _encode_step(step)
    records += [("output", os.fsencode(name)) for name in run.outputs]
    records.append(("limits", (f"{limits.wall:.3f} {limits.no_output:.3f} {limits.after_steps:.3f} "
                               f"{limits.deadlock:.3f} {limits.spin:.3f} {limits.processor:.3f} "
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


_RESULT = re.compile(r"([a-z-]+) (\d{1,4}) (\d{1,9}\.?\d*) (\d{1,9}\.?\d*) (\d{1,9}) (\d{1,9}) ([-01])")


def decode(records: list[Record]) -> Result:
    """The result of one run, from the runner's records up to `result`. Raises ValueError for others."""
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
    found = _RESULT.fullmatch(last.decode())
    if not found or Ending(found[1]) in (Ending.MACHINE, Ending.BUDGET):
        raise ValueError(f"a result that no runner sends: {last[:80]!r}")
    ending, code, wall, cpu, left, steps, term = found.groups()
    return Result(Ending(ending), int(code), out, err, float(wall), float(cpu), int(left), int(steps),
                  None if term == "-" else term == "1", diagnosis, files)
