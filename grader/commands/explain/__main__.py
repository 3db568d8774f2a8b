"""`make explain`: runs guests and, if one crashes, shows its last instructions, the chain of exceptions
decoded from the guest's own tables, and the likely cause."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from grader.commands import play
from grader.commands.guest_command import carry_out, parser_of
from grader.commands.explain.places import Program, Source
from grader.commands.explain.state import PREFIX, Record, parse
from grader.commands.explain.text import Place, report
from grader.core.outcome import STATUS_CRASHED
from grader.course import BUILD
from grader.execution.tool import run_command

INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)


def run(command: list[str]) -> tuple[int, list[str]]:
    """Runs the VMM on our standard input and output; its exit status, and its standard error without what it
    prints for a person: that is passed on."""
    lines: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        # Ctrl-C goes to the VMM as well, which ends by it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert process.stderr
        for line in process.stderr:
            text = line.decode("utf-8", "replace")
            if text.startswith(PREFIX):
                lines.append(text)
            elif not lines or text.startswith("vmm: "):  # of a post-mortem, only its first line
                print(text, end="", file=sys.stderr, flush=True)
        signal.signal(signal.SIGINT, before)
        return process.wait(), lines


def programs_of_os() -> list[Path]:
    """The programs in the 1K OS's archive."""
    folder = BUILD / "os-1k/user"
    return sorted(path for path in folder.glob("*") if not path.suffix and path.is_file())


def placer(record: Record, files: list[Path]) -> Place:
    """What names an instruction's place in the guest that crashed."""
    file = files[min(record.vcpu, len(files) - 1)]
    source = Source.of(file)
    if source.lines or source.image[:4] != b"\x7fELF":
        return source.place
    programs = [Program.of(file), *(Program.of(path) for path in programs_of_os())]
    return lambda state: next(filter(None, (program.place(state) for program in programs)), "")


def explain(arguments: argparse.Namespace) -> int:
    """Carries out the command; returns the exit status."""
    vmm = play.build(arguments.lab, arguments, arguments.solution)
    given, files = play.guests_of(arguments, "explain")
    backend = play.choose_backend(arguments.backend, arguments.lab)
    status, lines = run(backend.command([str(vmm), "--explain", *arguments.options, *given]))
    records = list(parse(lines))
    for record in records:
        print("")
        print("\n".join(report(record, placer(record, files))))
    if records:
        return 0
    if status == STATUS_CRASHED:
        print("The guest crashed before it was entered, so there is nothing to explain.")
    elif status in INTERRUPTED:
        print("No guest crashed; Ctrl-C has ended the VMM.")
    elif status < 0:
        print(play.unexpected(status))
        return 1
    else:
        print(f"No guest crashed; the VMM ended with status {status}.")
    return 0


def main() -> int:
    return carry_out(parser_of("explain", __doc__), explain)


if __name__ == "__main__":
    run_command(main)
