"""The results of `make bench` on the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Sequence
from typing import Any, Union

from grader.execution.kvm_probe import KINDS, probe_kvm
from grader.quality.bench.cases import Comparison, Measured, Spread
from grader.quality.bench.counts import EXACT

VERSION = 1                # of the JSON's shape

TITLES = {"exit": "exit: one round trip to the VMM",
          "start": "start: from exec of the VMM, and memory of its process with the guest's touched pages",
          "interrupt": "interrupt: from outside to the guest's handler and back",
          "vcpus": "vcpus: four vCPUs against one",
          "compute": "compute: a guest that does not exit",
          "os": "os: the 1K OS against Linux on the same processor",
          "linux": "linux: Debian's kernel",
          "grading": "grading: make grade SOLUTION=1",
          "class": "class: make grade-class",
          "suite": "suite: the kit's own tests"}


def machine(why: str, on_host: bool) -> dict[str, Any]:
    """What the figures come from."""
    model, flags = "unknown processor", ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() == "flags":
                flags = value
    constant = on_host and {"constant_tsc", "nonstop_tsc"} <= set(flags.split())
    return {"processor": model, "processors": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "back_end": why, "constant_tsc": constant,
            "kvm_lacks": probe_kvm().reason_against(list(KINDS)) if on_host else "",
            "date": time.strftime("%Y-%m-%d")}


def remarks(about: dict[str, Any]) -> list[str]:
    """What can't be measured on this machine's KVM."""
    if str(about["back_end"]).startswith("vm"):
        return ["The lab VM emulates its processor in software, on one processor: an exit costs some hundred "
                "times what it does on hardware, so what the VMM adds looks smaller; cycles are those of an "
                "emulated clock, native code is emulated as well, and a second vCPU gains nothing."]
    if about["kvm_lacks"]:
        return [f"Probably made in software: {about['kvm_lacks']}. An exit then costs some ten times what it "
                "does on hardware, and what the VMM adds looks smaller."]
    if not about["constant_tsc"]:
        return ["The time stamp counter is not constant here: cycles are not comparable between runs."]
    return []


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: Spread) -> str:
    """A ratio, with its spread."""
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def against(measured: Measured) -> list[str]:
    """The comparisons of a figure, in words."""
    def text(comparison: Comparison, ideal: Union[float, None]) -> str:
        perfect = f", ideal {ideal:.2g}" if ideal is not None else ""
        return f"{ratio(comparison.ratio)} x {comparison.name}{perfect}"
    return [text(comparison, None if at else measured.ideal)
            for at, comparison in enumerate(measured.against)]


def lines(measured: Sequence[Measured]) -> list[str]:
    """The figures of one row, for the terminal."""
    text = []
    for figure in measured:
        if figure.value is None:
            text.append(f"  {figure.title:40} -- {figure.note}")
            continue
        first, *rest = [*against(figure), *([figure.note] if figure.note else [])] or [""]
        text.append(f"  {figure.title:40} {number(figure.value.median):>9} {figure.unit:6}  {first}".rstrip())
        text += [f"{'':61}{other}" for other in rest]
    return text


def count_lines(counts: "dict[str, int | None]") -> list[str]:
    """The exits of the reference guests, for the terminal."""
    text = []
    for name, found in counts.items():
        expected = EXACT.get(name)
        verdict = "" if expected is None else " (exact)" if found == expected else f" -- {expected} expected"
        number_text = f"{found:,}" if found else "failed"
        text.append(f"  {name:48} {number_text}{verdict}")
    return text


def as_json(about: dict[str, Any], measured: Sequence[Measured], counts: "dict[str, int | None]") -> str:
    """Everything, for programs."""
    return json.dumps({"version": VERSION, "machine": about, "remarks": remarks(about),
                       "figures": [dataclasses.asdict(figure) for figure in measured],
                       "exits": counts}, indent=1)
