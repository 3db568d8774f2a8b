"""A figure of a run: the exits and timer interrupts of four vCPUs, from a --trace.

The trace is next to the figure. `python3 -m grader.handouts trace` records a new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grader.handouts.drawing import Drawing
from grader.handouts.text import FOLDER

TRACE = FOLDER / "figures" / "timeline.trace"
COMMAND = ('sleep 1 | make run LAB=4 SOLUTION=1 GUESTS="ticks ticks counter fibonacci" '
           'ARGS="--trace --tick-ms=5"')
SHOWN = 0.040  # seconds
_LINE = re.compile(r"^(\d+\.\d+) vcpu(\d) (inject vector 0x(\w+)|KVM_EXIT_\w+)")


@dataclass(frozen=True)
class Event:
    """A line of the trace."""

    time: float
    vcpu: int
    vector: str  # "" for an exit


def events(text: str) -> list[Event]:
    """The trace's events, from 0 seconds on."""
    found = [Event(float(match[1]), int(match[2]), match[4] or "")
             for match in (_LINE.match(line) for line in text.splitlines()) if match]
    start = min((event.time for event in found), default=0.0)
    return [Event(event.time - start, event.vcpu, event.vector) for event in found]


def beginning(lines: list[str]) -> list[str]:
    """The lines of a trace that the figure shows."""
    kept, start = [], -1.0
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        start = float(match[1]) if start < 0 else start
        if float(match[1]) - start <= SHOWN:
            kept.append(line)
    return kept


def picture() -> Drawing:
    """One lane per vCPU, with a stroke for each exit and an arrow for each interrupt."""
    shown = [event for event in events(TRACE.read_text()) if event.time <= SHOWN]
    lanes = sorted({event.vcpu for event in shown})
    drawing = Drawing(760, 70 + 52 * len(lanes), f"The first {SHOWN * 1000:.0f} ms of a run with "
                      f"{len(lanes)} vCPUs: each exit, and each interrupt")
    left, width = 70.0, 670.0
    for ms in range(0, int(SHOWN * 1000) + 1, 10):
        x = left + width * ms / (SHOWN * 1000)
        drawing.line((x, 30), (x, 40 + 52 * len(lanes)), arrow=False, dash=True)
        drawing.text(x, 20, f"{ms} ms", "small", "middle")
    for place, vcpu in enumerate(lanes):
        y = 66 + 52 * place
        drawing.text(10, y + 5, f"vcpu{vcpu}", "mono")
        drawing.line((left, y), (left + width, y), arrow=False)
        exits: dict[int, int] = {}
        for event in shown:
            if event.vcpu != vcpu:
                continue
            x = left + width * event.time / SHOWN
            if event.vector:
                drawing.line((x, y - 26), (x, y - 2))
            else:
                exits[int(x)] = exits.get(int(x), 0) + 1
        for x_whole, _ in sorted(exits.items()):
            drawing.line((x_whole, y - 1), (x_whole, y + 12), arrow=False)
    drawing.text(left, 58 + 52 * len(lanes),
                 "below the line: an exit; an arrow from above: an interrupt is injected", "small")
    return drawing
