"""The two ends of the scale: solutions score all points however they are built, skeletons none."""

from __future__ import annotations

import contextlib
import io
import json
import re
import unittest

from grader import __main__ as command
from grader import labs
from grader.course import BUILD, LABS

THREADED = 3          # from this lab on a VMM has threads


class Scores(unittest.TestCase):
    """Gradings of whole labs, where this machine can."""

    def grade(self, lab: int, name: str, *arguments: str) -> tuple[int, str]:
        """Status and report."""
        text = io.StringIO()
        results = BUILD / "tests" / f"scores-lab{lab}-{name}"
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            status = command.main(["grade", "--lab", str(lab), "--results", str(results), *arguments])
        if status == command.CANNOT_GRADE:
            self.skipTest(text.getvalue().strip().splitlines()[-1])
        self.assertEqual(json.loads((results / "results.json").read_text())["score"],
                         100 if status == command.FULL_SCORE else 0, text.getvalue())
        return status, text.getvalue()

    def full(self, lab: int, name: str, *arguments: str) -> None:
        """The solution scores everything."""
        with self.subTest(lab=lab, build=name):
            status, text = self.grade(lab, name, "--solution", *arguments)
            self.assertEqual(status, command.FULL_SCORE, text)

    def test_solutions(self) -> None:
        for lab in labs.NUMBERS:
            self.full(lab, "gcc", "--cc", "gcc")

    def test_solutions_with_clang(self) -> None:
        for lab in labs.NUMBERS:
            self.full(lab, "clang", "--cc", "clang")

    def test_solutions_under_address_and_undefined_behaviour_sanitizers(self) -> None:
        for lab in labs.NUMBERS:
            self.full(lab, "asan", "--sanitize", "address,undefined")

    def test_solutions_under_thread_sanitizer(self) -> None:
        for lab in labs.NUMBERS:
            if lab >= THREADED:
                self.full(lab, "tsan", "--sanitize", "thread")

    def test_skeletons(self) -> None:
        for lab in labs.NUMBERS:
            with self.subTest(lab=lab):
                [skeleton, *_] = LABS[lab].learner_files()
                first = re.search(r"TODO\(\"([\d.]+)\"\)", skeleton.read_text())
                if not first:
                    self.skipTest(f"{skeleton} is no bare skeleton")
                status, text = self.grade(lab, "skeleton")
                self.assertEqual(status, command.LESS)
                self.assertIn("Score: 0 of 100", text)
                self.assertIn(f"Next: exercise {lab}.1 in ", text)
                self.assertNotIn("FAILED", text)


if __name__ == "__main__":
    unittest.main()
