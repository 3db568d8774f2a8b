"""What a test declares: its guests, its runs, and what must come of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol, Union

from grader.core import expectations as expect
from grader.core.expectations import Condition, Expectation
from grader.core.framework import Test
from grader.core.guests import Define, assemble
from grader.core.outcome import Outcome
from grader.execution.runs import Limits, Run, plain_environment
from grader.core.values import Values

Guest = Union[Path, str]

# Sanitizers' reports are judged by their text; a report must not look like a guest's own status.
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
    "TSAN_OPTIONS": "exitcode=99:die_after_fork=0",
}


class Programs(Protocol):
    """The learner's programs of one grading, built when they are first asked for."""

    folder: Path                     # for what this grading makes

    def vmm(self) -> Path: ...

    def unit(self, source: str) -> Path: ...

    def kernel(self) -> Path: ...            # lab 6: with the learner's scheduler

    def kernel_unit(self) -> Path: ...       # lab 6: units/sched.c with that scheduler

    def finished_vmm(self) -> Path: ...      # lab 6: what that kernel is tried on


@dataclass(frozen=True)
class Symptom:
    """A mistake that is known: what it looks like, and the hint that helps."""

    shows: Callable[[Outcome], bool]
    hint: str


@dataclass
class Planned:
    """One run and what must come of it. Conditions are looked at in the order of their declaration."""

    run: Run
    expectations: list[Expectation] = field(default_factory=list)
    symptoms: list[Symptom] = field(default_factory=list)
    unit: bool = False               # a Check program: it exits with 0 whatever its tests find
    white_box: bool = False          # it calls the learner's functions by themselves

    def must(self, condition: Condition, hint: str = "") -> None:
        """Any condition; the methods below are the usual ones."""
        self.expectations.append(Expectation(condition, hint))

    def exits(self, status: int, hint: str = "") -> None:
        """The VMM's exit status."""
        self.must(expect.exits(status), hint)

    def prints(self, *accepted: str, hint: str = "") -> None:
        """All of standard output, byte for byte; one of several texts."""
        self.must(expect.prints(*accepted), hint)

    def prints_lines(self, lines: Sequence[str], hint: str = "") -> None:
        """Whole lines of several vCPUs, each vCPU's in order."""
        self.must(expect.prints_lines(lines), hint)

    def says(self, pattern: str, *, what: str, hint: str = "") -> None:
        """Standard error matches this regular expression: it tells `what`."""
        self.must(expect.says(pattern, what), hint)

    def registers(self, vcpu: int = 0, *, hint: str = "", **values: int) -> None:
        """Final registers (boot with --regs): rax=..., or a segment's field: ds_base=..."""
        self.must(expect.registers(vcpu, **values), hint)

    def symptom(self, shows: Callable[[Outcome], bool], hint: str) -> None:
        """Recognises a mistake when the test has failed."""
        self.symptoms.append(Symptom(shows, hint))


class Plan:
    """Handed to a test's function."""

    def __init__(self, test: Test, seed: int, programs: Programs, sealed: bool = False) -> None:
        self.test = test
        self.values = Values(seed, test.id)
        self.planned: list[Planned] = []
        self._programs = programs
        self._guests = 0
        self._sealer = Random(f"{seed} {test.id} seal") if sealed else None

    def guest(self, name: str, **defines: Define) -> Path:
        """guests/NAME.asm, assembled with these values (nasm -D) for this test alone."""
        self._guests += 1
        folder = self._programs.folder / self.test.id / f"guest{self._guests}"
        return assemble(name, folder / f"{name}.bin", self._sealer, **defines)

    def file(self, name: str, content: bytes) -> Path:
        """A file made for this test, to be handed to the VMM."""
        path = self._programs.folder / self.test.id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def boot(self, *guests: Guest, args: Sequence[str] = (), **keywords: Any) -> Planned:
        """The VMM with these guests. `keywords` are fields of grader.execution.runs.Run: stdin, steps ..."""
        return self._add((str(self._programs.vmm()), *args, *map(str, guests)), **keywords)

    def boot_kernel(self, *, args: Sequence[str] = (), **keywords: Any) -> Planned:
        """Lab 6's kernel with the learner's scheduler, on the finished VMM."""
        vmm, kernel = self._programs.finished_vmm(), self._programs.kernel()
        return self._add((str(vmm), *args, str(kernel)), **keywords)

    def kernel_unit(self, case: str, **keywords: Any) -> Planned:
        """Lab 6: one test of units/sched.c, a kernel of its own on the finished VMM."""
        vmm, kernel, answer = self._programs.finished_vmm(), self._programs.kernel_unit(), self.values.word()
        order = self.file("test", case.encode().ljust(16, b"\0") + answer.encode())
        planned = self._add((str(vmm), f"--initrd={order}", str(kernel)), **keywords)
        planned.white_box = True
        planned.must(expect.kernel_unit_passes(case, answer))
        return planned

    def unit(self, source: str, case: str, **keywords: Any) -> Planned:
        """One test case of units/SOURCE.c, linked with the learner's module."""
        # Check itself ends a test that hangs, and says which.
        keywords.setdefault("limits", Limits(still=0))
        planned = self._add((str(self._programs.unit(source)),), **keywords)
        environment = {**planned.run.env, "CK_RUN_CASE": case, "CK_TAP_LOG_FILE_NAME": "-",
                       "CK_VERBOSITY": "silent", "TEMP": ".", "UNIT_SEED": str(self.values.getrandbits(31))}
        planned.run = replace(planned.run, env=environment)
        planned.unit = planned.white_box = True
        planned.must(expect.unit_passes(case))
        return planned

    def _add(self, argv: tuple[str, ...], **keywords: Any) -> Planned:
        keywords.setdefault("env", {**plain_environment(), **SANITIZER_ENVIRONMENT})
        planned = Planned(Run(argv, **keywords))
        self.planned.append(planned)
        return planned
