"""The timeline as a page: one file, which opens from disk."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

from grader.commands.timeline.record import Record
from grader.commands.timeline.story import Row, notes

FOLDER = Path(__file__).parent

TIMES = {"guest_ns": "in the guest", "vmm_ns": "in the VMM", "halted_ns": "halted"}
COUNTS = {"exits": "exits", "entries": "entries", "interrupted": "entries interrupted", "kicks": "kicks",
          "lines": "lines printed", "interrupts": "interrupts, as the module counts"}
LATENCIES = {"latency_median_ns": "median", "latency_worst_ns": "worst"}


def milliseconds(ns: int) -> str:
    return f"{ns / 1e6:.3f} ms"


def microseconds(ns: int) -> str:
    return f"{ns / 1e3:.1f} µs"


def _row(title: str, key: str, cells: Sequence[tuple[Any, str]]) -> str:
    """A row of a table; each cell has its exact value in data-value."""
    text = "".join(f'<td data-key="{html.escape(key)}" data-value="{value}">{html.escape(shown)}</td>'
                   for value, shown in cells)
    return f"<tr><td>{html.escape(title)}</td>{text}</tr>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *heads))
    return (f'<div class="table"><table><thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>')


def _merged_keys(vcpus: Sequence[dict[str, Any]], part: str, name: Any) -> list[str]:
    """The names of what any of the vCPUs has, in order of appearance."""
    return list(dict.fromkeys(name(item) for vcpu in vcpus for item in vcpu[part]))


def kind_name(kind: dict[str, Any]) -> str:
    """KVM_EXIT_IO out 0x500."""
    if "port" in kind:
        return f"{kind['reason']} {kind['direction']} 0x{kind['port']:x}"
    return kind["reason"] or "exits of other kinds"


def vector_name(vector: dict[str, Any]) -> str:
    return f"vector 0x{vector['vector']:x}"


def _vcpu_rows(vcpus: Sequence[dict[str, Any]]) -> Iterator[str]:
    for key, title in TIMES.items():
        yield _row(title, key, [(vcpu[key], milliseconds(vcpu[key])) for vcpu in vcpus])
    for key, title in COUNTS.items():
        yield _row(title, key, [(vcpu[key], str(vcpu[key])) for vcpu in vcpus])
    statuses = [vcpu["status"] for vcpu in vcpus]
    yield _row("status", "status", [(status, "not ended" if status < 0 else str(status))
                                    for status in statuses])


def _kind_rows(vcpus: Sequence[dict[str, Any]]) -> Iterator[str]:
    for name in _merged_keys(vcpus, "kinds", kind_name):
        found = [next((kind for kind in vcpu["kinds"] if kind_name(kind) == name), {"count": 0, "vmm_ns": 0})
                 for vcpu in vcpus]
        yield _row(name, name, [(kind["count"], str(kind["count"])) for kind in found])
        yield _row("in the VMM for each, on average", f"{name} cost",
                   [(kind["vmm_ns"], microseconds(kind["vmm_ns"] // max(1, kind["count"])))
                    for kind in found])


def _interrupt_rows(vcpus: Sequence[dict[str, Any]]) -> Iterator[str]:
    for name in _merged_keys(vcpus, "vectors", vector_name):
        found: list[dict[str, int]] = [
            next((vector for vector in vcpu["vectors"] if vector_name(vector) == name), {}) for vcpu in vcpus]
        for key in ("raised", "merged", "injected", "pending", "lost"):
            title = {"pending": "still pending at the end"}.get(key, key)
            yield _row(f"{name}: {title}", f"{name} {key}",
                       [(vector.get(key, 0), str(vector.get(key, 0))) for vector in found])
    for key, title in LATENCIES.items():
        if any(vcpu[key] for vcpu in vcpus):
            yield _row(f"from raised to injected: {title}", key,
                       [(vcpu[key], microseconds(vcpu[key])) for vcpu in vcpus])


def _kvm_rows(owners: Sequence[dict[str, Any]]) -> Iterator[str]:
    for name in dict.fromkeys(name for owner in owners for name in owner["kvm"]):
        values = [owner["kvm"].get(name, 0) for owner in owners]
        if any(values):
            yield _row(name, f"kvm {name}", [(value, str(value)) for value in values])


def totals(record: Record) -> str:
    """The tables below the timeline."""
    vcpus, vms = record.totals["vcpus"], record.totals["vms"]
    names = [f"vcpu{vcpu['vcpu']}" for vcpu in vcpus]
    parts = [_table(names, list(_vcpu_rows(vcpus))), "<h3>Exits</h3>", _table(names, list(_kind_rows(vcpus)))]
    interrupts = list(_interrupt_rows(vcpus))
    if interrupts:
        parts += ["<h3>Interrupts</h3>", _table(names, interrupts)]
    vm_names = [f"vm{number}" for number in range(len(vms))]
    for title, heads, owners in (("of each vCPU", names, vcpus), ("of each VM", vm_names, vms)):
        table = _table(heads, list(_kvm_rows(owners)))
        if any(owner["kvm"] for owner in owners):
            parts.append(f"<details><summary>KVM's own statistics {title}</summary>{table}</details>")
    return "\n".join(parts)


def drawn(record: Record, rows: list[Row]) -> dict[str, Any]:
    """What page.js draws. Each name of a slice is there once."""
    names: dict[tuple[str, str], int] = {}
    found = [{"name": row.name, "guest": row.guest,
              "slices": [[slice_.start, slice_.end - slice_.start,
                          names.setdefault((slice_.kind, slice_.name), len(names)), slice_.rip]
                         for slice_ in row.slices],
              "points": [[point.time, point.kind, point.text] for point in row.points],
              "interrupts": [[interrupt.vector, interrupt.raised, interrupt.injected, interrupt.entered,
                              *interrupt.span] for interrupt in row.interrupts]} for row in rows]
    return {"end": record.end, "names": list(names), "rows": found}


def title_of(record: Record) -> str:
    """Lab and guests."""
    guests = ", ".join(guest.rpartition("/")[2] for guest in record.guests)
    return f"Timeline of lab {record.lab}: {guests}"


def page(record: Record, rows: list[Row]) -> str:
    """The whole file."""
    found = list(notes(record, rows))
    summary = f"{milliseconds(record.end)}; vCPUs: {len(record.guests)}."
    if record.status >= 0:
        summary += f" The VMM ended with status {record.status}."
    # In a script element, only "</" and "<!" have a meaning.
    data = json.dumps(drawn(record, rows), separators=(",", ":")).replace("<", "\\u003c")
    items = "".join(f"<li>{html.escape(note)}</li>" for note in found)
    return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title_of(record)), summary=html.escape(summary),
        notes=f'<ul class="notes">{items}</ul>' if items else "", totals=totals(record), data=data,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=(FOLDER / "page.js").read_text(encoding="utf-8"))
