"""`make test` itself: what it counts, and what it can't count."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import IO
from unittest import mock

from grader.core.building import BuildError
from grader.course import BUILD, ROOT
from grader.quality import spare, suite
from grader.quality.suite import (COULD_NOT_RUN, FAILED, PASSED, Outcome, Program, counted, run_all,
                                  run_check, run_unittests)


class Sample(unittest.TestCase):
    def good(self) -> None:
        pass

    def bad(self) -> None:
        for number in range(3):
            with self.subTest(number=number):
                self.fail("wrong")

    def away(self) -> None:
        self.skipTest("no such tool")

    def full(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Closed(Sample):
    @classmethod
    def setUpClass(cls) -> None:
        raise unittest.SkipTest("no lab VM")


class Counting(unittest.TestCase):
    def count(self, *tests: unittest.TestCase) -> "tuple[object, ...]":
        suite = unittest.TestSuite(tests)
        number = suite.countTestCases()
        result = unittest.TestResult()
        suite.run(result)
        found = counted(number, result)
        return found["passed"], found["failed"], found["skipped"], found["trouble"]

    def test_each_test_counts_once(self) -> None:
        self.assertEqual(self.count(Sample("good"), Sample("bad"), Sample("away")), (1, 1, 1, ""))

    def test_all_tests_of_a_class_that_is_skipped_are_skipped(self) -> None:
        self.assertEqual(self.count(Sample("good"), Closed("good"), Closed("bad")), (1, 0, 2, ""))

    def test_a_full_disk_does_not_fail_a_test(self) -> None:
        self.assertEqual(self.count(Sample("good"), Sample("full")), (1, 0, 0, "No space left on device"))


class Running(unittest.TestCase):
    def run_outcomes(self, *outcomes: "Outcome | Exception") -> "tuple[int, str]":
        def program(outcome: "Outcome | Exception") -> Program:
            def run() -> Outcome:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            return Program("suite-sample", run)

        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = run_all([program(outcome) for outcome in outcomes])
        return status, said.getvalue()

    def test_the_last_line_and_the_status(self) -> None:
        cases: list[tuple[tuple[Outcome | Exception, ...], int, str]] = [
            ((Outcome(2), Outcome(3)), PASSED, "5 passed, 0 failed"),
            ((Outcome(2), Outcome(skipped=3)), PASSED, "2 passed, 0 failed, 3 skipped"),
            ((Outcome(2), Outcome(3, 1)), FAILED, "5 passed, 1 failed"),
            ((Outcome(skipped=1),), FAILED, "0 passed, 0 failed, 1 skipped"),
            ((Outcome(2), Outcome(trouble="x")), COULD_NOT_RUN, "2 passed, 0 failed"),
            ((Outcome(2), OSError("y")), COULD_NOT_RUN, "2 passed, 0 failed"),
            ((Outcome(2, 1), OSError("y")), FAILED, "2 passed, 1 failed")]
        for outcomes, status, last in cases:
            with self.subTest(outcomes=outcomes):
                got, said = self.run_outcomes(*outcomes)
                self.assertEqual((got, said.splitlines()[-1]), (status, last), said)
                self.assertEqual("could not run completely" in said,
                                 status == COULD_NOT_RUN or "OSError" in said)

    def test_the_slowest_are_listed(self) -> None:
        _, said = self.run_outcomes(*[Outcome(1)] * 12)
        self.assertIn("The slowest of 12 programs:\n", said)
        self.assertEqual(said.count(" s  suite-sample\n"), 10)

    def test_what_failed_is_repeated_at_the_end(self) -> None:
        output = "FAIL: test_answer (lab2.Units)\n  File ...\nAssertionError: 41 != 42\n\nFAILED\n"
        _, said = self.run_outcomes(Outcome(failed=1, output=output), Outcome(passed=9))
        self.assertIn("\nfailed: suite-sample\n  FAIL: test_answer (lab2.Units)\n"
                      "  AssertionError: 41 != 42\n", said)
        self.assertTrue(said.endswith("\n9 passed, 1 failed\n"), said)

    def test_a_build_without_room_is_the_machines_fault(self) -> None:
        for text, failed in (("x.c:1: error: expected ';'", 1),
                             ("/tmp/cc1.s: fatal error: write: No space left on device", 0)):
            def build(text: str = text) -> "None":
                raise BuildError(text, learner=False)

            outcome = run_check("suite-sample", build)  # type: ignore[arg-type]
            self.assertEqual((outcome.failed, bool(outcome.trouble)), (failed, not failed))

    def test_a_runner_that_ends_without_a_report_is_trouble(self) -> None:
        module = BUILD / "tests" / "suite_sample.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("import os\nos.abort()\n")
        outcome = run_unittests("build.tests.suite_sample")
        self.assertEqual((outcome.passed, outcome.failed), (0, 0))
        self.assertIn(f"status {-signal.SIGABRT}", outcome.trouble)


class Places(unittest.TestCase):
    """How many things run at a time."""

    def setUp(self) -> None:
        self.pipe = os.pipe()
        for end in self.pipe:
            self.addCleanup(os.close, end)
        self.now = self.most = 0
        self.changed = threading.Condition()

    def busy(self, wanted: int) -> int:
        """Ends when `wanted` of these have been busy at the same time; never waits for one."""
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= wanted, 60 if wanted > 1 else 0)
            self.now -= 1
        return wanted

    def test_a_program_without_a_free_place_does_one_thing_at_a_time(self) -> None:
        with mock.patch.object(spare, "_pipe", self.pipe):
            self.assertEqual(spare.each(self.busy, [1, 1, 1], at_once=3), [1, 1, 1])
        self.assertEqual(self.most, 1)
        os.write(self.pipe[1], b"..")       # ends the threads that still wait for a place

    def test_it_uses_places_that_become_free_and_gives_them_back(self) -> None:
        os.write(self.pipe[1], b".")
        with mock.patch.object(spare, "_pipe", self.pipe):
            self.assertEqual(spare.each(self.busy, [2, 2, 2], at_once=2), [2, 2, 2])
            self.assertEqual((self.most, os.read(self.pipe[0], 2)), (2, b"."))

    def test_alone_it_has_all_places(self) -> None:
        with mock.patch.object(spare, "_pipe", None):
            self.assertEqual(spare.each(self.busy, [3, 3, 3], at_once=3), [3, 3, 3])
        self.assertEqual(self.most, 3)

    def test_what_goes_wrong_is_raised(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            spare.each(lambda number: 1 // number, [1, 0, 1], at_once=2)

    def test_the_last_program_has_all_places(self) -> None:
        free: list[bytes] = []

        def last() -> Outcome:
            while len(free) < (os.cpu_count() or 1) and select.select([suite._places[0]], [], [], 60)[0]:
                free.append(os.read(suite._places[0], 1))
            return Outcome(1)

        with contextlib.redirect_stdout(io.StringIO()):
            run_all([Program("suite-sample", last)])
        self.assertEqual(len(free), os.cpu_count())


# Stops itself once as many programs run as may at once; the others wait.
STOPPED = """
import os, signal, threading
from grader.quality import suite

def stop_when_busy():
    while len(suite._groups) <= (os.cpu_count() or 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

def sleeper():
    suite.execute(["sleep", "98765"], {"SLEEPER": "of-the-suite"})

signal.signal(signal.SIGTERM, suite.stop)
threading.Thread(target=stop_when_busy, daemon=True).start()
suite.run_all([suite.Program("sleeper", sleeper)] * 30)
"""


def sleepers() -> list[str]:
    """The processes that STOPPED has left."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"SLEEPER=of-the-suite" in (place / "environ").read_bytes().split(b"\0"):
                found.append(place.name)
    return found


class Slow:
    """A program on a clock of its own, which prints each time that someone has waited for so long."""

    pid, returncode = 1 << 30, 0

    def __init__(self, output: IO[str], seconds: float, prints_every: float) -> None:
        self.now, self._output, self._seconds, self._every = 0.0, output, seconds, prints_every

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float = 0.0) -> None:
        before, self.now = self.now, self.now + timeout
        if self.now // self._every > before // self._every:
            self._output.write(".")
            self._output.flush()
        if timeout and self.now < self._seconds:
            raise subprocess.TimeoutExpired("slow", timeout)


class Silence(unittest.TestCase):
    def ends(self, seconds: float, prints_every: float) -> bool:
        with tempfile.TemporaryFile("w+") as output:
            slow = Slow(output, seconds, prints_every)
            with mock.patch("time.monotonic", slow.monotonic):
                return suite.wait(slow, output, silence=100.0)  # type: ignore[arg-type]

    def test_a_program_may_take_as_long_as_the_machine_needs(self) -> None:
        self.assertTrue(self.ends(seconds=100_000, prints_every=90))

    def test_one_that_is_silent_for_too_long_is_stopped(self) -> None:
        self.assertFalse(self.ends(seconds=100_000, prints_every=150))

    def test_its_output_is_kept(self) -> None:
        status, said = suite.execute(["sh", "-c", "echo begun; exec sleep 98765"], {}, silence=1.0)
        self.assertEqual((status, said), (suite.HUNG, "begun\n\nstopped after 1 seconds without output\n"))


class Stop(unittest.TestCase):
    def test_no_program_is_started_or_left(self) -> None:
        done = subprocess.run([sys.executable, "-c", STOPPED], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 128 + signal.SIGTERM, done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], "stopped by SIGTERM")
        self.assertEqual(sleepers(), [])


class Command(unittest.TestCase):
    def test_it_says_what_it_found_and_ends_with_the_totals(self) -> None:
        done = subprocess.run([sys.executable, "-m", "grader.quality.suite", "test_blame"], cwd=ROOT,
                              text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        lines = done.stdout.splitlines()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(lines[0], "back end: ")
        self.assertTrue([line for line in lines if line.startswith("tools: ")], lines)
        self.assertRegex(lines[-1], r"^\d+ passed, 0 failed$")


if __name__ == "__main__":
    unittest.main()
