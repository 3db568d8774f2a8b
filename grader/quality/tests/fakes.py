"""Programs in the place of the VMM, and labs with a single test, for the grader's own tests."""

from __future__ import annotations

import shutil
import unittest
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from grader.execution.backends import Backend
from grader.execution.backends.kvm import KvmBackend
from grader.course import BUILD
from grader.core.framework import Body, Lab
from grader.core.grading import Choice, Report, grade
from grader.core.judge import Verdict
from grader.execution.runs import Limits

SHORT = Limits(wall=20, no_output=1.5)


class FakePrograms:
    """The same shell script as VMM and as unit program."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.script = folder / "fake"
        self.script.write_text("#!/bin/sh\n" + script + "\n")
        self.script.chmod(0o755)

    def vmm(self) -> Path:
        return self.script

    def unit(self, source: str) -> Path:
        return self.script

    def kernel(self) -> Path:
        return self.script

    def kernel_unit(self) -> Path:
        return self.script

    def finished_vmm(self) -> Path:
        return self.script


def host(needs: Sequence[str]) -> Backend:
    """Programs that boot no guest need no KVM."""
    return KvmBackend("on the host")


def lab_of(*bodies: Body) -> Lab:
    """A lab whose tests are these, of exercises 1.1, 1.2 ..., 10 points each."""
    lab = Lab(1, "a lab of the grader's tests", needs=())
    for number, body in enumerate(bodies, 1):
        lab.test(f"1.{number}", f"test {number}", points=10, hint=f"hint {number}")(body)
    return lab


class FakeCase(unittest.TestCase):
    """Tests that grade a script."""

    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def grade(self, script: str, *bodies: Body, wanted: str = "", seed: int = 7) -> Report:
        """Grades the script by these tests."""
        choice = Choice(seed, wanted=wanted, folder=self.folder / "results")
        return grade(lab_of(*bodies), choice, host, FakePrograms(self.folder, script))

    def verdict(self, script: str, body: Body) -> Verdict:
        """The verdict of a single test."""
        [verdict] = self.grade(script, body).verdicts
        return verdict
