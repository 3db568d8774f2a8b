"""What makes a learner's life easier: progress and status, watching files, the next thing to do, colours."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from grader.commands import file_changes as changes
from grader.report import progress
from grader.commands.file_changes import signature, wait_for_change
from grader.core.framework import Body
from grader.core.grading import Report
from grader.core.plan import Plan
from grader.core.readable import beside
from grader.commands.status import status_lines
from grader.quality.tests.fakes import SHORT, FakeCase
from grader.commands.watch import next_thing

PRINTS_YES = "echo yes"


def good(plan: Plan) -> None:
    plan.boot(limits=SHORT).prints("yes\n")


def bad(plan: Plan) -> None:
    plan.boot(limits=SHORT).prints("no\n", hint="say no")


class Progress(FakeCase):
    """What make status remembers."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(progress, "BUILD", self.folder)
        patch.start()
        self.addCleanup(patch.stop)

    def recorded(self, *bodies: Body, wanted: str = "") -> Report:
        report = self.grade(PRINTS_YES, *bodies, wanted=wanted)
        report.choice = replace(report.choice, folder=None)
        progress.record(report)
        return report

    def test_points_and_words(self) -> None:
        found = progress.read(self.recorded(good, bad).lab)
        self.assertEqual(found.points, 10)
        self.assertEqual([found.exercise("1.1"), found.exercise("1.2")], ["ok", "FAILED"])
        text = "\n".join(status_lines([found]))
        self.assertIn("1.1 ok   1.2 FAILED", text)
        self.assertIn("Next: exercise 1.2", text)

    def test_one_test_is_kept_beside_the_others(self) -> None:
        lab = self.recorded(good, bad).lab
        self.recorded(good, good, wanted="1.2")
        self.assertEqual(progress.read(lab).points, 10)        # 1.2-good is not a test of this lab
        self.assertEqual(progress.read(lab).exercise("1.1"), "ok")

    def test_never_graded(self) -> None:
        lab = self.grade(PRINTS_YES, good).lab
        self.assertIn("not graded yet", status_lines([progress.read(lab)])[0])

    def test_a_changed_file_is_reported(self) -> None:
        report = self.recorded(good)
        self.assertFalse(progress.read(report.lab).changed)
        with mock.patch.object(progress, "digest", lambda files: "another"):
            text = "\n".join(status_lines([progress.read(report.lab)]))
        self.assertIn("has changed since it was graded: make grade LAB=1", text)

    def test_only_the_learners_own_file_counts(self) -> None:
        report = self.grade(PRINTS_YES, good)
        for choice in (replace(report.choice, folder=None, solution=True), report.choice):
            report.choice = choice
            progress.record(report)
            self.assertEqual(progress.read(report.lab).kinds, {})

    def test_a_damaged_file_counts_as_no_progress(self) -> None:
        report = self.recorded(good)
        (self.folder / "grade" / "lab1" / "progress.json").write_text("{")
        self.assertEqual(progress.read(report.lab).kinds, {})


class Watching(FakeCase):
    """Waiting for a save."""

    def after(self, save: Callable[[], object], file: Path) -> None:
        """The save is seen."""
        before = signature([file])
        threading.Timer(0.3, save).start()
        self.assertNotEqual(wait_for_change([file], before), before)

    def test_saves_of_all_kinds(self) -> None:
        file = self.folder / "module.c"
        file.write_text("one")
        new = self.folder / "module.c.new"
        new.write_text("two")
        saves: list[Callable[[], object]] = [
            lambda: os.replace(new, file), lambda: file.write_text("three"), file.unlink,
            lambda: file.write_text("four")]
        for save in saves:
            self.after(save, file)

    def test_without_inotify(self) -> None:
        file = self.folder / "module.c"
        file.write_text("one")
        with mock.patch("shutil.which", lambda name: None):
            self.after(lambda: file.write_text("two"), file)

    def test_what_changed_before_is_seen_at_once(self) -> None:
        file = self.folder / "module.c"
        file.write_text("one")
        before = signature([file])
        file.write_text("three")
        start = time.monotonic()
        wait_for_change([file], before)
        self.assertLess(time.monotonic() - start, changes.LOOK_SECONDS)

    def test_only_the_next_thing(self) -> None:
        text = "\n".join(next_thing(self.grade(PRINTS_YES, good, bad, bad)))
        self.assertIn("10 of 30 points", text)
        self.assertEqual(text.count("say no"), 1)
        self.assertIn("Next: exercise 1.2", text)
        self.assertIn("is done", "\n".join(next_thing(self.grade(PRINTS_YES, good))))


class Colours(FakeCase):
    """Expected beside got on a terminal."""

    def test_green_and_red_with_the_first_difference_marked(self) -> None:
        line = beside("abc\n", "abd\n", colour=True)[-1]
        self.assertIn("\033[32mab\033[7mc\033[27m⏎\033[0m", line)
        self.assertIn("\033[31mab\033[7md\033[27m⏎\033[0m", line)

    def test_columns_stay_in_line(self) -> None:
        lines = beside("longer line\nx\n", "longer line\ny\n", colour=True)
        plain = beside("longer line\nx\n", "longer line\ny\n")
        self.assertEqual(lines[1], plain[1])
        self.assertNotIn("\033", "".join(plain))
