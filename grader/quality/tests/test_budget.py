"""The time budget of a submission: one that uses up the limits of each run loses points, a right one on a
slow machine does not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from grader import labs
from grader.core import building
from grader.core.grading import Choice, _run_apart, grade
from grader.core.judge import Kind, Verdict
from grader.core.plan import Plan
from grader.course import LABS, ROOT
from grader.execution.backends import Picker
from grader.execution.backends.kvm import KvmBackend
from grader.execution.backends.vm import VmBackend
from grader.execution.budget import FACTOR, FREE_SECONDS, Account, Budget
from grader.execution.c_tools import c_tool
from grader.execution.labvm import machine, pack, snapshot
from grader.execution.labvm.machine import processor_time, processor_wait
from grader.execution.labvm.pack import pack_like
from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run
from grader.execution.worker import OnResult, WorkerDied, run_all
from grader.quality.tests.fakes import FakeCase, FakePrograms, lab_of

PROGRAM = str(c_tool("test-program", ROOT / "grader/quality/tests/program.c"))
BUSY = "while :; do :; done"


class FakeWorker:
    """Runs of which each takes as many seconds as its last argument says, without passing them."""

    def __init__(self, crash: str = "") -> None:
        self.used = 0.0
        self.crash = crash

    def execute(self, run: Run) -> Result:
        self.used += float(run.argv[-1])
        if self.crash in run.argv:
            raise WorkerDied("crashed")
        return Result(Ending.EXIT, stdout=b"yes\n")

    def close(self) -> None:
        pass


class FakeBackend(KvmBackend):
    """Such workers in the place of a runner."""

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        return run_all(FakeWorker, runs, jobs, on_result, account)


class Limit(unittest.TestCase):
    def test_it_is_a_multiple_of_what_the_solution_takes(self) -> None:
        for solution, limit in ((1.0, FREE_SECONDS), (1000.0, FACTOR * 1000)):
            budget = Budget(mock.Mock(return_value=solution))
            budget.charge(limit)
            self.assertFalse(budget.is_used_up())
            budget.charge(1)
            self.assertTrue(budget.is_used_up())

    def test_the_solution_is_not_measured_in_vain(self) -> None:
        measure = mock.Mock(return_value=1000.0)
        budget = Budget(measure)
        budget.charge(FREE_SECONDS)
        budget.is_used_up()
        measure.assert_not_called()
        for _ in range(2):
            budget.charge(1)
            budget.is_used_up()
        measure.assert_called_once()

    def test_runs_beyond_it_are_not_executed(self) -> None:
        budget = Budget(lambda: 0.0)
        runs = [Run(("x", str(seconds))) for seconds in (FREE_SECONDS, 1, 1, 1)]
        endings = [result.ending for result in run_all(FakeWorker, runs, 1, None, budget)]
        self.assertEqual(endings, [Ending.EXIT, Ending.EXIT, Ending.BUDGET, Ending.BUDGET])

    def test_a_run_that_crashes_the_lab_vm_is_charged(self) -> None:
        account = Account()
        run_all(lambda: FakeWorker("crash"), [Run(("x", "crash", "5"))], 1, None, account)
        self.assertEqual(account.used, 10)


class Grading(FakeCase):
    """A submission of which each of three tests takes as long as it may without the budget being used up."""

    ending = Ending.EXIT      # of each run

    def graded(self, strange: bool, solution: float) -> list[tuple[Kind, int]]:
        def body(plan: Plan) -> None:
            plan.boot(str(FREE_SECONDS * 0.6)).prints("yes\n")

        programs = FakePrograms(self.folder, "")
        twin = self.folder / "twin"
        if strange:
            pack_like(programs.script, twin)
        backend = FakeBackend()
        with mock.patch.object(FakeWorker, "execute", self.executed(twin, solution)):
            report = grade(lab_of(body, body, body), Choice(7, folder=self.folder / "results"),
                           lambda _: backend, programs)
        self.late, self.last = report.late, report.verdicts[-1].text
        return [(verdict.kind, verdict.points) for verdict in report.verdicts]

    def executed(self, twin: Path, solution: float) -> object:
        def execute(worker: FakeWorker, run: Run) -> Result:
            worker.used += solution if run.argv[0] == str(twin) else float(run.argv[-1])
            return Result(self.ending, stdout=b"yes\n")
        return execute

    def test_the_tests_after_it_have_failed(self) -> None:
        self.assertEqual(self.graded(True, 0.1), [(Kind.OK, 10), (Kind.OK, 10), (Kind.FAILED, 0)])
        self.assertIn("not run: all tests together took too long", self.last)

    def test_no_overloaded_machine_is_to_blame_for_it(self) -> None:
        self.ending = Ending.TIMEOUT
        for solution, late in ((0.1, 0), (FREE_SECONDS, 3)):
            self.graded(True, solution)
            self.assertEqual(self.late, late)

    def test_a_right_submission_on_a_slow_machine_keeps_its_points(self) -> None:
        self.assertEqual(self.graded(True, FREE_SECONDS), [(Kind.OK, 10)] * 3)

    def test_the_users_own_programs_have_none(self) -> None:
        self.assertEqual(self.graded(False, 0.1), [(Kind.OK, 10)] * 3)


class Blame(FakeCase):
    """A unit program that fails as a whole: the machine's fault, or the submission's."""

    def verdict_of(self, solution_works: bool) -> Verdict:
        """The first test's of three; `groups` becomes the number of runs that were started together."""
        def body(plan: Plan) -> None:
            plan.unit("any", "case")

        programs = FakePrograms(self.folder, "")
        twin = self.folder / "twin"
        pack_like(programs.script, twin)
        fine = Result(Ending.EXIT, stdout=b"1..1\nok 1 - case\n")

        def execute(_worker: FakeWorker, run: Run) -> Result:
            return fine if run.argv[0] == str(twin) and solution_works else Result(Ending.EXIT, 2)

        backend = FakeBackend()
        with mock.patch.object(FakeWorker, "execute", execute), \
                mock.patch.object(backend, "run", wraps=backend.run) as run_all_of:
            report = grade(lab_of(body, body, body), Choice(7, folder=self.folder / "results"),
                           lambda _: backend, programs)
        self.groups = [len(call.args[0]) for call in run_all_of.call_args_list]
        return report.verdicts[0]

    def test_the_solutions_works(self) -> None:
        verdict = self.verdict_of(True)
        self.assertEqual(verdict.kind, Kind.FAILED)
        self.assertIn("the unit program itself failed: exit status 2; with the solution it works",
                      verdict.text)

    def test_one_lab_vm_does_for_all_that_is_checked(self) -> None:
        self.verdict_of(True)
        self.assertEqual(self.groups[-1], 3)

    def test_the_solutions_fails_too(self) -> None:
        self.assertEqual(self.verdict_of(False).kind, Kind.CANNOT)


class Clock(unittest.TestCase):
    """What the lab VM has used: all but waits for a processor."""

    @contextlib.contextmanager
    def started(self, *scripts: str) -> Iterator[list[int]]:
        """Shells, all on one processor."""
        processor = min(os.sched_getaffinity(0))
        processes = [subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE,
                                      preexec_fn=lambda: os.sched_setaffinity(0, [processor]))
                     for script in scripts]
        try:
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    def test_waits_for_a_processor(self) -> None:
        if not os.path.exists("/proc/self/schedstat"):
            self.skipTest("this kernel does not count waits for a processor")
        with self.started(BUSY, BUSY) as pids:
            while min(map(processor_wait, pids)) < 0.2:
                time.sleep(0.05)
        self.assertEqual(processor_wait(pids[0]), 0)

    def test_processor_time_counts_even_if_a_thread_always_waits(self) -> None:
        try:
            vm = snapshot.start()
        except CannotGrade as error:
            self.skipTest(str(error))
        self.addCleanup(vm.close)
        with self.started(BUSY) as pids, mock.patch.object(vm, "qemu", return_value=pids[0]), \
                mock.patch.object(machine, "processor_wait", lambda _: time.monotonic()):
            began, used = vm.own_time(), processor_time(pids[0])
            while processor_time(pids[0]) < used + 0.5:
                time.sleep(0.05)
            self.assertGreaterEqual(vm.own_time() - began, 0.4)

    def test_idle_waits_in_the_lab_vm_count(self) -> None:
        account = Account()
        run = Run((PROGRAM, "naps"), limits=Limits(wall=2))
        try:
            with mock.patch.object(machine, "processor_wait", return_value=0.0):
                [result] = VmBackend().run([run], account=account)
        except CannotGrade as error:
            self.skipTest(str(error))
        self.assertEqual(result.ending, Ending.TIMEOUT)
        self.assertGreaterEqual(account.used, 2)


class Submission(FakeCase):
    """A module that waits long at each exit, in naps too short for a deadlock."""

    NAPS = """#include <time.h>
static void nap(void)
{
    for (int i = 0; i < 100; i++)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}
"""

    def test_it_loses_the_tests_that_have_no_time_left(self) -> None:
        text = LABS[2].solution_files()[0].read_text()
        head = "    struct io_access io = io_decode(vcpu->run);\n"
        self.assertEqual(text.count(head), 1)
        module = self.folder / "hypercall.c"
        module.write_text(self.NAPS + text.replace(head, f"{head}    nap();\n"))
        choice = Choice(7, wanted="2.5", module=module, encrypted=True, jobs=1,
                        folder=self.folder / "results")
        with mock.patch.object(building, "_jailed", True), \
                mock.patch("grader.execution.budget.FREE_SECONDS", 1.0), \
                mock.patch("grader.execution.budget.FACTOR", 1.0):
            try:
                report = grade(labs.load(2), choice, Picker("vm"))
            except CannotGrade as error:
                self.skipTest(str(error))
        endings = [result.ending for graded in report.graded for result in graded.results]
        self.assertEqual(endings[-1], Ending.BUDGET, endings)
        self.assertNotEqual(endings[0], Ending.BUDGET, endings)
        self.assertFalse(report.cannot)
        self.assertLess(report.score, report.possible)

    def test_its_programs_and_the_kits_own_run_in_different_vms(self) -> None:
        def run(runs: Sequence[Run], jobs: int, on_result: OnResult, account: None) -> list[Result]:
            batches.append([one.argv for one in runs])
            results = [Result(Ending.EXIT, stdout=one.argv[1].encode()) for one in runs]
            for number, result in enumerate(results):
                on_result(number, result)
            return results

        batches: list[list[tuple[str, ...]]] = []
        told: list[tuple[int, bytes]] = []
        backend = mock.Mock(run=run)
        backend.name = "fake"
        runs = [Run((name, str(number))) for number, name in enumerate(("/a/vmm", "/kit/vmm", "/a/vmm"))]
        with mock.patch.dict(pack._TWINS, {"/a/vmm": "/kit/vmm"}):
            results = _run_apart(backend, runs, 1, lambda place, one: told.append((place, one.stdout)), None)
        self.assertEqual(batches, [[("/a/vmm", "0"), ("/a/vmm", "2")], [("/kit/vmm", "1")]])
        self.assertEqual([result.stdout for result in results], [b"0", b"1", b"2"])
        self.assertEqual(sorted(told), [(0, b"0"), (1, b"1"), (2, b"2")])


if __name__ == "__main__":
    unittest.main()
