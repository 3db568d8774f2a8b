"""The mutants and alternatives of grader/: all fit today's solutions and name tests that there are; a few of
each lab are graded. `make mutants` and `make alternatives` grade them all.
"""

from __future__ import annotations

import subprocess
import sys
import unittest

from grader import labs
from grader.course import LABS, ROOT
from grader.quality.variants import Variant, make_module, read_variants

ALTERNATIVES_MIN = 2                 # of each lab that is graded
CANNOT_GRADE = 3                     # exit status of the grader


def sample(variants: list[Variant], count: int) -> list[Variant]:
    """Some of them, from all over the list."""
    return variants[len(variants) // (2 * count)::max(1, len(variants) // count)][:count]


# Those whose gradings are quick on every machine; `make mutants` and `make alternatives` take all.
QUICK_LABS = (1, 2, 3)


class Patches(unittest.TestCase):
    def test_all_fit(self) -> None:
        for lab in LABS:
            for variant in read_variants("mutants", lab) + read_variants("alternatives", lab):
                with self.subTest(variant=variant.name):
                    make_module(variant)

    def test_mutants_name_graded_tests(self) -> None:
        for number in labs.NUMBERS:
            known = {name for test in labs.load(number).tests for name in (test.id, test.exercise)}
            for mutant in read_variants("mutants", number):
                with self.subTest(mutant=mutant.name):
                    self.assertLessEqual(set(mutant.fields["fails"].split()), known)
                    self.assertTrue(mutant.fields["fails"] and mutant.fields["hint"])

    def test_alternatives_of_each_lab(self) -> None:
        for number in labs.NUMBERS:
            with self.subTest(lab=number):
                self.assertGreaterEqual(len(read_variants("alternatives", number)), ALTERNATIVES_MIN)


class Graded(unittest.TestCase):
    def grade(self, variant: Variant) -> None:
        """As `make mutants` would."""
        command = [sys.executable, "-m", "grader.quality.variants", variant.kind, "--lab", str(variant.lab),
                   "--only", variant.name]
        done = subprocess.run(command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode == CANNOT_GRADE or ": cannot" in done.stdout:
            self.skipTest(f"lab {variant.lab} can't be graded here")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_some_mutants(self) -> None:
        for number in QUICK_LABS:
            for mutant in sample(read_variants("mutants", number), 2):
                with self.subTest(lab=number, mutant=mutant.name):
                    self.grade(mutant)

    def test_an_alternative(self) -> None:
        for number in QUICK_LABS:
            for alternative in sample(read_variants("alternatives", number), 1):
                with self.subTest(lab=number, alternative=alternative.name):
                    self.grade(alternative)


if __name__ == "__main__":
    unittest.main()
