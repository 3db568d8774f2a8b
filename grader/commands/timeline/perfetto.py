"""The timeline as a trace that https://ui.perfetto.dev and chrome://tracing open: JSON trace events. Slices
of the same track do not overlap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from grader.commands.timeline.story import UNKNOWN, Interrupt, Row

PROCESS = 1
TRACKS_EACH = 100  # numbers of tracks for a row: its own, then one for each vector


def microseconds(ns: int) -> float:
    """The unit of trace events."""
    return ns / 1000


def _slice(track: int, start: int, end: int, name: str, **details: Any) -> dict[str, Any]:
    return {"ph": "X", "pid": PROCESS, "tid": track, "ts": microseconds(start),
            "dur": microseconds(end - start), "name": name, **({"args": details} if details else {})}


def _named(track: int, name: str) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": PROCESS, "tid": track, "name": "thread_name", "args": {"name": name}}
    yield {"ph": "M", "pid": PROCESS, "tid": track, "name": "thread_sort_index",
           "args": {"sort_index": track}}


def _vector(interrupts: list[Interrupt], track: int, own: int) -> Iterator[dict[str, Any]]:
    """The interrupts of one vector: pending, then injected until the entry; an arrow to that entry."""
    for number, interrupt in enumerate(interrupts):
        begun, over = interrupt.span
        if interrupt.until != UNKNOWN:  # if another one is raised before the entry, it takes over
            over = min(over, interrupt.until)
        if interrupt.raised != UNKNOWN:
            until = over if interrupt.injected == UNKNOWN else interrupt.injected
            yield _slice(track, begun, until, "pending")
        if interrupt.injected != UNKNOWN:
            yield _slice(track, interrupt.injected, max(over, interrupt.injected), "injected")
        if interrupt.raised != UNKNOWN and interrupt.entered != UNKNOWN:
            arrow = {"cat": "interrupt", "name": f"vector 0x{interrupt.vector:x}", "pid": PROCESS,
                     "id": track * 1_000_000 + number}
            yield {"ph": "s", "tid": track, "ts": microseconds(interrupt.raised), **arrow}
            yield {"ph": "f", "bp": "e", "tid": own, "ts": microseconds(interrupt.entered), **arrow}


def trace_events(title: str, rows: list[Row]) -> Iterator[dict[str, Any]]:
    """All events of the trace."""
    yield {"ph": "M", "pid": PROCESS, "name": "process_name", "args": {"name": title}}
    for place, row in enumerate(rows):
        own = place * TRACKS_EACH + 1
        yield from _named(own, f"{row.name} {row.guest}".rstrip())
        for slice_ in row.slices:
            details = {"rip": f"0x{slice_.rip:x}"} if slice_.rip else {}
            yield _slice(own, slice_.start, slice_.end, slice_.name, **details)
        for point in row.points:
            yield {"ph": "i", "s": "t", "pid": PROCESS, "tid": own, "ts": microseconds(point.time),
                   "name": f"prints: {point.text}" if point.kind == "line" else point.text}
        for offset, vector in enumerate(sorted({interrupt.vector for interrupt in row.interrupts}), 1):
            yield from _named(own + offset, f"{row.name} vector 0x{vector:x}")
            of_it = [interrupt for interrupt in row.interrupts if interrupt.vector == vector]
            yield from _vector(of_it, own + offset, own)


def trace(title: str, rows: list[Row]) -> str:
    """The file: one event per line."""
    lines = (json.dumps(event, separators=(",", ":")) for event in trace_events(title, rows))
    return '{"displayTimeUnit":"ns","traceEvents":[\n' + ",\n".join(lines) + "\n]}\n"
