"""What a test declares: its guests, its runs, and the expected result of each run."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol, Union

from grader.core import expectations as expect
from grader.core.expectations import Condition, Expectation
from grader.core.framework import Test
from grader.core.guests import Define, assemble
from grader.core.line_code import KERNEL, LineCode
from grader.core.outcome import Outcome
from grader.execution.runs import Run, plain_environment
from grader.core.values import Values

Guest = Union[Path, str]

# Sanitizer reports are recognized by their text; their status must not look like a guest's own.
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:abort_on_error=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
    # A program that ends waits for races of threads that still run, by default for a second. A unit test's
    # signal handler may start a thread: what it interrupts is the module's code, which holds no lock of libc.
    "TSAN_OPTIONS": "exitcode=99:die_after_fork=0:report_signal_unsafe=0:atexit_sleep_ms=100",
}
# The search for leaks when a program ends takes a third of a unit program's time. It finds none of the
# module's: that runs in a process which is killed (grader/labs/apart.h).
UNIT_SANITIZER_ENVIRONMENT = {"ASAN_OPTIONS": f"{SANITIZER_ENVIRONMENT['ASAN_OPTIONS']}:detect_leaks=0"}


class Programs(Protocol):
    """The learner's programs of one grading, built at first use."""

    folder: Path                     # for the files of this grading

    def vmm(self) -> Path: ...

    def unit(self, source: str) -> Path: ...

    def kernel(self) -> Path: ...            # lab 6: with the learner's scheduler

    def kernel_unit(self) -> Path: ...       # lab 6: units/sched.c with that scheduler

    def finished_vmm(self) -> Path: ...      # lab 6: the VMM that boots that kernel


@dataclass(frozen=True)
class Symptom:
    """A known mistake: how to recognize it, and the hint."""

    shows: Callable[[Outcome], bool]
    hint: str


@dataclass
class Planned:
    """One run and its expected result. Conditions are checked in the order of declaration."""

    run: Run
    expectations: list[Expectation] = field(default_factory=list)
    symptoms: list[Symptom] = field(default_factory=list)
    unit: bool = False               # a Check program, which exits with 0 even if its tests fail
    white_box: bool = False          # it calls the learner's functions directly

    def must(self, condition: Condition, hint: str = "") -> None:
        """Any condition; the methods below are the usual ones."""
        self.expectations.append(Expectation(condition, hint))

    def exits(self, status: int, hint: str = "") -> None:
        """The VMM's exit status."""
        self.must(expect.exits(status), hint)

    def prints(self, *accepted: str, hint: str = "") -> None:
        """All of standard output, byte for byte: one of these texts."""
        self.must(expect.prints(*accepted), hint)

    def prints_lines(self, lines: Sequence[str], hint: str = "") -> None:
        """Whole lines of several vCPUs, each vCPU's in order."""
        self.must(expect.prints_lines(lines), hint)

    def says(self, pattern: str, *, what: str, hint: str = "") -> None:
        """Standard error matches this regular expression: it mentions `what`."""
        self.must(expect.says(pattern, what), hint)

    def registers(self, vcpu: int = 0, *, hint: str = "", **values: int) -> None:
        """Final registers (boot with --regs): rax=..., or a segment's field: ds_base=..."""
        self.must(expect.registers(vcpu, **values), hint)

    def symptom(self, shows: Callable[[Outcome], bool], hint: str) -> None:
        """Recognizes a known mistake when the test has failed."""
        self.symptoms.append(Symptom(shows, hint))


class Plan:
    """The argument of a test's function."""

    def __init__(self, test: Test, seed: int, programs: Programs, encrypted: bool = False) -> None:
        self.test = test
        self.values = Values(seed, test.id)
        self.planned: list[Planned] = []
        self._programs = programs
        self._guests = 0
        self._cipher = Random(f"{seed} {test.id} cipher") if encrypted else None

    def guest(self, name: str, **defines: Define) -> Path:
        """guests/NAME.asm, assembled with these values (nasm -D) just for this test."""
        self._guests += 1
        folder = self._programs.folder / self.test.id / f"guest{self._guests}"
        return assemble(name, folder / f"{name}.bin", self._cipher, **defines)

    def file(self, name: str, content: bytes) -> Path:
        """A file created for this test, as an argument for the VMM."""
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

    def kernel_unit(self, case: str, given: Sequence[int], facts: Sequence[str], **keywords: Any) -> Planned:
        """Lab 6: one test of units/sched.c, a kernel of its own on the finished VMM.

        It is given these numbers and must print these lines about what became of them.
        """
        vmm, kernel = self._programs.finished_vmm(), self._programs.kernel_unit()
        code = LineCode(self.values, KERNEL)
        order = self.file("test", case.encode().ljust(16, b"\0") + code.image
                          + struct.pack(f"<{len(given)}I", *given))
        planned = self._add((str(vmm), f"--initrd={order}", str(kernel)), **keywords)
        planned.white_box = True
        planned.must(expect.kernel_unit_passes(case, [code.line(fact) for fact in facts]))
        return planned

    def unit(self, source: str, case: str, kvm: bool = False, **keywords: Any) -> Planned:
        """One test case of units/SOURCE.c, linked with the learner's module. `kvm`: it opens /dev/kvm."""
        planned = self._add((str(self._programs.unit(source)),), kvm=kvm, **keywords)
        environment = {**planned.run.env, **UNIT_SANITIZER_ENVIRONMENT, "CK_RUN_CASE": case,
                       "CK_TAP_LOG_FILE_NAME": "-", "CK_VERBOSITY": "silent", "TEMP": ".",
                       "UNIT_SEED": f"{self.values.getrandbits(128):032x}"}
        planned.run = replace(planned.run, env=environment)
        planned.unit = planned.white_box = True
        planned.must(expect.unit_passes(case))
        return planned

    def _add(self, argv: tuple[str, ...], **keywords: Any) -> Planned:
        keywords.setdefault("env", {**plain_environment(), **SANITIZER_ENVIRONMENT})
        planned = Planned(Run(argv, kvm_devices=False, **keywords))
        self.planned.append(planned)
        return planned
