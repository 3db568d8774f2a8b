"""`make timeline`: runs guests and writes what each vCPU did as a page, and as a trace for Perfetto."""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from grader.commands import play
from grader.commands.guest_command import carry_out, parser_of
from grader.commands.timeline.page import page, title_of
from grader.commands.timeline.perfetto import trace
from grader.commands.timeline.record import NoRecord, Record, read
from grader.commands.timeline.story import notes, rows
from grader.core.grading import path_text
from grader.course import BUILD
from grader.execution.tool import in_colour, run_command

SECONDS = 30.0        # after which a run is ended, unless LIMIT= says otherwise
OUTPUT_MAX = 1 << 20  # bytes; a run that prints more is ended as well
LOOK_SECONDS = 0.05
LEFT_SECONDS = 5.0
START_SECONDS = 15.0  # from when on silent guests are assumed to run: the lab VM does not report it
# How the VMM is ended, with the seconds that it gets for it. SIGALRM: see Backend.command.
ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGALRM, 10.0), (signal.SIGKILL, 60.0))


class Output:
    """Passes on what the VMM prints, up to OUTPUT_MAX bytes; then `full` is true, and the rest is dropped.
    `begun`: a guest has printed something."""

    def __init__(self, pipes: dict[int, IO[bytes]]) -> None:
        self.begun = False
        self._left = OUTPUT_MAX
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._pass_on, args=pair, daemon=True)
                         for pair in pipes.items()]
        for thread in self._threads:
            thread.start()

    @property
    def full(self) -> bool:
        return self._left == 0

    def _pass_on(self, to: int, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 1 << 16):
            self.begun = self.begun or to == 1
            with self._lock:
                shown = data[:self._left]
                self._left -= len(shown)
            try:
                while shown:
                    shown = shown[os.write(to, shown):]
            except OSError:
                self._left = 0  # the reader is gone

    def finish(self) -> None:
        """Waits until everything is passed on; not for a process that the VMM has left behind."""
        for thread in self._threads:
            thread.join(LEFT_SECONDS)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the VMM."""
    for number, seconds in ENDINGS:
        process.send_signal(number)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


def run(command: list[str], seconds: float, recorded: Path) -> int:
    """Runs the VMM on our standard input, for at most this time from when it has opened the record or a guest
    has printed something; its exit status. Ctrl-C ends it as well."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the VMM gets it, too
        assert process.stdout and process.stderr
        output = Output({1: process.stdout, 2: process.stderr})
        latest, over = time.monotonic() + START_SECONDS, math.inf
        while process.poll() is None and time.monotonic() < over and not output.full:
            time.sleep(LOOK_SECONDS)
            if over == math.inf and (output.begun or recorded.exists() or time.monotonic() > latest):
                over = time.monotonic() + seconds
        stopped = process.poll() is None
        if stopped:
            end(process)
        output.finish()
        signal.signal(signal.SIGINT, before)
    if stopped:
        play.say("The run was ended after " + ("1 MB of output." if output.full else
                                               f"{seconds:g} s; LIMIT= allows more."))
    return process.returncode


def write(record: Record, folder: Path) -> tuple[Path, Path]:
    """Writes the page and the trace; their paths."""
    found, name = rows(record), f"lab{record.lab}"
    files = (folder / f"{name}.html", folder / f"{name}.perfetto.json")
    files[0].write_text(page(record, found), encoding="utf-8")
    files[1].write_text(trace(title_of(record), found), encoding="utf-8")
    return files


def timeline(arguments: argparse.Namespace) -> int:
    """Carries out the command; returns the exit status."""
    vmm = play.build(arguments.lab, arguments, arguments.solution)
    guests, _ = play.guests_of(arguments, "timeline")
    backend = play.choose_backend(arguments.backend, arguments.lab)
    folder = BUILD / "timeline"
    folder.mkdir(parents=True, exist_ok=True)
    recorded = folder / f"lab{arguments.lab}.record"
    recorded.unlink(missing_ok=True)
    color = ["--color=always"] if in_colour() else []
    argv = [str(vmm), f"--record={recorded}", *color, *arguments.options, *guests]
    if arguments.hold:
        play.hold_input()
    status = run(backend.command(argv, str(recorded)), arguments.seconds, recorded)
    try:
        record = read(recorded)
    except NoRecord as error:
        play.say(f"There is no timeline: {error}. The VMM ended with status {status}.")
        return 1
    files = write(record, folder)
    for note in notes(record, rows(record)):
        play.say(note)
    play.say(f"the page, for a browser:            {path_text(files[0])}\n"
             f"the trace, for ui.perfetto.dev:     {path_text(files[1])}")
    return 0


def main() -> int:
    parser = parser_of("timeline", __doc__)
    parser.add_argument("--hold", action="store_true", help="an input that stays open and empty")
    parser.add_argument("--limit", dest="seconds", type=float, default=SECONDS, help="seconds")
    return carry_out(parser, timeline)


if __name__ == "__main__":
    run_command(main)
