"""Boots guests interactively: `make lab3`, `make run`, `make demo` and `make os`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from grader import labs
from grader.execution.backends import Backend, pick_backend
from grader.core.building import BuildError, build_guests, build_os, build_vmm, learner_source
from grader.course import LABS, ROOT
from grader.execution.labvm.linux_guest import linux_initramfs, linux_kernel
from grader.execution.runs import CannotGrade
from grader.core.exercises import first_todo, handout_exercises, todo_lines, todos
from grader.core.framework import Demonstration
from grader.core.grading import path_text
from grader.core.judge import Kind
from grader.report.causes import next_lines
from grader.report.progress import read
from grader.execution.tool import run_command

STATUS_TODO = 77  # as in common/contract/abi.h
STATUS_UNDONE = 63  # the 1K OS reached an exercise that is not written yet: os-1k/kernel/kernel.h
LONG = 30.0       # seconds for a demonstration; all take less on an idle machine
CANNOT_RUN = 3    # as in `make grade`: the machine's fault, not the learner's


# What a lab's guests may need, if it has no graded tests.
ALL_NEEDS = ("real", "interrupts", "protected", "paging32")

LINUX = "linux"    # the guest that is a kernel and an initramfs

OS_SESSION = b"ls\n5\n9\n48\n18\nps\n0\n"


Built = TypeVar("Built")


class Stop(Exception):
    """Ends the command; its message is printed already."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def say(text: str) -> None:
    """Prints a line of this program, in order with the guests' output."""
    print(text, flush=True)


def choose_backend(name: str, lab: int) -> Backend:
    """The back end for this lab's guests, reported on standard error: guests print to standard output."""
    needs = labs.load(lab).needs if lab in labs.NUMBERS else ALL_NEEDS
    backend = pick_backend(name or "auto", needs=needs)
    print(backend.why, file=sys.stderr, flush=True)
    return backend


def build(lab: int, arguments: argparse.Namespace, solution: bool) -> Path:
    """The VMM as chosen on the command line."""
    return built(lambda: build_vmm(lab, solution=solution, source=arguments.source))


def built(make: Callable[[], Built]) -> Built:
    """The result of `make`; a failure is reported and ends the command."""
    try:
        return make()
    except BuildError as error:
        say(error.text)
        broken = error.program or ("Your module" if error.learner else "")
        say(f"{broken} does not compile yet: fix the first error above." if broken
            else "The kit itself does not build: compare its files with a fresh clone.")
        raise Stop(1) from error


def guest_file(name: str, folder: Path) -> str:
    """The image of a guest: one of guests/ by its name, or any file."""
    image = folder / f"{name}.bin"
    if (ROOT / "guests" / f"{name}.asm").exists() or (ROOT / "guests" / name).is_dir():
        return os.path.relpath(image)
    if os.path.exists(name):
        return name
    guests = (ROOT / "guests").iterdir()
    known = " ".join(sorted(path.stem for path in guests if path.suffix == ".asm" or path.is_dir()))
    say(f"No guest or file is called {name}. Guests: {known}")
    raise Stop(2)


def guests_of(arguments: argparse.Namespace, command: str) -> tuple[list[str], list[Path]]:
    """The VMM's arguments for the guests, and their files; in lab 6 the 1K OS, unless guests are named."""
    if arguments.lab == 6 and not arguments.guests:
        sched = next(path for path in LABS[6].learner_files() if path.stem == "sched")
        kernel, archive = built(lambda: build_os(None if arguments.solution else sched))
        return [f"--initrd={os.path.relpath(archive)}", os.path.relpath(kernel)], [kernel]
    if not arguments.guests:
        say(f'Name the guests: make {command} LAB={arguments.lab} GUESTS="..."')
        raise Stop(2)
    folder = build_guests()
    files = [guest_file(name, folder) for name in arguments.guests]
    return files, [Path(name).resolve() for name in files]


def guest_files(names: list[str], folder: Path, backend: Backend) -> list[str]:
    """The VMM's arguments for these guests."""
    return linux_guest(backend) if names == [LINUX] else [guest_file(name, folder) for name in names]


def linux_guest(backend: Backend) -> list[str]:
    """The VMM's arguments for the kit's Linux guest."""
    kernel, initramfs = linux_kernel(), linux_initramfs()
    print(f"Linux: {kernel}; its shell comes in a few seconds, in the lab VM in up to a minute."
          if backend.name == "vm" else f"Linux: {kernel}", file=sys.stderr, flush=True)
    return [f"--initrd={initramfs}", str(kernel)]


def boot(backend: Backend, vmm: Path, demonstration: Demonstration, folder: Path) -> int:
    """Prints a demonstration's title and command line and boots it; returns its exit status."""
    guests = guest_files(list(demonstration.guests), folder, backend)
    argv = [os.path.relpath(vmm), *demonstration.options, *guests]
    say(f"\n{demonstration.title}\n$ {shlex.join(argv)}")
    return run_with_input(backend.command(argv), demonstration.stdin)


def run_with_input(command: list[str], stdin: bytes) -> int:
    """Runs a command to its end, with a message if it takes long; returns its exit status."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            try:
                process.communicate(stdin, timeout=LONG)
            except subprocess.TimeoutExpired:
                say(f"(Still running after {LONG:.0f} seconds. If it hangs, Ctrl-C ends it, and make grade "
                    "shows where each vCPU is.)")
                process.communicate()
        except BaseException:
            process.kill()
            raise
        return process.returncode


def boot_interactive(command: list[str]) -> NoReturn:
    """Becomes the VMM, which gets the terminal, the signals and the exit status."""
    sys.stdout.flush()
    os.execvp(command[0], command)


def say_next(lab: int) -> bool:
    """Prints the next exercise. False: no exercise is written yet, so there is nothing to boot."""
    failed, todo = failed_exercise(lab), first_todo(LABS[lab])
    if failed:
        say("\n".join(next_lines(lab, failed)))
    elif todo:
        place = f"{path_text(todo.path)}, {todo_lines(todo.path, todo.exercise)}"
        say("\n".join(next_lines(lab, todo.exercise, place)))
    else:
        say(f"All exercises of lab {lab} are written.")
    left = {todo.exercise for path in LABS[lab].learner_files() for todo in todos(path)}
    return not left.issuperset(handout_exercises(LABS[lab]))


def failed_exercise(lab: int) -> str:
    """The exercise to work on, if the latest grading of the unchanged file found a failure."""
    progress = read(labs.load(lab))
    test = progress.first_open()
    wrong = test and progress.kinds.get(test.id) is Kind.FAILED and not progress.changed
    return progress.exercise_of(test) if test and wrong else ""


def next_exercise(lab: int) -> str:
    """The next exercise, as in the grader's report; empty: all are written and none is known to fail."""
    todo = first_todo(LABS[lab])
    return failed_exercise(lab) or (todo.exercise if todo else "")


def unexpected(status: int) -> str:
    """The message about a VMM that did not end as it should."""
    if status >= 0:
        return f"The VMM ended with status {status}; expected 0."
    return (f"The VMM itself crashed: {signal.Signals(-status).name}, {signal.strsignal(-status)}. "
            "make run with UNDER=\"gdb --args\" shows where.")


def play_lab(arguments: argparse.Namespace) -> int:
    """Builds the lab's VMM and boots its demonstrations. An unwritten exercise is not a failure."""
    lab: int = arguments.lab
    vmm = build(lab, arguments, arguments.solution)
    say(f"built {os.path.relpath(vmm)}")
    if not arguments.solution and not say_next(lab):
        return 0
    if lab == 6:
        return play_lab_6(arguments, vmm)
    backend, folder = choose_backend(arguments.backend, lab), build_guests()
    for demonstration in labs.load(lab).demonstrations:
        status = boot(backend, vmm, demonstration, folder)
        if status == STATUS_TODO:
            say(f"It stopped at an exercise that is not written yet. Next: exercise {next_exercise(lab)}.")
            return 0
        if status != 0:
            say(unexpected(status))
            return 1
    following = "" if arguments.solution else next_exercise(lab)
    say(f"\nEverything ran. Next: exercise {following}." if following
        else f"\nEverything ran. To check whether it is right: make grade LAB={lab}")
    return 0


def play_lab_6(arguments: argparse.Namespace, vmm: Path) -> int:
    """Boots the 1K OS with both of the learner's halves."""
    halves = LABS[6].learner_files()
    sched = None if arguments.solution else next(path for path in halves if path.stem == "sched")
    status = demonstrate_os(arguments, vmm, sched)
    if status in (0, STATUS_TODO, STATUS_UNDONE):
        say("\nTo check whether it is right: make grade LAB=6")
        return 0
    return 1


def play_run(arguments: argparse.Namespace) -> int:
    """Boots guests that the user chooses, on the user's terminal."""
    folder = build_guests()
    if not arguments.guests:
        say('Name the guests: make run LAB=3 GUESTS="counter hello"')
        raise Stop(2)
    vmm = build(arguments.lab, arguments, arguments.solution)
    backend = choose_backend(arguments.backend, arguments.lab)
    files = guest_files(arguments.guests, folder, backend)
    if arguments.hold:
        hold_input()
    boot_interactive(backend.command([*shlex.split(arguments.under), str(vmm), *arguments.options, *files]))


def hold_input() -> None:
    """Standard input becomes a pipe into which nothing is written and which does not end: whoever reads it
    also has the other end."""
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    os.set_inheritable(writing, True)


def finished_lab() -> int:
    """The last lab that the finished VMM implements."""
    return max(lab.number for lab in LABS.values()
               if all(path.exists() or path.with_suffix(".o").exists() for path in lab.solution_files()))


def play_demo(arguments: argparse.Namespace) -> int:
    """Demonstrates the whole kit on the finished VMM."""
    began = time.monotonic()
    lab = finished_lab()
    vmm, folder = build(lab, arguments, True), build_guests()
    say(f"The finished VMM of lab {lab}: {os.path.relpath(vmm)}")
    backend = choose_backend(arguments.backend, 3)
    shown = [Demonstration("The smallest guest: one HLT", ("minimal",), ("--regs",)),
             *labs.load(2).demonstrations, *labs.load(3).demonstrations]
    for demonstration in shown:
        status = boot(backend, vmm, demonstration, folder)
        if status != 0:
            say(unexpected(status))
            return 1
    if lab >= 6:
        status = demonstrate_os(arguments, vmm)
        if status != 0:
            return status
    say(f"\nThat took {time.monotonic() - began:.0f} seconds. Start with handouts/lab1-real-mode.md"
        " and `make lab1`.")
    return 0


def demonstrate_os(arguments: argparse.Namespace, vmm: Path, sched: Path | None = None) -> int:
    """A scripted session of the 1K OS, with the learner's scheduler if given; returns its exit status."""
    kernel, archive = built(lambda: build_os(sched))
    say("\nThe 1K OS, with this input: " + ", ".join(OS_SESSION.decode().split()))
    backend = choose_backend(arguments.backend, 6)
    argv = [os.path.relpath(path) for path in (vmm, archive, kernel)]
    argv[1] = f"--initrd={argv[1]}"
    say(f"$ {shlex.join(argv)}")
    status = run_with_input(backend.command(argv), OS_SESSION)
    if status not in (0, STATUS_TODO, STATUS_UNDONE):
        say(unexpected(status))
    return status


@dataclass(frozen=True)
class Own:
    """The learner's modules that `make os` takes; all others are the finished ones."""

    labs: tuple[int, ...] = ()   # before lab 6
    boot: bool = False           # lab 6's half in the VMM
    sched: bool = False          # and its half in the kernel

    @classmethod
    def named(cls, source: str) -> Own:
        """By FROM=: mine, or some of 1 to 6, boot and sched. Raises ValueError."""
        words = [word for word in source.split(",") if word]
        if words == ["mine"]:
            words = [str(number) for number in range(1, 7)]
        unknown = set(words) - {*map(str, range(1, 7)), "boot", "sched"}
        if unknown:
            raise ValueError(f"FROM={source}: give mine, or some of 1 to 6, boot and sched, like 4,sched")
        return cls(tuple(number for number in LABS if number < 6 and str(number) in words),
                   bool({"6", "boot"} & set(words)), bool({"6", "sched"} & set(words)))

    def files(self) -> list[Path]:
        """Where they are."""
        boot, sched = LABS[6].learner_files()
        return [*(LABS[number].learner_files()[0] for number in self.labs),
                *([boot] if self.boot else []), *([sched] if self.sched else [])]

    def written(self) -> Own:
        """Those of them that have no TODO left."""
        left = {path for path in self.files() if path.exists() and todos(path)}
        boot, sched = LABS[6].learner_files()
        return Own(tuple(number for number in self.labs if LABS[number].learner_files()[0] not in left),
                   self.boot and boot not in left, self.sched and sched not in left)

    def name(self) -> str:
        """The FROM= that means them; empty: none."""
        half = "6" if self.boot and self.sched else "boot" if self.boot else "sched" if self.sched else ""
        return ",".join([*map(str, self.labs), *([half] if half else [])])


def tell_unwritten(own: Own) -> None:
    """Says which of the learner's modules have TODOs, and how to boot without these."""
    for path in own.files():
        left = todos(path) if path.exists() else []
        if left:
            say(f"{path_text(path)} is not finished: exercise {left[0].exercise} is not written yet.")
    name = own.written().name()
    say(f"To boot with the finished modules in their place: make os{f' FROM={name}' if name else ''}")


def tell_halves(own: Own) -> None:
    """Says whose modules run, and how to leave."""
    finished = [path for lab in LABS.values() if lab.number <= 6 for path in lab.learner_files()
                if path not in own.files()]
    say("The 1K OS" + (", on the finished VMM, with the finished kernel." if not own.files() else "."))
    for whose, paths in (("yours", own.files()), ("finished", finished)):
        if own.files() and paths:
            say(f"  {whose:<9} {', '.join(path.name for path in paths)}")
    if not own.files():
        say("With your own boot.c and sched.c: make os FROM=6; to add your modules of labs 1 to 5: "
            "FROM=mine")
    say("Ctrl-] ends the VMM, whatever the guest does; if the VMM itself hangs, press it twice.")


def play_os(arguments: argparse.Namespace) -> int:
    """The 1K OS on the user's terminal: finished, or with modules of the learner's."""
    try:
        own = Own.named(arguments.source)
    except ValueError as error:
        say(str(error))
        raise Stop(2) from error
    if own.written() != own:
        tell_unwritten(own)
        raise Stop(1)
    boot, sched = LABS[6].learner_files()
    if own.boot or own.labs:
        module = None if own.boot else LABS[6].solution_files()[0]
        vmm = built(lambda: build_vmm(6, source=",".join(map(str, own.labs)), module=module))
    else:
        vmm = built(lambda: build_vmm(6, solution=True))
    kernel, archive = built(lambda: build_os(sched if own.sched else None))
    backend = choose_backend(arguments.backend, 6)
    tell_halves(own)
    boot_interactive(backend.command([str(vmm), f"--initrd={archive}", str(kernel)]))


def play_linux(arguments: argparse.Namespace) -> int:
    """Linux on the user's terminal, on the learner's VMM of the last lab, or with SOLUTION=1 the finished."""
    lab = max(LABS)
    vmm = build(lab, arguments, arguments.solution)
    backend = choose_backend(arguments.backend, lab)
    guest = linux_guest(backend)
    print("Type poweroff to end it. Ctrl-] ends the VMM, whatever Linux does.", file=sys.stderr, flush=True)
    boot_interactive(backend.command([str(vmm), *arguments.options, *guest]))


COMMANDS = {"lab": play_lab, "run": play_run, "demo": play_demo, "os": play_os, "linux": play_linux}


def main() -> int:
    parser = argparse.ArgumentParser(prog="play", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--lab", type=int, choices=LABS, default=1)
    parser.add_argument("--solution", action="store_true")
    parser.add_argument("--from", dest="source", default="", metavar="mine")
    parser.add_argument("--backend", default="")
    parser.add_argument("--hold", action="store_true", help="an input that stays open and empty")
    parser.add_argument("--under", default="", help="a command that starts the VMM")
    parser.add_argument("--guests", type=str.split, default=[], help="names or files")
    parser.add_argument("--options", type=shlex.split, default=[], help="those of the VMM")
    arguments = parser.parse_args()
    try:
        if arguments.command != "os":
            learner_source(arguments.source)
    except ValueError:
        parser.error(f"argument --from: invalid value: {arguments.source!r}")
    try:
        return COMMANDS[arguments.command](arguments)
    except Stop as stop:
        return stop.status
    except CannotGrade as error:
        say(f"This machine can't run this: {error}")
        return CANNOT_RUN
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    run_command(main)
