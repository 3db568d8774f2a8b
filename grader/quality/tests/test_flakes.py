"""`make flakes`: the load it makes ends with it."""

from __future__ import annotations

import subprocess
import sys
import unittest

from grader.course import ROOT

HOLDS = """
from grader.quality.flakes import busy_processors
with busy_processors():
    print("busy", flush=True)
    input()
"""


class Flakes(unittest.TestCase):
    def test_the_load_ends_with_it_even_when_it_is_killed(self) -> None:
        for killed in (False, True):
            with self.subTest(killed=killed):
                program = subprocess.Popen([sys.executable, "-c", HOLDS], cwd=ROOT, stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True)
                assert program.stdin and program.stdout
                self.assertEqual(program.stdout.readline(), "busy\n")
                if killed:
                    program.kill()
                else:
                    program.stdin.write("\n")
                    program.stdin.flush()
                self.assertEqual(program.stdout.read(), "")   # returns once every process has closed it
                self.assertEqual(program.wait(), -9 if killed else 0)
                program.stdin.close()
                program.stdout.close()


if __name__ == "__main__":
    unittest.main()
