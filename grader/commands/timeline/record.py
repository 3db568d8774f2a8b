"""The record of a run, as the VMM's --record writes it: common/debug/record.h and meter.h."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAGIC = b"MKVMREC\1"
NO_VCPU = 0xff        # the devices, or a thread that runs no vCPU
EXIT_NONE = 0xffffffff
EXIT_IO = 2           # KVM_EXIT_IO
EXIT_HLT = 5          # KVM_EXIT_HLT
TIMER_VECTOR = 0x20   # as in common/contract/abi.h
VCPUS_MAX = 4
EXIT_REASONS_MAX = 64
EXIT_KINDS_MAX = 24
VECTORS_MAX = 32
LATENCY_STEPS = 16
LATENCY_BUCKETS = 40 * LATENCY_STEPS
KVM_STATS_MAX = 64
CONTINUES = 0x80

HEADER = struct.Struct("<8s5Ii3Q8s")
EVENT = struct.Struct("<Q4BI2Q")
KIND = struct.Struct("<2I3Q")
COUNTS = struct.Struct("<3Q")
STAT = struct.Struct("<48sQ")


class Kind(enum.IntEnum):
    """enum event_kind."""

    STARTED = 1
    ENTERED = 2
    EXITED = 3
    INTERRUPTED = 4
    WOKEN = 5
    RAISED = 6
    MERGED = 7
    INJECTED = 8
    KICKED = 9
    PRINTED = 10
    CRASHED = 11
    ENDED = 12
    TICK = 13
    INPUT = 14


class NoRecord(Exception):
    """The file is not a record of a run; the text says why."""


@dataclass(frozen=True)
class Event:
    """struct event; the time is in nanoseconds since the start."""

    time: int
    kind: Kind
    vcpu: int
    source: int
    detail: int
    number: int
    first: int   # a
    second: int  # b
    text: str = ""


@dataclass(frozen=True)
class Record:
    """A decoded record. `totals` has the form of --stats=json."""

    lab: int
    guests: list[str]
    status: int          # the VMM's; -1: it did not end by itself
    todo: str            # the exercise that ended it, or ""
    end: int             # nanoseconds; the time of the latest event
    dropped: int         # events that are not in `events`: the earliest
    reasons: list[str]   # names of exits
    events: list[Event] = field(repr=False)
    totals: dict[str, Any] = field(repr=False)

    def reason(self, number: int) -> str:
        """The name of an exit."""
        return _reason(number, self.reasons)


def _reason(number: int, reasons: list[str]) -> str:
    return reasons[number] if number < len(reasons) else f"exit reason {number}"


def text_of(data: bytes) -> str:
    """A C string in a field."""
    return data.partition(b"\0")[0].decode("utf-8", "replace")


class _Reader:
    """Takes one part of the file after another."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self._offset = offset

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        values = form.unpack_from(self._data, self._offset)
        self._offset += form.size
        return values

    def numbers(self, count: int, form: str = "Q") -> tuple[int, ...]:
        return self.take(struct.Struct(f"<{count}{form}"))

    def strings(self, count: int, size: int) -> list[str]:
        return [text_of(self.take(struct.Struct(f"{size}s"))[0]) for _ in range(count)]


def _kvm(reader: _Reader) -> dict[str, int]:
    """struct kvm_stats."""
    [count] = reader.numbers(1)
    stats = [reader.take(STAT) for _ in range(KVM_STATS_MAX)]
    return {text_of(name): value for name, value in stats[:count]}


def latency_median(buckets: tuple[int, ...], worst: int) -> int:
    """As latency_median in common/debug/meter.c."""
    wanted, seen = (sum(buckets) + 1) // 2, 0
    for bucket, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            octave, step = divmod(bucket, LATENCY_STEPS)
            width = 1 << (octave - 1) if octave else 0
            return min((LATENCY_STEPS + step) * width + width // 2 if octave else step, worst)
    return 0


def _vcpu(reader: _Reader, number: int, reasons: list[str]) -> dict[str, Any]:
    """struct vcpu_totals, in the form of --stats=json."""
    status, = reader.take(struct.Struct("<q"))
    interrupts, guest, vmm, halted, entries, interrupted, kicks, lines = reader.numbers(8)
    kinds = [reader.take(KIND) for _ in range(EXIT_KINDS_MAX)]
    counts = [reader.take(COUNTS) for _ in range(VECTORS_MAX)]
    pending, _ = reader.numbers(2, "I")
    [worst] = reader.numbers(1)
    latencies = reader.numbers(LATENCY_BUCKETS)
    totals: dict[str, Any] = {"vcpu": number, "status": status, "exits": sum(kind[3] for kind in kinds),
                              "interrupts": interrupts}
    for reason in sorted({kind[0] for kind in kinds if kind[3] and kind[0] != EXIT_NONE}):
        totals[_reason(reason, reasons)] = sum(kind[3] for kind in kinds if kind[0] == reason)
    totals.update(guest_ns=guest, vmm_ns=vmm, halted_ns=halted, entries=entries, interrupted=interrupted,
                  kicks=kicks, lines=lines, kinds=[_kind(kind, reasons) for kind in kinds if kind[3]])
    totals["vectors"] = [
        {"vector": TIMER_VECTOR + bit, "raised": raised, "merged": merged, "injected": injected,
         "pending": pending >> bit & 1, "lost": raised - injected - (pending >> bit & 1)}
        for bit, (raised, merged, injected) in enumerate(counts) if raised or injected]
    totals.update(latency_median_ns=latency_median(latencies, worst), latency_worst_ns=worst)
    totals["kvm"] = _kvm(reader)
    return totals


def _kind(kind: tuple[int, ...], reasons: list[str]) -> dict[str, Any]:
    """struct exit_kind."""
    reason, out, port, count, vmm = kind
    name = "" if reason == EXIT_NONE else _reason(reason, reasons)
    place = {"direction": "out" if out else "in", "port": port} if reason == EXIT_IO else {}
    return {"reason": name, **place, "count": count, "vmm_ns": vmm}


def _event(data: bytes, offset: int) -> Event:
    time, kind, vcpu, source, detail, number, first, second = EVENT.unpack_from(data, offset)
    text = ""
    if kind == Kind.PRINTED:
        start = offset + EVENT.size - 20
        text = data[start:start + (detail & ~CONTINUES)].decode("latin-1")
    return Event(time, Kind(kind), vcpu, source, detail, number, first, second, text)


def _joined(events: list[Event]) -> list[Event]:
    """Each printed line as one event."""
    joined: list[Event] = []
    parts: dict[int, str] = {}
    for event in events:
        if event.kind is Kind.PRINTED:
            parts[event.vcpu] = parts.get(event.vcpu, "") + event.text
            if event.detail & CONTINUES:
                continue
            line = parts.pop(event.vcpu).encode("latin-1").decode("utf-8", "replace")
            event = Event(event.time, event.kind, event.vcpu, event.source, 0, 0, 0, 0, line)
        joined.append(event)
    return joined


def decode(data: bytes) -> Record:
    """The record in a file's bytes. Raises NoRecord."""
    if data[:len(MAGIC)] != MAGIC or len(data) < HEADER.size:
        raise NoRecord("it does not begin like a record")
    (_, size, event_size, capacity, lab, guests, status, start, count, end, todo) = HEADER.unpack_from(data)
    if event_size != EVENT.size or len(data) < size + capacity * event_size or guests > VCPUS_MAX:
        raise NoRecord("its sizes are not those of this kit")
    if start == 0:
        raise NoRecord("the VMM ended before it ran a guest")
    reader = _Reader(data, HEADER.size)
    names = reader.strings(VCPUS_MAX, 64)[:guests]
    reasons = reader.strings(EXIT_REASONS_MAX, 32)
    vcpus = [_vcpu(reader, number, reasons) for number in range(VCPUS_MAX)][:guests]
    vms = [{"kvm": _kvm(reader)} for _ in range(VCPUS_MAX)]
    # If the VMM was killed, it may just have begun to write the next event over the oldest one.
    kept = min(count, capacity - 1)
    events = [_event(data, size + number % capacity * event_size) for number in range(count - kept, count)]
    events.sort(key=lambda event: event.time)  # threads take the time before they append
    return Record(lab, names, status, text_of(todo), end, count - kept, reasons, _joined(events),
                  {"vcpus": vcpus, "vms": [vm for vm in vms if vm["kvm"]]})


def read(path: Path) -> Record:
    """The record in a file. Raises NoRecord."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise NoRecord(error.strerror) from error
