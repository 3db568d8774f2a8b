"""Ctrl-C while a command builds: it ends at once, by SIGINT, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

import pexpect  # type: ignore

from grader.core.building import clean_environment
from grader.course import BUILD, ROOT

COMMANDS = ("lab2 SOLUTION=1", "run LAB=2 SOLUTION=1 GUESTS=hello", "os", "demo", "grade LAB=2 SOLUTION=1",
            "watch LAB=2", "bench")
CC = "gcc -DINTERRUPTED"  # a compiler of its own: whatever was built before, there is something to build
TIMEOUT = 120


def processes_of(session: int) -> list[str]:
    """The command lines of the processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


class Interrupt(unittest.TestCase):
    def setUp(self) -> None:
        self.remove()
        self.addCleanup(self.remove)

    def made(self) -> list[Path]:
        """The folders of what this compiler makes."""
        return [path for folder in ("objects", "vmm") for path in (BUILD / folder).glob("*INTERRUPTED*")]

    def remove(self) -> None:
        for path in self.made():
            shutil.rmtree(path)

    def all_end(self, session: int) -> None:
        """A compiler that has got its signal may still be on its way out."""
        end = time.monotonic() + TIMEOUT
        while (left := processes_of(session)) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(left, [])

    def test_in_a_build(self) -> None:
        for command in COMMANDS:
            with self.subTest(command=command):
                child = pexpect.spawn("make", command.split(), cwd=str(ROOT), timeout=TIMEOUT,
                                      encoding="utf-8", env={**clean_environment(), "CC": CC})
                child.expect(r"building [^\r\n]*: \w+\.o")
                child.sendintr()
                child.expect(pexpect.EOF)
                said = child.before
                child.wait()
                self.assertEqual((child.exitstatus, child.signalstatus), (None, signal.SIGINT), said)
                self.assertNotIn("Traceback", said)
                self.all_end(child.pid)
                half = [path for folder in self.made() for path in folder.rglob("*")
                        if re.search(r"\.(new|o\.\d+\.[od])$", path.name)]
                self.assertEqual(half, [])
                child.close()
                self.remove()

    def test_anywhere_else(self) -> None:
        """A command whose own code does not know of it."""
        program = "import grader, os, signal; os.kill(os.getpid(), signal.SIGINT)"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, stderr=subprocess.PIPE,
                              env=os.environ)
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGINT, ""))


if __name__ == "__main__":
    unittest.main()
