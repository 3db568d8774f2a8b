"""Conditions on the outcome of a run, each with a message for its failure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from grader.core.outcome import Outcome
from grader.core.readable import visible


@dataclass(frozen=True)
class Mismatch:
    """What is wrong, in one line; if texts were compared, both of them."""

    text: str
    expected: str | None = None
    got: str | None = None


Condition = Callable[[Outcome], Optional[Mismatch]]


@dataclass(frozen=True)
class Expectation:
    """A condition and the hint for its failure; without a hint, the test's own is used."""

    condition: Condition
    hint: str = ""


def exits(status: int) -> Condition:
    """The VMM ends with this exit status."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if outcome.status == status:
            return None
        return Mismatch(f"expected exit status {status}, got {outcome.result}")
    return condition


def prints(*accepted: str) -> Condition:
    """Standard output is exactly one of these texts. A mismatch shows the one with most lines in common."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if outcome.stdout in accepted:
            return None
        got = outcome.stdout.splitlines()
        nearest = max(accepted, key=lambda text: sum(a == b for a, b in zip(text.splitlines(), got)))
        return Mismatch("the output differs from what the guest prints", nearest, outcome.stdout)
    return condition


def prints_lines(lines: Sequence[str]) -> Condition:
    """Standard output has exactly these lines, in any order between vCPUs but in order for each vCPU."""
    def condition(outcome: Outcome) -> Mismatch | None:
        expected = _by_vcpu("".join(line + "\n" for line in lines))
        got = _by_vcpu(outcome.stdout)
        if got == expected:
            return None
        return Mismatch("the lines differ from those that the guests print (sorted by vCPU below)",
                        "".join(expected), "".join(got))
    return condition


def _by_vcpu(text: str) -> list[str]:
    """The lines sorted by vCPU name, in order for each vCPU."""
    return sorted(text.splitlines(keepends=True), key=lambda line: line.partition(":")[0])


def says(pattern: str, what: str) -> Condition:
    """Standard error matches this regular expression, which means that it mentions `what`."""
    def condition(outcome: Outcome) -> Mismatch | None:
        return None if outcome.said(pattern) else Mismatch(f"standard error does not mention {what}")
    return condition


def registers(vcpu: int, **wanted: int) -> Condition:
    """The final registers hold these values, e.g. rax=1 or ds_base=0x40000."""
    def condition(outcome: Outcome) -> Mismatch | None:
        found = outcome.registers.get(vcpu)
        if not found:
            return Mismatch(f"the final registers of vcpu{vcpu} were not printed; the VMM ended with "
                            f"{outcome.result}")
        if found.repeated:
            return Mismatch(f"{found.repeated[0]} of vcpu{vcpu} appears more than once on standard error: "
                            "only the kit may print the final registers")
        got = {name: _register(found.values, found.segments, name) for name in wanted}
        if got == wanted:
            return None
        wrong = [name for name in wanted if got[name] != wanted[name]]
        return Mismatch("the final registers differ: " + ", ".join(wrong),
                        _table(wanted), _table(got))
    return condition


def _register(values: dict[str, int], segments: dict[str, dict[str, int]], name: str) -> int:
    segment, _, field = name.partition("_")
    return segments.get(segment, {}).get(field, -1) if field else values.get(name, -1)


def _table(values: dict[str, int]) -> str:
    return "".join(f"{name}={value:#x}\n" for name, value in values.items())


def kernel_panic(outcome: Outcome) -> str:
    """The message of a kernel panic in lab 6, to append to a sentence; or nothing."""
    panic = re.search(r"^1K OS panic: (.*)\n", outcome.stdout, re.M)
    trace = panic and re.compile(r"^stack trace:\n  0x\w+ (\w+)", re.M).search(outcome.stdout, panic.end())
    if not panic or not trace:
        return ""
    where = "" if trace[1] == "nowhere" else f" in {trace[1]}"      # not in the kernel
    return f"; the kernel panicked{where}: {panic[1]}"


def kernel_unit_passes(case: str, lines: Sequence[str]) -> Condition:
    """Lab 6's unit kernel prints these lines, in this order, and nothing else.

    The learner's code runs in the kernel: what decides is compared here, and is never in its memory.
    """
    def condition(outcome: Outcome) -> Mismatch | None:
        expected = "".join(lines)
        if outcome.status == 0 and outcome.stdout == expected:
            return None
        failed = re.search(r"^not ok: (.*)$", outcome.stdout, re.M)
        if failed:
            return Mismatch(failed[1])
        text = f"the unit test {case} did not finish: {outcome.result}" + kernel_panic(outcome)
        if outcome.status == 0:
            text = f"the unit test {case} did not print the expected facts"
        return Mismatch(text, expected, outcome.stdout)
    return condition


def unit_passes(case: str) -> Condition:
    """A Check program's TAP output reports that all tests of this test case passed.

    The module's code has no way to this output: see grader/labs/apart.h.
    """
    def condition(outcome: Outcome) -> Mismatch | None:
        plan = re.findall(r"^1\.\.(\d+)$", outcome.stdout, re.M)
        lines = re.findall(r"^(ok|not ok) (\d+) - (.*)$", outcome.stdout, re.M)
        failed = [_failure(text) for word, _, text in lines if word == "not ok"]
        if failed:
            return Mismatch(failed[0])
        numbers = [number for _, number, _ in lines]
        if not lines or plan != [str(len(lines))] or numbers != [str(i + 1) for i in range(len(lines))]:
            return Mismatch(f"the unit tests of {case} did not finish: {outcome.result}")
        return None
    return condition


def _failure(text: str) -> str:
    """The message part of Check's "file.c:case:test: message"."""
    return visible(text.split(": ", 1)[-1])
