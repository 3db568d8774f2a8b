"""`make bench`: its arithmetic, its outputs, and that each row runs. What it measures is not tested."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from grader.course import ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Ending, Result
from grader.quality.bench import __main__ as bench
from grader.quality.bench import counts, grading, page, report, rows
from grader.quality.bench.cases import (
    CYCLES, WALL_MS, Case, Command, Measured, judge, ratios, samples, spread)
from grader.quality.bench.rows import HERE

CASE = Case("exit", "a thing", (Command("VMM", ("vmm",)), Command("limit", ("bare",), status=1)),
            (CYCLES, WALL_MS), count=10, note="a remark")


def lines(*runs: "tuple[int, int, int, int]") -> Result:
    """A job's output: command, status, cycles, ns."""
    keys = ("command", "status", "cycles", "wall_ns")
    text = "".join(json.dumps(dict(zip(keys, run))) + "\n" for run in runs)
    return Result(Ending.EXIT, stdout=text.encode(), stderr=b"one\nthe last line\n")


GOOD = lines((0, 0, 999, 9), (1, 1, 999, 9), (0, 0, 200, 3_000_000), (1, 1, 100, 1_000_000),
             (0, 0, 600, 3_000_000), (1, 1, 200, 1_000_000), (0, 0, 400, 3_000_000), (1, 1, 400, 1_000_000))


class Arithmetic(unittest.TestCase):
    def test_spread_is_the_median_and_the_middle_half(self) -> None:
        found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
        self.assertEqual((found.median, found.low, found.high), (3.0, 2.0, 4.0))
        found = spread([7.0])
        self.assertEqual((found.median, found.low, found.high), (7.0, 7.0, 7.0))

    def test_ratios_are_those_of_each_round(self) -> None:
        # The machine was ten times slower in the second round: the ratio does not show it.
        self.assertEqual(ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]), spread([2.0, 2.0, 2.0]))

    def test_the_first_round_warms_up(self) -> None:
        (ours, theirs), failures = samples(CASE, GOOD)
        self.assertEqual([run["cycles"] for run in ours], [200, 600, 400])
        self.assertEqual([run["cycles"] for run in theirs], [100, 200, 400])
        self.assertEqual(failures, [])

    def test_figures_are_per_thing_and_in_their_unit(self) -> None:
        cycles, wall = judge(CASE, GOOD)
        assert cycles.value and wall.value
        self.assertEqual((cycles.value.median, wall.value.median), (40, 3.0))
        self.assertEqual(cycles.against[0].ratio.median, 2.0)
        self.assertEqual(wall.against[0].ratio.median, 3.0)

    def test_a_command_that_fails_is_reported_instead(self) -> None:
        [figure] = judge(CASE, lines((0, 70, 1, 1), (1, 1, 1, 1)))
        self.assertIsNone(figure.value)
        self.assertIn("VMM ended with status 70: the last line", figure.note)

    def test_a_comparison_that_fails_leaves_the_others(self) -> None:
        for status, note in ((70, "limit ended with status 70: the last line"), (142, "limit did not end")):
            cycles, wall = judge(CASE, lines((0, 0, 200, 3_000_000), (1, status, 100, 1_000_000)))
            assert cycles.value and wall.value
            self.assertEqual((cycles.value.median, cycles.against), (20, ()))
            self.assertIn(note, cycles.note)

    def test_so_is_a_job_that_does_not_end(self) -> None:
        for result in (Result(Ending.TIMEOUT), lines(), lines((0, 0, 1, 1))):
            self.assertIsNone(judge(CASE, result)[0].value)

    def test_and_a_figure_that_a_command_did_not_report(self) -> None:
        cycles, wall = judge(CASE, lines((0, 0, 0, 5), (1, 1, 5, 5)))
        self.assertIsNone(cycles.value)
        self.assertIsNotNone(wall.value)


class Alternating(unittest.TestCase):
    def test_a_command_that_hangs_is_ended_and_not_run_again(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = f"{folder}/alternate"
            subprocess.run(["cc", "-DRUN_SECONDS=1", "-o", program, HERE / "alternate.c"], check=True)
            hangs = Command("hangs", ("/bin/sh", "-c", "trap '' ALRM TERM; exec sleep 1000"))
            case = replace(CASE, commands=(Command("VMM", ("/bin/echo", "ends")), hangs))
            done = subprocess.run(case.run(program, 3).argv, stdout=subprocess.PIPE, check=True)
        runs = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([run["command"] for run in runs], [0, 1, 0, 0])
        _, failures = samples(case, Result(Ending.EXIT, stdout=done.stdout))
        self.assertEqual(failures, ["hangs did not end"])


class Outputs(unittest.TestCase):
    def setUp(self) -> None:
        self.about = report.machine("vm: the lab VM", False)
        self.measured = [*judge(CASE, GOOD), Measured("start", "<QEMU>", "", None, note="not installed")]

    def test_terminal(self) -> None:
        text = "\n".join(report.lines(self.measured))
        self.assertIn("40 cycles  2.00 (1.50 to 2.50) x limit", text)
        self.assertIn("a remark", text)
        self.assertRegex(text, "<QEMU> +-- not installed")

    def test_json(self) -> None:
        found = json.loads(report.as_json(self.about, self.measured, {"hello": 23}))
        self.assertEqual(set(found), {"version", "machine", "remarks", "figures", "exits"})
        self.assertEqual(set(found["machine"]), {"processor", "processors", "kernel", "back_end",
                                                 "constant_tsc", "kvm_lacks", "date"})
        self.assertEqual(found["figures"][0]["against"][0]["ratio"], {"median": 2.0, "low": 1.5, "high": 2.5})
        self.assertIsNone(found["figures"][2]["value"])

    def test_the_lab_vm_can_not_tell_everything(self) -> None:
        self.assertTrue(report.remarks(self.about))
        on_host = {"back_end": "kvm: this machine's", "constant_tsc": True}
        self.assertIn("in software", report.remarks({**on_host, "kvm_lacks": "no 32-bit paging"})[0])
        self.assertFalse(report.remarks({**on_host, "kvm_lacks": ""}))

    def test_page(self) -> None:
        text = page.page(self.about, self.measured, {"minimal": 1, "hello": 24})
        self.assertIn("<svg", text)
        self.assertIn("&lt;QEMU&gt;", text)
        self.assertIn("24 -- 23 expected", text)


class Runs(unittest.TestCase):
    folder: str

    def run_bench(self, *arguments: str) -> "tuple[str, dict[str, object]]":
        """What a run with tiny counts prints, and its JSON."""
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
            try:
                status = bench.main(["--rounds=2", "--scale=0.002", f"--out={folder}", *arguments])
            except CannotGrade as error:
                raise unittest.SkipTest(error.reason) from error
            self.assertEqual(status, 0)
            found: dict[str, object] = json.loads((Path(folder) / "bench.json").read_text())
            self.assertIn("</html>", (Path(folder) / "bench.html").read_text())
        return out.getvalue(), found

    def test_every_row_that_needs_a_guest(self) -> None:
        with mock.patch.object(rows, "installed", return_value=None):
            text, found = self.run_bench("--rows=exit start vcpus compute")
        self.assertIn("qemu-system-x86_64 is not installed", text)
        self.assertIn("kvmtool is not installed", text)
        figures = found["figures"]
        assert isinstance(figures, list)
        self.assertEqual({figure["row"] for figure in figures}, {"exit", "start", "vcpus", "compute"})
        for figure in figures:
            self.assertIsNotNone(figure["value"], f"{figure['title']}: {figure['note']}")

    def test_exits_of_the_reference_guests_are_exact(self) -> None:
        _, found = self.run_bench("--rows=counts")
        exits = found["exits"]
        assert isinstance(exits, dict)
        self.assertGreater(exits.pop(counts.OS), 10)
        self.assertGreater(exits.pop(counts.LINUX), 1000)
        self.assertEqual(exits, counts.EXACT)

    def test_a_row_that_does_not_exist(self) -> None:
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
            bench.main(["--rows=exits"])
        self.assertIn("no such row: exits", said.getvalue())

    def test_a_revision_that_does_not_exist(self) -> None:
        with self.assertRaisesRegex(CannotGrade, "OLDER=no-such-revision"):
            bench.older_kit("no-such-revision")

    def test_whole_commands_and_those_of_an_older_kit(self) -> None:
        older = ("v0", ROOT, ["true"])
        found = grading.compared("suite", "a", ["true"], older)
        assert found.value
        self.assertGreater(found.value.median, 0)
        self.assertEqual([other.name for other in found.against], ["v0"])
        failed = grading.compared("suite", "a", ["sh", "-c", "echo why >&2; exit 3"], older)
        self.assertEqual((failed.value, failed.note), (None, "ended with status 3: why"))
        self.assertEqual(grading.compared("suite", "a", ["true"], None).against, ())

    def test_a_class_that_was_not_graded_is_not_measured(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            scores = Path(folder) / "scores.csv"
            self.assertEqual(grading.not_graded(scores), "")
            scores.write_text("name,status,score,possible,reason\na,graded,100,100,\n")
            self.assertEqual(grading.not_graded(scores), "")
            scores.write_text(scores.read_text() + "b,graded,0,100,does not compile\n")
            self.assertEqual(grading.not_graded(scores), "b has 0 points: graded does not compile")

    def test_each_long_row_names_its_commands(self) -> None:
        for row in grading.LONG:
            self.assertTrue(list(grading.commands(row, ROOT)))
            self.assertIn(row, report.TITLES)

    def test_the_back_end_is_named(self) -> None:
        backend = pick_backend("vm")
        self.assertEqual(report.machine(backend.why, False)["back_end"], backend.why)


if __name__ == "__main__":
    unittest.main()
