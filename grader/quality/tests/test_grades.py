"""The score can be trusted at its two ends: every solution has all points, however it was built, and every
skeleton has none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

from grader import labs
from grader.course import BUILD, LABS, ROOT
from grader.core.exercises import skeleton
from grader.quality import spare

FULL_SCORE, LESS, CANNOT_GRADE = 0, 1, 3  # exit statuses of `grader grade`
# Gradings at a time, each with one lab VM.
AT_ONCE = 2


class Grades(unittest.TestCase):
    def folder(self, lab: int, name: str) -> Path:
        """Where the results of a grading lie."""
        return BUILD / "tests" / "grades" / f"lab{lab}-{name}"

    def grade(self, lab: int, name: str, *options: str) -> tuple[int, float, str]:
        """Grades a lab: exit status, score, and what was printed."""
        results = self.folder(lab, name)
        command = [sys.executable, "-m", "grader", "grade", "--lab", str(lab), "--results", str(results),
                   "--jobs", "1", *options]
        done = subprocess.run(command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode == CANNOT_GRADE:
            return CANNOT_GRADE, 0, done.stdout
        return done.returncode, json.loads((results / "results.json").read_text())["score"], done.stdout

    def require(self, lab: int, status: int, said: str) -> None:
        """Skips what this machine can't grade."""
        if status == CANNOT_GRADE:
            self.skipTest(f"lab {lab} can't be graded here: {said.strip().splitlines()[-1]}")

    def full_score(self, name: str, *options: str, first: int = 1) -> None:
        """The solutions of all labs from `first` on have all points."""
        numbers = [lab for lab in labs.NUMBERS if lab >= first]
        graded = spare.each(lambda lab: self.grade(lab, name, "--solution", *options), numbers, AT_ONCE)
        for lab, (status, score, said) in zip(numbers, graded):
            with self.subTest(lab=lab):
                self.require(lab, status, said)
                self.assertEqual((status, score), (FULL_SCORE, 100), said)

    # With gcc they are graded in test_release.py, by the check of a release.
    def test_solutions_with_clang(self) -> None:
        self.full_score("clang", "--cc", "clang")

    def test_solutions_with_address_and_undefined_behaviour_sanitizers(self) -> None:
        # With one compiler: what each makes without them is graded above.
        self.full_score("address", "--cc", "clang", "--sanitize", "address,undefined")

    def test_solutions_with_thread_sanitizer(self) -> None:
        self.full_score("thread", "--sanitize", "thread", first=3)

    def fresh_skeleton(self, solution: Path) -> Path:
        """The skeleton of a module, whatever stands in labs/."""
        module = BUILD / "tests" / "skeletons" / solution.name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(skeleton(solution.read_text(), solution.name))
        return module

    def test_skeletons_have_no_points_and_name_their_first_exercise(self) -> None:
        for lab in labs.NUMBERS:
            files = {path: re.findall(r"/\* answer (\d\.\d) \*/", path.read_text())
                     for path in LABS[lab].solution_files()}
            for solution, exercises in files.items():
                # The lab's other file is the solution's, so an exercise of both may have points.
                own = {exercise for exercise in exercises
                       if not any(exercise in others for path, others in files.items() if path != solution)}
                with self.subTest(module=solution.name):
                    name = f"skeleton-{solution.stem}"
                    status, _, said = self.grade(lab, name, "--module", str(self.fresh_skeleton(solution)))
                    self.require(lab, status, said)
                    results = json.loads((self.folder(lab, name) / "results.json").read_text())
                    points = {test["name"]: test["score"] for test in results["tests"]
                              if test["number"] in own and test["score"]}
                    self.assertEqual((status, points), (LESS, {}), said)
                    self.assertLessEqual(set(exercises), {test["number"] for test in results["tests"]
                                                          if not test["score"]}, said)
                    self.assertIn(f"Next: exercise {min(exercises)},", said)


if __name__ == "__main__":
    unittest.main()
