"""One thing that is measured, its runs, and their arithmetic."""

from __future__ import annotations

import json
import signal
import statistics
from dataclasses import dataclass
from typing import Union

from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run

WALL = 900.0                                      # seconds for all rounds of a case
HUNG = 128 + signal.SIGALRM                       # the status of a command that alternate.c has ended
LIMITS = Limits(wall=WALL, no_output=WALL, deadlock=0, spin=0, processes=64)


@dataclass(frozen=True)
class Command:
    """One of the commands that a case runs in turn."""

    name: str
    argv: tuple[str, ...]
    status: int = 0                               # with which it ends


@dataclass(frozen=True)
class Figure:
    """A number that alternate.c measures in each run."""

    title: str
    key: str                                      # in its line of JSON
    unit: str
    scale: float = 1.0                            # what one of `unit` is in the unit of `key`
    each: bool = False                            # divided by the case's count


CYCLES = Figure("", "cycles", "cycles", each=True)
WALL_MS = Figure("", "wall_ns", "ms", 1e6)
LATENCY = Figure("", "latency_ns", "us", 1e3)


@dataclass(frozen=True)
class Case:
    """Commands that do the same thing. The first is the VMM; it is compared to the others."""

    row: str
    title: str
    commands: tuple[Command, ...]
    figures: tuple[Figure, ...] = (CYCLES,)
    count: int = 1                                # of the things that each command does
    keys: int = 0
    until: str = ""
    send: str = ""
    ideal: Union[float, None] = None              # of the first comparison's ratio
    files: tuple[str, ...] = ()                   # that the commands open and that no argument names
    note: str = ""
    rounds: Union[int, None] = None               # at most; None: any number

    def run(self, alternate: str, rounds: int) -> Run:
        """All rounds, as one job."""
        argv = [alternate, str(min(rounds, self.rounds or rounds)), str(self.keys), self.until, self.send]
        for command in self.commands:
            argv += ["--", *command.argv]
        return Run(tuple(argv), limits=LIMITS, files=self.files)


@dataclass(frozen=True)
class Spread:
    """A median, and the middle half of the values: what disturbs a shared machine is outside of it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The VMM against one other command."""

    name: str
    value: Spread
    ratio: Spread                                 # the VMM's figure divided by this one's, per round


@dataclass(frozen=True)
class Measured:
    """A figure of a case, or why there is none."""

    row: str
    title: str
    unit: str
    value: Union[Spread, None]
    against: tuple[Comparison, ...] = ()
    ideal: Union[float, None] = None
    note: str = ""


def spread(values: list[float]) -> Spread:
    """The median of values, and their quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(ours: list[float], theirs: list[float]) -> Spread:
    """The ratios of neighbours: what both sides of a round suffered cancels out."""
    return spread([a / b for a, b in zip(ours, theirs)])


def samples(case: Case, result: Result) -> tuple[list[list[dict[str, float]]], list[str]]:
    """For each command of a case the figures of its rounds, and what went wrong. The first round only warms
    up, if there are more. A command that failed has no rounds. Raises CannotGrade if the first one did."""
    runs: list[list[dict[str, float]]] = [[] for _ in case.commands]
    for line in result.stdout.decode(errors="replace").splitlines():
        run = json.loads(line)
        runs[run["command"]].append(run)
    said = (result.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    if result.ending is not Ending.EXIT or result.code != 0 or not all(runs):
        raise CannotGrade(f"{result}: {said}", "run make doctor")
    failures = []
    for command, rounds in zip(case.commands, runs):
        wrong = [run["status"] for run in rounds if run["status"] != command.status]
        if wrong:
            failures.append(f"{command.name} did not end" if wrong[-1] == HUNG else
                            f"{command.name} ended with status {wrong[-1]}: {said}")
            rounds.clear()
    if not runs[0]:
        raise CannotGrade(failures[0], "run make doctor")
    return [rounds[1:] or rounds for rounds in runs], failures


def judge(case: Case, result: Result) -> list[Measured]:
    """The figures of a case, from its job's output."""
    try:
        runs, failures = samples(case, result)
    except CannotGrade as error:
        return [Measured(case.row, case.title, "", None, note=error.reason)]
    measured = []
    for figure in case.figures:
        divisor = figure.scale * (case.count if figure.each else 1)
        values = [[run[figure.key] / divisor for run in rounds] for rounds in runs]
        title = ", ".join(filter(None, (case.title, figure.title)))
        silent = [command.name for command, rounds in zip(case.commands, values)
                  if any(value <= 0 for value in rounds)]
        if silent:
            note = f"{', '.join(silent)} did not report it"
            measured.append(Measured(case.row, title, figure.unit, None, note=note))
            continue
        against = tuple(Comparison(command.name, spread(theirs), ratios(values[0], theirs))
                        for command, theirs in zip(case.commands[1:], values[1:]) if theirs)
        note = "; ".join(filter(None, (*failures, case.note if figure is case.figures[0] else "")))
        measured.append(Measured(case.row, title, figure.unit, spread(values[0]), against, case.ideal, note))
    return measured
