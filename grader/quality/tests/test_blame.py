"""FROM=mine: which earlier lab is at fault."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from grader.core.blame import blame_lines
from grader.core.building import learner_labs
from grader.core.framework import Lab
from grader.core.grading import Choice, Graded, Pick, Report
from grader.core.judge import Kind, Verdict
from grader.core.plan import Plan
from grader.quality.tests.fakes import host


def lab_of_two() -> Lab:
    lab = Lab(4, "a lab", needs=())
    for name in ("first", "second"):
        def body(plan: Plan) -> None:
            """Never run."""
        body.__name__ = name
        lab.test("4.1", name, points=10, hint="a hint")(body)
    return lab


class Blame(unittest.TestCase):
    """A grading in which a test fails while one of the guilty labs' modules is the learner's."""

    def lines(self, guilty: set[int], own: bool = False, source: str = "mine") -> str:
        """What the learner reads; `own`: the fault is this lab's."""
        def grade(lab: Lab, choice: Choice, pick: Pick) -> Report:
            wrong = own or bool(guilty & set(learner_labs(choice.source, lab.number)))
            report = Report(lab, choice, Path("results"))
            report.graded = [Graded(Verdict(test, Kind.FAILED if wrong else Kind.OK)) for test in lab.tests]
            return report

        with mock.patch("grader.core.blame.grade", grade):
            return "\n".join(blame_lines(grade(lab_of_two(), Choice(1, source=source), host), host))

    def test_one_lab(self) -> None:
        text = self.lines({2})
        self.assertIn("Lab 2 is at fault", text)
        self.assertIn("labs/lab2-hypercalls/hypercall.c", text)
        self.assertIn("4.1-first, 4.1-second", text)
        self.assertNotIn("Lab 1", text)
        self.assertNotIn("Lab 3", text)

    def test_two_labs_together(self) -> None:
        text = self.lines({1, 3})
        self.assertIn("An earlier lab is at fault", text)
        self.assertIn("make grade LAB=3", text)

    def test_no_earlier_lab(self) -> None:
        self.assertEqual(self.lines(set()), "")
        self.assertEqual(self.lines({2}, own=True), "")
        self.assertEqual(self.lines({2}, source=""), "")

    def test_only_the_labs_that_are_the_learners(self) -> None:
        self.assertIn("Lab 2 is at fault", self.lines({2}, source="2,3"))
        self.assertEqual(self.lines({2}, source="1,3"), "")

    def test_whose_modules(self) -> None:
        self.assertEqual(learner_labs("mine", 4), [1, 2, 3])
        self.assertEqual(learner_labs("1,3,4", 4), [1, 3])
        self.assertEqual(learner_labs("", 4), [])
        with self.assertRaises(ValueError):
            learner_labs("yours", 4)

    def test_the_command_that_repeats_it(self) -> None:
        self.assertIn("FROM=1,2", replace(Choice(1), source="1,2").command(3, "3.1"))
