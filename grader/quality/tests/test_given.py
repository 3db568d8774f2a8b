"""Values of the command line are data: neither make nor a shell runs what is in them."""

from __future__ import annotations

import shutil
import subprocess
import unittest
from pathlib import Path
from tempfile import mkdtemp

from grader.core.building import clean_environment
from grader.course import BUILD, ROOT

NAMES = ("MODULE", "SUBMISSIONS", "GUESTS", "ARGS", "UNDER", "NAME", "T", "ONLY", "SEED", "LAB", "FROM", "N",
         "BACKEND", "SANITIZE", "JOBS", "RUN", "ROW", "CC", "OUT", "UNIT")
COMMANDS = ("run", "grade-class", "mutants")


class Given(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What make would run; its $(shell) and its exports it runs even so."""
        return subprocess.run(["make", "--dry-run", "PYTHON=python3", *words], cwd=ROOT, text=True,
                              env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def test_nothing_given_is_expanded(self) -> None:
        mark = self.folder / "mark"
        for name in NAMES:
            for value in (f"$(shell touch {mark})", f"\"; `touch {mark}`; \""):
                for command in COMMANDS:
                    with self.subTest(command=command, name=name, value=value):
                        done = self.make(command, *(["LAB=2"] if name != "LAB" else []), f"{name}={value}")
                        if done.returncode == 0:
                            self.assertNotIn(str(mark), done.stdout)
                        self.assertFalse(mark.exists())

    def test_no_goal_is_expanded(self) -> None:
        mark = self.folder / "mark"
        for command in COMMANDS:
            for goal in (f"$(shell touch {mark})", f"\"; `touch {mark}`; \""):
                with self.subTest(command=command, goal=goal):
                    self.assertNotIn(str(mark), self.make(command, goal).stdout)
                    self.assertFalse(mark.exists())

    def test_a_name_that_no_build_can_use_is_reported(self) -> None:
        for value in ("interrupts (1).c", "it's.c", "two words.c", "$(shell true).c"):
            done = self.make("grade", "LAB=4", f"MODULE={value}")
            self.assertEqual(done.returncode, 2)
            self.assertIn("MODULE=: a name that make can build with", done.stderr)
            self.assertNotIn(value, done.stderr)    # a stranger's, with commands for a terminal in it

    def test_values_arrive_unchanged(self) -> None:
        done = subprocess.run(["make", "grade", "LAB=2", "T=a \"b\" $(c) 'd' `e`"], cwd=ROOT, text=True,
                              env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        self.assertIn("lab 2 has no test a \"b\" $(c) 'd' `e`; its tests:", done.stderr)


if __name__ == "__main__":
    unittest.main()
