"""Ctrl-C ends every command at once, by SIGINT or with status 130, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore

from grader.core.building import clean_environment
from grader.course import BUILD, LABS, ROOT

BUILDING = r"building [^\r\n]*: \w+\.o"
BUILDERS = ("lab2 SOLUTION=1", "run LAB=2 SOLUTION=1 GUESTS=hello", "os", "demo", "grade LAB=2 SOLUTION=1",
            "watch LAB=2", "bench", "handin LAB=2")
# The others, each with the line that says what it does.
OTHERS = {"handouts": "rendering the handouts: lab1", "release": "packing the kit: lab 1",
          "adapters LAB=1": "packing the kit: lab 1", "flakes LAB=1 N=1": "grading lab 1: 1 of 1",
          "mutants LAB=1": "modules to grade: ", "cheats LAB=1": "modules to grade: "}
CC = "gcc -DINTERRUPTED"  # a compiler of its own: whatever was built before, there is something to build
TIMEOUT = 120
PR_SET_CHILD_SUBREAPER = 36

# Gradings of which only the first ends; then Ctrl-C is pressed.
ENDLESS = """
import itertools, os, signal, sys, threading
from grader.quality import variants

number = itertools.count()

def grade_variant(*arguments):
    if next(number) > 0:
        threading.Event().wait()

def press(text, *more, **how):
    if text.startswith("lab 1 "):
        os.kill(os.getpid(), signal.SIGINT)

variants.grade_variant = grade_variant
variants.print = press
variants.CHECKS["mutants"] = lambda fields, report: []
sys.exit(variants.main(["mutants", "--lab", "1"]))
"""


def stat_fields(place: Path) -> list[str]:
    """A process's state, its parent, and more, from proc_pid_stat(5)."""
    return (place / "stat").read_text().rpartition(")")[2].split()


def descendants() -> Iterator[str]:
    """The command lines of the processes that this one, as their subreaper, has left."""
    found: dict[int, tuple[int, str]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = stat_fields(place)[:2]
            if state != "Z":
                found[int(place.name)] = int(parent), (place / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    for above, words in found.values():
        while above in found and above != os.getpid():
            above = found[above][0]
        if above == os.getpid():
            yield words


class Interrupt(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def setUp(self) -> None:
        self.remove()
        self.addCleanup(self.remove)

    def made(self) -> list[Path]:
        """The folders of what this compiler makes."""
        return [path for folder in ("objects", "vmm") for path in (BUILD / folder).glob("*INTERRUPTED*")]

    def remove(self) -> None:
        for path in self.made():
            shutil.rmtree(path)

    def all_end(self) -> None:
        """A compiler that has got its signal may still be on its way out."""
        end = time.monotonic() + TIMEOUT
        while (left := list(descendants())) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(left, [])

    def interrupt(self, event: str, program: str, *words: str) -> None:
        """Starts a command on a terminal, and presses Ctrl-C when it has printed `event`."""
        child = pexpect.spawn(program, list(words), cwd=str(ROOT), timeout=TIMEOUT, encoding="utf-8",
                              env={**clean_environment(), "CC": CC, "TERM": "vt100"})
        try:
            if child.expect([event, "Missing packages|cannot grade: |from a clone with its history"]) == 1:
                self.skipTest(child.after + child.readline())
            child.sendintr()
            child.expect(pexpect.EOF)
            said = child.before
            child.wait()
        finally:
            child.close(force=True)
        ended = child.exitstatus, child.signalstatus
        # GNU make's handler of a signal waits for its child, which the interrupted wait() may have collected
        # already: on a loaded machine the child ends before make is woken.
        if ended != (2, None) or "wait: No child processes" not in said:
            self.assertIn(ended, ((None, signal.SIGINT), (130, None)), repr(said))
        self.assertNotIn("Traceback", said)
        self.all_end()

    def test_in_a_build(self) -> None:
        for command in BUILDERS:
            with self.subTest(command=command):
                self.interrupt(BUILDING, "make", *command.split())
                half = [path for folder in self.made() for path in folder.rglob("*")
                        if re.search(r"\.(new|o\.\d+\.[od])$", path.name)]
                self.assertEqual(half, [])
                self.remove()

    def test_make_alone_gets_a_signal(self) -> None:
        """As `timeout make ...` ends it: make passes the signal to its own child only."""
        for event in (BUILDING, "(kvm|vm): "):
            with self.subTest(event=event):
                child = pexpect.spawn("make", ["grade", "LAB=2", "SOLUTION=1"], cwd=str(ROOT),
                                      encoding="utf-8", timeout=TIMEOUT,
                                      env={**clean_environment(), "CC": CC, "TERM": "vt100"})
                try:
                    if child.expect([event, "cannot grade: "]) == 1:
                        self.skipTest(child.readline())
                    os.kill(child.pid, signal.SIGTERM)
                    child.expect(pexpect.EOF)
                    child.wait()
                finally:
                    child.close(force=True)
                self.assertTrue(child.exitstatus or child.signalstatus)
                self.all_end()

    def test_in_the_other_commands(self) -> None:
        for command, event in OTHERS.items():
            with self.subTest(command=command):
                self.interrupt(event, "make", *command.split())

    def test_in_a_class(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            for learner in ("anna", "ben"):
                (Path(name) / "all" / learner).mkdir(parents=True)
                shutil.copy(LABS[1].solution_files()[0], Path(name) / "all" / learner)
            self.interrupt("submissions to grade: 2", sys.executable, "-m", "grader.classroom.grade_class",
                           "--lab", "1", "--submissions", f"{name}/all", "--out", f"{name}/out")

    def test_gradings_in_threads_are_not_waited_for(self) -> None:
        done = subprocess.run([sys.executable, "-c", ENDLESS], cwd=ROOT, env=clean_environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT)
        self.assertEqual(done.returncode, 130, done.stdout)
        self.assertNotIn("Traceback", done.stdout)

    def test_anywhere_else(self) -> None:
        """A command whose own code does not know of it."""
        program = "import grader, os, signal; os.kill(os.getpid(), signal.SIGINT)"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, stderr=subprocess.PIPE,
                              env=os.environ)
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGINT, ""))


if __name__ == "__main__":
    unittest.main()
