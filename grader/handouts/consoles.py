"""Console blocks: runs their commands as a learner would, and compares the output.

Everything happens in a copy of the kit in build/handouts/kit, so that nobody's work is changed; the
learner's files there are brought to the state that a block needs. Lines that depend on the machine and don't
matter to the reader (the back end, packages being installed) are ignored on both sides.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.core.building import clean_environment
from grader.course import BUILD, LABS, ROOT, Lab
from grader.handouts.text import Fence
from grader.core.exercises import exercises, skeleton

KIT = BUILD / "handouts" / "kit"
COPIED = ("Makefile", "common", "grader", "guests", "handouts", "labs", "os-1k", "solutions",
          ".clang-format")
CANNOT = "This machine can't run this"
REST = 0.7        # seconds without output after which a key is pressed
TIME_MAX = 400.0  # seconds for one command: Linux boots in the lab VM, and machines are loaded

_LEFT_OUT = re.compile(r"^((kvm|vm): .*|(lab VM|linux): .*|building .*|make(\[\d+\])?: \*\*\* .*)$")


class CannotRun(Exception):
    """This machine lacks what the block's guests or commands need."""


@dataclass(frozen=True)
class Command:
    """One command of a block, and its expected lines."""

    text: str
    lines: list[str]


def commands(fence: Fence) -> Iterator[Command]:
    """The commands of a block, which must start with one."""
    if not fence.body or not fence.body[0].startswith("$ "):
        raise ValueError(f"{fence.where}: a console block must start with `$ command`")
    starts = [i for i, line in enumerate(fence.body) if line.startswith("$ ") and not _shown(fence, i)]
    for start, end in zip(starts, [*starts[1:], len(fence.body)]):
        yield Command(fence.body[start][2:], fence.body[start + 1:end])


def _shown(fence: Fence, index: int) -> bool:
    """Whether a `$ ` line is output: `make labN` prints the command lines that it runs."""
    return fence.body[0].startswith(("$ make lab", "$ make demo")) and index > 0


def copy_kit() -> None:
    """Updates the copy, but keeps what is built there, and the files' times."""
    KIT.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, KIT / name
        if source.is_file():
            shutil.copy2(source, target)
            continue
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def answered_up_to(fence: Fence) -> str:
    """The last exercise that is answered in the block's state, or ""."""
    if "after" in fence.words:
        return fence.words["after"]
    if not fence.exercise:
        return ""
    return fence.exercise + ("-" if "before" in fence.words else "")


def set_state(state: str) -> None:
    """Brings the copy's learner's files to a state: "3.2" with 3.2 answered, "3.2-" up to the one before."""
    for lab in LABS.values():
        for solution, learner in zip(lab.solution_files(), lab.learner_files()):
            if solution.exists():
                write_answered(lab, solution, KIT / learner.relative_to(ROOT), state)


def write_answered(lab: Lab, solution: Path, target: Path, state: str) -> None:
    """A learner's file in which the exercises of this lab up to `state` are answered."""
    def is_answered(number: str) -> bool:
        return number < state.rstrip("-") or number == state
    answered = [number for number in exercises(solution) if is_answered(number)] \
        if state.startswith(f"{lab.number}.") else []
    text = skeleton(solution.read_text(), solution.name, answered)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def run(command: str, keys: list[str], given: str = "") -> tuple[str, int]:
    """Runs a command in the copy with `given` as its input, or typing `keys`; returns (output, status)."""
    environment = {**clean_environment(), "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    process = subprocess.Popen(["bash", "-c", command], cwd=KIT, env=environment, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert process.stdin and process.stdout
    if not keys:
        process.stdin.write(given.encode())
        process.stdin.close()
    output, left, end, fd = b"", list(keys), time.monotonic() + TIME_MAX, process.stdout.fileno()
    try:
        while True:
            ready, _, _ = select.select([fd], [], [], REST)
            if ready:
                chunk = os.read(fd, 65536)
                output += chunk
                if not chunk:
                    break
            elif time.monotonic() > end:
                return output.decode(errors="replace") + "\n(no end)\n", -1
            elif left and shown(output.decode(errors="replace")):
                _press(process, left.pop(0))
                if not left:
                    process.stdin.close()
        return output.decode(errors="replace"), process.wait(timeout=60)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        process.stdout.close()


def _press(process: subprocess.Popen[bytes], key: str) -> None:
    if key == "^C":
        os.killpg(process.pid, signal.SIGINT)
        return
    assert process.stdin
    process.stdin.write(key.encode() + b"\n")
    process.stdin.flush()


def shown(output: str) -> list[str]:
    """The lines of the output that a handout shows."""
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in output.splitlines()]
    lines = [line for line in lines if not _LEFT_OUT.match(line)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def agrees(expected: list[str], lines: list[str]) -> bool:
    """Whether the lines are the expected ones."""
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.rstrip().split("...")) + r"\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines)) is not None


def difference(fence: Fence) -> str:
    """Runs a block in the copy's current state; returns its errors, or an empty text."""
    for tool in fence.words.get("needs", "").split():
        if not shutil.which(tool):
            raise CannotRun(f"{tool} is not installed")
    keys = fence.words["keys"].split("|") if "keys" in fence.words else []
    status = 0
    ways = [list(commands(block)) for block in (fence, *fence.others)]
    if any([step.text for step in way] != [step.text for step in ways[0]] for way in ways):
        raise ValueError(f"{fence.where}: an `or` block must have the same commands as the block above it")
    for command, *others in zip(*ways):
        output, status = run(command.text, keys, fence.words.get("input", "").replace("|", "\n"))
        if CANNOT in output:
            raise CannotRun("this machine can't run its guests")
        lines = shown(output)
        if not any(agrees(way.lines, lines) for way in (command, *others)):
            return "\n".join([f"{fence.where}: $ {command.text}", "the handout says:",
                              *(f"  {line}" for line in command.lines),
                              *(f"  {line}" for way in others for line in ("or:", *way.lines)), "output:",
                              *(f"  {line}" for line in lines)])
    if "status" in fence.words and status != int(fence.words["status"]):
        return f"{fence.where}: the exit status was {status}, not {fence.words['status']}"
    return ""
