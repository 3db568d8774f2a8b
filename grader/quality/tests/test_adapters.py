"""What autograders and editors get: bundles, a workflow, results in the form that each service reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import unittest
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import mock

from grader import labs
from grader.classroom.adapters import __main__ as adapters
from grader.classroom.adapters.submission import classroom50
from grader.commands import compile_commands
from grader.core.building import clean_environment
from grader.core.version import tracked_files
from grader.course import BUILD, LABS, ROOT
from grader.execution.labvm import snapshot
from grader.execution.runs import CannotGrade
from grader.report import actions

RESULTS: dict[str, Any] = {"score": 6, "tests": [
    {"name": "2.1-decode: decodes", "score": 6, "max_score": 6, "status": "passed", "output": ""},
    {"name": "2.2-exit: ends, and: more", "score": 0, "max_score": 94, "status": "failed",
     "output": "2.2-exit: FAILED\n  hint: see | 3.2 <b>%0A::error::\x1b[2J\n  more"}]}
ENVIRONMENT = {"CLASSROOM": "os", "ASSIGNMENT": "lab2", "SUBMISSION_TAG": "submit/x",
               "COMMIT_URL": "https://c", "RELEASE_URL": "https://r", "REVIEW_URL": ""}


class Case(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)


class Actions(Case):
    def test_the_summary_has_a_row_for_each_test(self) -> None:
        text = actions.summary(2, RESULTS)
        self.assertIn("## Lab 2: 6 of 100", text)
        rows = [line for line in text.splitlines() if line.startswith("| ✅") or line.startswith("| ❌")]
        self.assertEqual(len(rows), 2)
        self.assertTrue(all(line.count("|") == 5 for line in rows), rows)
        self.assertNotIn("<b>", text)
        self.assertNotIn("\x1b", text)

    def test_a_failed_test_is_one_annotation(self) -> None:
        [line] = actions.failures(2, RESULTS)
        self.assertRegex(line, r"^::error file=labs/lab2-hypercalls/hypercall.c,title=2.2-exit%3A ends%2C "
                               r"and%3A more::hint: see \| 3.2 <b>%250A::error::\\x1b\[2J$")

    def test_no_line_of_a_report_is_a_workflow_command(self) -> None:
        report = "  ::set-output name=score::100\n##[error]x"
        self.assertEqual(actions.as_text(report, {}), report)
        first, *lines, last = actions.as_text(report, {"GITHUB_ACTIONS": "true"}).splitlines()
        self.assertEqual("\n".join(lines), report)
        word = last.strip(":")
        self.assertEqual((first, last), (f"::stop-commands::{word}", f"::{word}::"))
        self.assertNotIn(word, actions.as_text(report, {"GITHUB_ACTIONS": "true"}))

    def test_without_results_the_machine_could_not_grade(self) -> None:
        with mock.patch.object(actions, "BUILD", self.folder), mock.patch.object(sys, "argv", ["x", "2"]):
            self.assertEqual(actions.main(), actions.NO_RESULTS)

    def test_the_workflow(self) -> None:
        text = adapters.github(2, self.folder / "x.yml").read_text()
        self.assertNotIn("@LAB@", text)
        self.assertNotIn("classroom", text)
        self.assertIn("make grade LAB=2\n", text)
        self.assertIn("99-kvm4all.rules", text)


class Classroom50(Case):
    def test_the_contract(self) -> None:
        found = classroom50(RESULTS, ENVIRONMENT)
        self.assertEqual(set(found), {"schema", "classroom", "assignment", "submission", "commit", "release",
                                      "review", "datetime", "score", "max-score", "tests"})
        self.assertEqual((found["schema"], found["review"]), ("classroom50/result/v1", "https://c"))
        self.assertEqual((found["score"], found["max-score"]), (6, 100))
        self.assertRegex(found["datetime"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        for test in found["tests"]:
            self.assertEqual(set(test), {"test-name", "passed", "score", "max-score", "output"})
            self.assertIsInstance(test["score"], int)

    def run_bundle(self, submission: str) -> tuple[int, Path]:
        """The bundle with a kit whose grader is this shell script; its status and the checkout."""
        kit, checkout = self.folder / "kit", self.folder / "checkout"
        (kit / "grader").mkdir(parents=True, exist_ok=True)
        checkout.mkdir(exist_ok=True)
        python = kit / "python"
        python.write_text(f"#!/bin/sh\n{submission}\n")
        python.chmod(0o755)
        (kit / "grader" / "setup.sh").write_text('case $1 in --python) echo "$PWD/python" ;; esac\n')
        bundle = adapters.classroom50(2, kit, self.folder / "bundle")
        done = subprocess.run([sys.executable, str(bundle / "autograder.py")], cwd=checkout,
                              env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
        return done.returncode, checkout

    def test_the_bundle_grades_the_checkout(self) -> None:
        script = (f'test "$4 $6" = "2 {self.folder}/checkout" || exit 9\n'
                  'test -d "$8" && test -e grader/setup.sh || exit 8\necho graded >"${10}"')
        status, checkout = self.run_bundle(script)
        self.assertEqual((status, (checkout / "result.json").read_text()), (0, "graded\n"))

    def test_without_a_grading_there_is_no_result(self) -> None:
        (self.folder / "checkout").mkdir()
        for status in (1, 3):       # a fault of the grader, or of the machine
            (self.folder / "checkout" / "result.json").write_text("100")
            self.assertEqual(self.run_bundle(f'echo graded >"${{10}}"; exit {status}')[0], status)
            self.assertFalse((self.folder / "checkout" / "result.json").exists())

    def test_the_result_is_not_the_student_s(self) -> None:
        """Whatever the checkout has where it goes, and beside it."""
        outside, checkout = self.folder / "outside", self.folder / "checkout"
        target = checkout / "result.json"
        checkout.mkdir()
        ways: list[Callable[[], object]] = [
            lambda: target.write_text("100"), target.mkdir, lambda: target.symlink_to(outside),
            lambda: target.symlink_to(checkout), lambda: os.mkfifo(target)]
        for put in ways:
            outside.write_text("outside")
            for name in ("result.json.partial", "results.json", "results.json.partial"):
                (checkout / name).unlink(missing_ok=True)
                (checkout / name).symlink_to(outside)
            put()
            status, _ = self.run_bundle('echo graded >"${10}"')
            self.assertEqual((status, target.read_text()), (0, "graded\n"))
            self.assertFalse(target.is_symlink())
            self.assertEqual(outside.read_text(), "outside")
            target.unlink()


class Autolab(Case):
    def test_the_results_have_a_folder_of_their_own(self) -> None:
        """A grading empties the folder of its results."""
        kit = self.folder / "kit"
        (kit / "grader").mkdir(parents=True)
        python = kit / "python"
        python.write_text('#!/bin/sh\ntest -d "$8" && rm -r "$8" && test -e "$6" && echo scores\n')
        python.chmod(0o755)
        (kit / "grader" / "setup.sh").write_text('echo "$PWD/python"\n')
        bundle = adapters.autolab(2, kit, self.folder / "bundle")
        (bundle / "handin.tar.gz").write_text("")
        done = subprocess.run(["make", "-f", "autograde-Makefile"], cwd=bundle, env=clean_environment(),
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((done.returncode, done.stdout), (0, "scores\n"))
        self.assertTrue((bundle / "autograde.tar").exists())


class Bundles(unittest.TestCase):
    """What is uploaded grades a solution as the service would run it: nothing stands in for the kit."""

    LAB = 1

    folder: Path

    @classmethod
    def setUpClass(cls) -> None:
        if not tracked_files():
            raise unittest.SkipTest("not a clone: git can't list the kit's files")
        try:
            snapshot.start().close()
        except CannotGrade as error:
            raise unittest.SkipTest(str(error)) from error
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        cls.folder = Path(mkdtemp(dir=BUILD / "tests"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        adapters.stage_kit(cls.folder / "kit", cls.LAB)

    def submission(self, name: str) -> Path:
        """A folder with the lab's solution."""
        place = self.folder / name
        place.mkdir(parents=True)
        for path in LABS[self.LAB].solution_files():
            shutil.copy(path, place)
        return place

    def execute(self, command: list[str], folder: Path, **more: str) -> str:
        """What it printed on standard output."""
        done = subprocess.run(command, cwd=folder, env={**clean_environment(), **more}, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_gradescope(self) -> None:
        place = self.folder / "gradescope"
        self.submission("gradescope/submission")
        (place / "results").mkdir()
        bundle = adapters.gradescope(self.LAB, self.folder / "kit", place / "bundle.zip")
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(place / "source")
        self.execute(["sh", "source/run_autograder"], place, AUTOGRADER=str(place))
        results = json.loads((place / "results" / "results.json").read_text())
        self.assertEqual((results["score"], len(results["tests"])), (100, len(labs.load(self.LAB).tests)))

    def test_the_kit_has_no_solution_of_a_later_lab(self) -> None:
        objects = (self.folder / "kit" / "solutions").glob("*/*.o")
        self.assertEqual({path.parent.name for path in objects}, {LABS[self.LAB].folder})

    def test_autolab(self) -> None:
        bundle = adapters.autolab(self.LAB, self.folder / "kit", self.folder / "autolab")
        with tarfile.open(bundle / "handin.tar.gz", "w:gz") as archive:
            archive.add(self.submission("handin"), ".")
        said = self.execute(["make", "-f", "autograde-Makefile"], bundle)
        self.assertEqual(json.loads(said.splitlines()[-1]), {"scores": {f"lab{self.LAB}": 100}})

    def test_classroom50(self) -> None:
        bundle = adapters.classroom50(self.LAB, self.folder / "kit", self.folder / "classroom50")
        checkout = self.submission("checkout")
        self.execute([sys.executable, str(bundle / "autograder.py")], checkout, **ENVIRONMENT)
        self.assertEqual(json.loads((checkout / "result.json").read_text())["score"], 100)


class Editors(unittest.TestCase):
    def test_each_c_file_has_a_command_that_compiles_it(self) -> None:
        found = {str(entry["file"]): entry for entry in compile_commands.commands()}
        wanted = [*LABS[6].solution_files(), *LABS[2].learner_files(), LABS[2].unit("hypercall"),
                  *(ROOT / name for name in ("common/core/main.c", "os-1k/user/libc.c",
                                             "grader/execution/probe.c"))]
        for path in wanted:
            words = found[str(path)]["arguments"]
            assert isinstance(words, list)
            done = subprocess.run([*words, "-fsyntax-only"], cwd=ROOT, env=clean_environment(), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
