"""The labs' declarations and the guests: what holds without booting anything."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType

from grader import labs
from grader.course import BUILD, LABS, ROOT
from grader.core.building import build_unit, clean_environment
from grader.core.framework import POINTS_OF_A_LAB, Test
from grader.core.guests import assemble, write_constants
from grader.core.plan import Plan
from grader.core.values import Values
from grader.handouts.truths import answer_lines, lab_exercises
from grader.quality.variants import make_module, read_variants

PR_SET_CHILD_SUBREAPER = 36


class NoPrograms:
    """Programs that are never run; units must have their source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def vmm(self) -> Path:
        return Path("/vmm")

    def kernel(self) -> Path:
        return Path("/kernel.elf")

    def kernel_unit(self) -> Path:
        return Path("/kernel.elf")

    def finished_vmm(self) -> Path:
        return Path("/vmm")

    def unit(self, source: str) -> Path:
        path, = (lab.unit(source) for lab in LABS.values() if lab.unit(source).exists())
        return path


def facts(value: object, folder: str) -> object:
    """What a condition compares with, as far as its closure shows it: no addresses, and not the folder."""
    if isinstance(value, FunctionType):
        inside = [*(value.__defaults__ or ()), *(cell.cell_contents for cell in value.__closure__ or ())]
        return value.__name__, [facts(one, folder) for one in inside]
    if isinstance(value, (list, tuple)):
        return [facts(one, folder) for one in value]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)).replace(folder, "")


class Size(unittest.TestCase):
    """A learner can write and understand it all."""

    def test_part_two_is_600_lines_at_most(self) -> None:
        lines = sum(answer_lines(LABS[lab], number) for lab in (7, 8) for number in lab_exercises(LABS[lab]))
        self.assertIn(lines, range(400, 601))


class Declarations(unittest.TestCase):
    """All labs' tests."""

    def all_tests(self) -> list[Test]:
        return [test for number in labs.NUMBERS for test in labs.load(number).tests]

    def test_a_lab_has_100_points(self) -> None:
        for number in labs.NUMBERS:
            self.assertEqual(sum(test.points for test in labs.load(number).tests), POINTS_OF_A_LAB, number)

    def test_exercises_belong_to_their_lab_and_every_test_has_a_hint(self) -> None:
        for test in self.all_tests():
            self.assertTrue(test.exercise.startswith(f"{test.lab}."), test.id)
            self.assertGreater(len(test.hint), 20, test.id)

    def test_every_test_expects_something_of_every_run(self) -> None:
        write_constants()
        with TemporaryDirectory(dir=BUILD) as folder:
            for test in self.all_tests():
                plan = Plan(test, 1, NoPrograms(Path(folder)))
                test.body(plan)
                self.assertTrue(plan.planned, test.id)
                self.assertTrue(all(planned.expectations for planned in plan.planned), test.id)

    def test_what_guests_must_do_differs_from_seed_to_seed(self) -> None:
        """Else a module could print it, whatever the guests are. Unit programs draw their own values."""
        write_constants()
        for test in self.all_tests():
            expected = []
            for seed in (1, 2):
                with TemporaryDirectory(dir=BUILD) as folder:
                    plan = Plan(test, seed, NoPrograms(Path(folder)))
                    test.body(plan)
                expected.append([[facts(one.condition, folder) for one in planned.expectations]
                                 for planned in plan.planned])
            if not any(planned.white_box for planned in plan.planned):
                self.assertNotEqual(expected[0], expected[1], f"{test.id}: its result can be foreseen")


class Seeds(unittest.TestCase):
    """Random values."""

    def test_same_seed_same_values_whatever_else_is_graded(self) -> None:
        self.assertEqual(Values(5, "1.1-a").text(), Values(5, "1.1-a").text())
        self.assertNotEqual(Values(5, "1.1-a").text(), Values(6, "1.1-a").text())
        self.assertNotEqual(Values(5, "1.1-a").text(), Values(5, "1.1-b").text())

    def test_same_seed_same_guests(self) -> None:
        write_constants()
        [test] = labs.load(2).select("2.2-widths")
        images = []
        for seed in (1, 1, 2):
            with TemporaryDirectory(dir=BUILD) as folder:
                plan = Plan(test, seed, NoPrograms(Path(folder)))
                test.body(plan)
                images.append(Path(plan.planned[0].run.argv[-1]).read_bytes())
        self.assertEqual(images[0], images[1])
        self.assertNotEqual(images[0], images[2])


class UnitPrograms(unittest.TestCase):
    """The Check programs, run by themselves."""

    def test_a_test_that_fails_ends_the_process_of_the_module_first(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)    # processes left come to this one
        variant, = (one for one in read_variants("mutants", 5) if one.name == "user-segments-for-the-kernel")
        unit = build_unit(5, LABS[5].unit("paging"), module=make_module(variant))
        self.assertIn("not ok 1 - ", self.tap(unit, "gdt"))
        with self.assertRaises(ChildProcessError):
            os.waitpid(-1, 0)

    def tap(self, unit: Path, case: str) -> str:
        """What a test case of a Check program prints."""
        environment = {"CK_RUN_CASE": case, "CK_TAP_LOG_FILE_NAME": "-", "CK_VERBOSITY": "silent"}
        return subprocess.run([str(unit)], stdout=subprocess.PIPE, text=True, check=False,
                              env={**clean_environment(), **environment}).stdout


class Guests(unittest.TestCase):
    """The guests as they are."""

    def test_all_assemble_with_their_default_values(self) -> None:
        write_constants()
        with TemporaryDirectory(dir=BUILD) as folder:
            for source in sorted((ROOT / "guests").glob("*.asm")):
                image = assemble(source.stem, Path(folder) / "guest.bin")
                self.assertGreater(image.stat().st_size, 0, source.name)

    def test_minimal_is_one_byte(self) -> None:
        with TemporaryDirectory(dir=BUILD) as folder:
            self.assertEqual(assemble("minimal", Path(folder) / "guest.bin").read_bytes(), b"\xf4")


if __name__ == "__main__":
    unittest.main()
