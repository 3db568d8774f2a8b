"""The numbers of the contract's headers, for the figures."""

from __future__ import annotations

import re

from grader.course import ROOT


def constants(*headers: str) -> dict[str, int]:
    """The numbers that these headers of the contract define."""
    text = "".join((ROOT / "common/contract" / header).read_text() for header in headers)
    numbers = re.findall(r"^#define (\w+) +(-?\d\w*?)u?l*\b", text, re.M)
    return {name: int(value, 0) for name, value in numbers}


ABI = constants("abi.h")
PC = constants("pc.h", "lab8.h")
