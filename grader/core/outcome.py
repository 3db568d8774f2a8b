"""A run's result for tests: text, registers, and the kit's messages found in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from grader.core.readable import printable
from grader.execution.runs import Result

STATUS_GUEST_FILE = 65
STATUS_NO_KVM = 69
STATUS_CRASHED = 70
STATUS_TODO = 77

# The VMM prints it on standard error; lab 6's kernel prints it on its console and has its own status.
STATUS_KERNEL_TODO = 63
_TODO = re.compile(r"^(?:vmm|1K OS): exercise (\d\.\d) is not written yet: ([\w/.+~@-]{1,255}\.c), "
                   r"line (\d{1,6})\.$", re.M)
_REGISTER_LINE = re.compile(r"^vcpu(\d): (\w+=[0-9a-f]+ .*)$", re.M)
_WHERE = re.compile(r"^vmm: (vcpu\d is at .*)$", re.M)
_SANITIZER = re.compile(r"(?:ERROR|WARNING): (?:Address|Leak|Thread|Memory)Sanitizer:?.*|"
                        r"^.*runtime error: .*", re.M)
# Patterns are searched in so much: a hostile module could print a megabyte in each run, and a search may take
# as many steps as the square of a line's length. A solution prints 75 KB at most.
END_MAX = 1 << 16                    # characters at the start, and at the end
LINE_MAX = 500
_LONG_LINE = re.compile(rf"(.{{{LINE_MAX}}}).+")


def _bounded(text: str) -> str:
    if len(text) > 2 * END_MAX:
        text = f"{text[:END_MAX]}\n{text[-END_MAX:]}"
    return _LONG_LINE.sub(r"\1", text)


@dataclass(frozen=True)
class Todo:
    """Where execution reached an exercise that is not written yet."""

    exercise: str
    file: str
    line: int


@dataclass(frozen=True)
class Registers:
    """A vCPU's registers as printed by the kit: values, and the fields of each segment."""

    values: dict[str, int]
    segments: dict[str, dict[str, int]]
    repeated: tuple[str, ...]        # printed more than once, so not only by the kit


class Outcome:
    """The outcome of one run."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.stdout = result.stdout.decode("latin-1")  # one character per byte, without loss
        self.stderr = _bounded(result.stderr.decode("utf-8", "replace"))
        self.status = result.status

    @property
    def hung(self) -> bool:
        return self.result.hung

    @property
    def crashed(self) -> bool:
        """The VMM reports that the guest crashed."""
        return self.status == STATUS_CRASHED

    @property
    def todo(self) -> Todo | None:
        found = _TODO.search(self.stdout if self.status == STATUS_KERNEL_TODO else self.stderr)
        return Todo(found[1], printable(found[2]), int(found[3])) if found else None

    @property
    def where(self) -> list[str]:
        """Where each vCPU of a stopped VMM was, in the kit's words."""
        return _WHERE.findall(self.stderr)

    @property
    def words(self) -> str:
        """Standard error without those lines."""
        return "".join(line for line in self.stderr.splitlines(keepends=True) if not _WHERE.match(line))

    @property
    def sanitizer(self) -> str | None:
        """The first line of a sanitizer's report."""
        found = _SANITIZER.search(self.stderr)
        return found[0].strip() if found else None

    def lock_kept(self, halted: int) -> bool:
        """More threads of a stopped VMM wait in a futex than vCPUs sleep in HLT. The main thread, the first,
        may wait in a join; that of common/core/output.c waits for bytes."""
        threads = [line for line in self.result.diagnosis.splitlines() if line.lstrip().startswith("thread ")
                   and not line.lstrip().startswith("thread output:")]
        return sum("futex" in line for line in threads[1:]) > halted

    def said(self, pattern: str) -> bool:
        """Whether standard error matches this regular expression, ignoring case."""
        return re.search(pattern, self.stderr, re.I | re.M) is not None

    @cached_property
    def registers(self) -> dict[int, Registers]:
        """The final registers of each vCPU, from --regs or a post-mortem."""
        lines: dict[int, list[str]] = {}
        for found in _REGISTER_LINE.finditer(self.stderr):
            lines.setdefault(int(found[1]), []).append(found[2])
        return {vcpu: _parse_registers(text) for vcpu, text in lines.items()}


def _parse_registers(lines: list[str]) -> Registers:
    values: dict[str, int] = {}
    segments: dict[str, dict[str, int]] = {}
    repeated: list[str] = []
    for line in lines:
        fields = re.findall(r"\b(\w{1,16})=([0-9a-f]{1,16})\b", line)  # a module may print such lines as well
        if not fields:
            continue
        first = fields[0][0]
        if first in values or first in segments:
            repeated.append(first)
        elif " base=" in line:
            segments[first] = {"selector": int(fields[0][1], 16)}
            segments[first].update({key: int(text, 16 if key in ("base", "limit") else 10)
                                    for key, text in fields[1:] if key in ("base", "limit")
                                    or text.isdecimal()})
        else:
            values.update({key: int(text, 16) for key, text in fields})
    return Registers(values, segments, tuple(repeated))
