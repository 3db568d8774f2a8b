"""What each vCPU did, from the events of a record: the rows of the timeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from grader.commands.timeline.record import EXIT_HLT, EXIT_IO, NO_VCPU, Event, Kind, Record

GUEST, EXIT, HALTED, VMM = "guest", "exit", "halted", "vmm"  # the kinds of slices
UNKNOWN = -1  # a time

_LINE_PREFIX = re.compile(r"^(\033\[\d+m)?vcpu\d:(\033\[0m)? ")


@dataclass
class Slice:
    """A time in which a vCPU did one thing."""

    start: int
    end: int
    kind: str
    name: str
    rip: int = 0   # of an exit; 0: not known


@dataclass(frozen=True)
class Point:
    """Something that took no time."""

    time: int
    kind: str      # kick, line, merged, crashed, interrupted, ended, tick, input
    text: str


@dataclass
class Interrupt:
    """An interrupt from the time when its vector became pending to the entry that calls its handler."""

    vector: int
    raised: int = UNKNOWN
    injected: int = UNKNOWN
    entered: int = UNKNOWN
    until: int = UNKNOWN    # the next one, or the vCPU's end: what has not happened by then never does

    @property
    def span(self) -> tuple[int, int]:
        """When it began and when it was over."""
        over = next(time for time in (self.entered, self.until) if time != UNKNOWN)
        return (self.injected if self.raised == UNKNOWN else self.raised), over


@dataclass
class Row:
    """A vCPU, or the devices."""

    name: str
    guest: str = ""
    slices: list[Slice] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    interrupts: list[Interrupt] = field(default_factory=list)


def source_name(source: int) -> str:
    """The thread that caused an event."""
    return "another thread" if source == NO_VCPU else f"vcpu{source}"


class _Vcpu:
    """Builds the row of a vCPU, one event after the other."""

    def __init__(self, record: Record, row: Row) -> None:
        self._record = record
        self._row = row
        self._open: Slice | None = None
        self._ended = 0
        self._pending: dict[int, Interrupt] = {}
        self._injected: list[Interrupt] = []
        self._steps: dict[Kind, Callable[[Event], None]] = {
            Kind.STARTED: self._start, Kind.ENTERED: self._enter, Kind.EXITED: self._exit,
            Kind.INTERRUPTED: self._interrupt, Kind.WOKEN: self._wake, Kind.RAISED: self._raise,
            Kind.INJECTED: self._inject, Kind.MERGED: self._merge, Kind.KICKED: self._kick,
            Kind.PRINTED: self._print, Kind.CRASHED: self._crash, Kind.ENDED: self._end}

    def add(self, event: Event) -> None:
        """Takes the next event."""
        if self._open is None and event.kind in (Kind.EXITED, Kind.INTERRUPTED):
            # The events before were dropped.
            self._open = Slice(self._record.events[0].time, 0, GUEST, "in the guest")
        step = self._steps.get(event.kind)
        if step:
            step(event)

    def finish(self, end: int) -> Row:
        """The row, once all events were taken."""
        self._close(end)
        for interrupt in [*self._injected, *self._pending.values()]:
            interrupt.until = self._ended or end
        return self._row

    def _close(self, time: int) -> None:
        if self._open:
            self._open.end = time
            self._row.slices.append(self._open)
        self._open = None

    def _next(self, time: int, kind: str, name: str, rip: int = 0) -> None:
        self._close(time)
        self._open = Slice(time, time, kind, name, rip)

    def _point(self, event: Event, kind: str, text: str) -> None:
        self._row.points.append(Point(event.time, kind, text))

    def _start(self, event: Event) -> None:
        self._next(event.time, VMM, "the VMM, before the first entry")

    def _enter(self, event: Event) -> None:
        self._next(event.time, GUEST, "in the guest")
        for interrupt in self._injected:
            interrupt.entered = event.time
        self._injected = []

    def _exit(self, event: Event) -> None:
        name = self._record.reason(event.number)
        if event.number == EXIT_IO:
            name += f" {'out' if event.detail else 'in'} 0x{event.first:x}"
        elif event.first:
            name += f" {'write' if event.detail else 'read'} 0x{event.first:x}"
        self._next(event.time, EXIT, name, event.second)

    def _interrupt(self, event: Event) -> None:
        self._next(event.time, VMM, "the VMM, after KVM_RUN returned EINTR")
        self._point(event, "interrupted", "KVM_RUN returned EINTR: a signal or immediate_exit")

    def _wake(self, event: Event) -> None:
        if self._open:
            self._open.kind, self._open.name = HALTED, "halted: the handler of KVM_EXIT_HLT waits"
            self._next(event.time, EXIT, self._record.reason(EXIT_HLT), self._open.rip)

    def _raise(self, event: Event) -> None:
        interrupt = Interrupt(event.number, raised=event.time)
        for before in self._injected:
            if before.vector == event.number:
                before.until = event.time
        if event.number in self._pending:
            self._pending[event.number].until = event.time
        self._pending[event.number] = interrupt
        self._row.interrupts.append(interrupt)

    def _inject(self, event: Event) -> None:
        interrupt = self._pending.pop(event.number, None)
        if interrupt is None:
            interrupt = Interrupt(event.number)
            self._row.interrupts.append(interrupt)
        interrupt.injected = event.time
        self._injected.append(interrupt)

    def _merge(self, event: Event) -> None:
        self._point(event, "merged", f"vector 0x{event.number:x} is pending already: the interrupts merge")

    def _kick(self, event: Event) -> None:
        self._point(event, "kick", f"kicked by {source_name(event.source)}: signal {event.number}")

    def _print(self, event: Event) -> None:
        self._point(event, "line", _LINE_PREFIX.sub("", event.text))

    def _crash(self, event: Event) -> None:
        self._point(event, "crashed", "the guest crashed")

    def _end(self, event: Event) -> None:
        self._close(event.time)
        self._ended = event.time
        self._point(event, "ended", f"ended with status {event.number}")


def _device_points(events: list[Event]) -> Iterator[Point]:
    for event in events:
        if event.kind is Kind.TICK:
            more = f", {event.number} expirations" if event.number != 1 else ""
            yield Point(event.time, "tick", f"the timer expired{more}")
        elif event.kind is Kind.INPUT:
            text = f"{event.number} bytes of input" if event.number else "the input ended"
            yield Point(event.time, "input", text)


def rows(record: Record) -> list[Row]:
    """A row per vCPU; before them one for the devices, if they did anything."""
    guests = [guest.rpartition("/")[2] for guest in record.guests]
    vcpus = [_Vcpu(record, Row(f"vcpu{number}", guest)) for number, guest in enumerate(guests)]
    for event in record.events:
        if event.vcpu < len(vcpus):
            vcpus[event.vcpu].add(event)
    devices = Row("devices", points=list(_device_points(record.events)))
    return [*([devices] if devices.points else []), *(vcpu.finish(record.end) for vcpu in vcpus)]


def notes(record: Record, rows_: list[Row]) -> Iterator[str]:
    """What the record lacks, and what is wrong with the run."""
    vcpus = record.totals["vcpus"]
    if record.todo:
        yield f"Exercise {record.todo} is not written yet; the run ended there."
    elif record.status < 0:
        yield ("The VMM did not end by itself, so this is how far it came. KVM's own statistics, which are "
               "read at the end, are missing.")
    if record.dropped:
        yield (f"Of the events only the newest are shown; {record.dropped} earlier ones were dropped. "
               "The totals count all.")
    if record.lab < 4:
        yield f"The VMM of lab {record.lab} has no interrupts; lab 4 adds them."
    elif not record.todo and not any(row.name == "devices" for row in rows_) and not record.dropped:
        yield "The timer was never read, and no input: nothing can have raised an interrupt."
    exits = [slice_ for row in rows_ for slice_ in row.slices if slice_.kind == EXIT]
    if exits and not any(slice_.rip for slice_ in exits):
        yield "KVM hands no registers over with an exit (exercise 1.3), so the exits are shown without RIP."
    for number, vcpu in enumerate(vcpus):
        yield from _vcpu_notes(number, vcpu, record)


def _vcpu_notes(number: int, vcpu: "dict[str, object]", record: Record) -> Iterator[str]:
    name = f"vcpu{number}"
    injected = 0
    if not vcpu["entries"]:
        yield f"{name} was never entered."
    elif vcpu["status"] == -1 and record.status >= 0:
        yield f"{name} had not ended when the VMM did."
    vectors = vcpu["vectors"]
    assert isinstance(vectors, list)
    for vector in vectors:
        injected += vector["injected"]
        lost = vector["lost"]
        if lost > 0:
            yield (f"{name}, vector 0x{vector['vector']:x}: {lost} of {vector['raised']} interrupts were "
                   "lost: raised, but neither injected nor still pending.")
        elif lost < 0:
            yield (f"{name}, vector 0x{vector['vector']:x}: {-lost} more injected than raised under "
                   "vcpu->lock: an interrupt came twice, or pending changes without the lock.")
    if vcpu["status"] != -1 and injected != vcpu["interrupts"]:
        yield (f"{name}: KVM_INTERRUPT succeeded {injected} times, but vcpu->interrupts is "
               f"{vcpu['interrupts']} (exercise 4.2).")
    if vcpu["status"] != -1 and not vcpu["kvm"]:
        yield f"{name}: this kernel has no statistics of KVM (KVM_GET_STATS_FD, Linux 5.14)."
