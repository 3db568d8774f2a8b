"""setup.sh: what it installs, and how it says what it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from grader.course import ROOT

# What setup.sh itself runs, beside the commands that a test provides.
TOOLS = ("sh", "test", "env", "cat")


class Setup(unittest.TestCase):
    """A machine of stubs: only the commands that a test puts there exist."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "log"
        for name in TOOLS:
            os.symlink(str(shutil.which(name)), self.folder / name)
        for name in ("gcc", "nasm"):
            self.command(name)

    def command(self, name: str, body: str = "") -> None:
        """A command that keeps a record of its calls."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)

    def apt(self, body: str = "") -> None:
        self.command("apt-get", f'echo "apt-get $*" >> {self.log}\n{body}')

    def setup(self, *parts: str) -> tuple[int, str, list[str]]:
        """Runs setup.sh: its status, its words, and the calls of apt-get."""
        done = subprocess.run([self.folder / "sh", ROOT / "grader/setup.sh", *parts], text=True,
                              env={"PATH": str(self.folder)}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        return done.returncode, done.stdout, calls

    INSTALL = "apt-get install -y -q --no-install-recommends nasm"

    def test_nothing_missing_is_silent(self) -> None:
        self.apt()
        self.assertEqual(self.setup("build"), (0, "", []))

    def test_clang_is_a_compiler_too(self) -> None:
        self.apt()
        (self.folder / "gcc").rename(self.folder / "clang")
        self.assertEqual(self.setup("build"), (0, "", []))

    def test_root_installs(self) -> None:
        self.apt()
        self.command("id", "echo 0")
        (self.folder / "nasm").unlink()
        status, said, calls = self.setup("build")
        self.assertEqual((status, calls), (0, [self.INSTALL]))
        self.assertIn("Installing: nasm", said)

    def test_old_lists_are_updated_and_the_installation_repeated(self) -> None:
        self.apt(f'[ "$1" = update ] && : > {self.folder}/updated\n[ -e {self.folder}/updated ]')
        self.command("id", "echo 0")
        (self.folder / "nasm").unlink()
        status, _, calls = self.setup("build")
        self.assertEqual((status, calls), (0, [self.INSTALL, "apt-get update -q", self.INSTALL]))

    def test_a_failed_installation_is_told(self) -> None:
        self.apt("exit 100")
        self.command("id", "echo 0")
        (self.folder / "nasm").unlink()
        status, said, _ = self.setup("build")
        self.assertEqual(status, 1)
        self.assertIn("Try by hand: apt-get install --no-install-recommends nasm", said)

    def test_sudo_without_a_password_installs(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", '[ "$1" = -n ] && shift\n"$@"')
        self.command("true")
        (self.folder / "nasm").unlink()
        status, _, calls = self.setup("build")
        self.assertEqual((status, calls), (0, [self.INSTALL]))

    def test_a_user_gets_the_command(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", "exit 1")
        (self.folder / "nasm").unlink()
        status, said, calls = self.setup("build")
        self.assertEqual((status, calls), (1, []))
        self.assertIn("sudo apt-get install --no-install-recommends nasm\n", said)

    def test_another_system_gets_the_names(self) -> None:
        (self.folder / "nasm").unlink()
        status, said, _ = self.setup("build")
        self.assertEqual(status, 1)
        self.assertIn("nasm", said)

    def test_an_unknown_part_is_a_mistake(self) -> None:
        self.assertEqual(self.setup("everything")[0], 2)


if __name__ == "__main__":
    unittest.main()
