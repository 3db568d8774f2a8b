"""setup.sh: what it installs, and how it says what it can't."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from grader.__main__ import parse
from grader.core.building import build_os, clean_environment, make_text
from grader.classroom.release import released_files
from grader.course import BUILD, ROOT
from grader.core.grading import Choice
from grader.handouts.text import documents
from grader.quality.suite import OPTIONAL_TOOLS, TOOLS as TEST_TOOLS

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

    def test_clang_is_also_a_compiler(self) -> None:
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

    def test_a_failed_installation_is_reported(self) -> None:
        self.apt("exit 100")
        self.command("id", "echo 0")
        (self.folder / "nasm").unlink()
        status, said, _ = self.setup("build")
        self.assertEqual(status, 1)
        self.assertIn("apt-get update && apt-get install --no-install-recommends nasm\n", said)

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
        self.assertIn("sudo apt-get update && sudo apt-get install --no-install-recommends nasm\n", said)

    def test_one_command_is_enough_for_a_user(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", "exit 1")
        (self.folder / "nasm").unlink()
        _, said, _ = self.setup("build", "grade")
        packages = "nasm( python3-pexpect)? check pkg-config qemu-system-x86"   # /usr/bin/python3 may have it
        self.assertRegex(said, f"install --no-install-recommends {packages}\n")

    def test_a_command_asks_only_for_its_own_part(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", "exit 1")
        for part, package in (("python", "python3"), ("format", "clang-format")):
            _, said, _ = self.setup(part)
            self.assertIn(f"--no-install-recommends {package}\n", said)

    def test_every_tool_of_the_tests_is_installed(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", "exit 1")
        _, said, _ = self.setup("test", "handouts")
        packages = said.rpartition("--no-install-recommends ")[2].split()
        self.assertEqual(set(TEST_TOOLS) - set(packages), set())
        self.assertEqual(set(OPTIONAL_TOOLS) & set(packages), set())

    def test_the_tools_of_console_blocks_are_known(self) -> None:
        needed = {tool for document in documents() for fence in document.fences()
                  for tool in fence.words.get("needs", "").split()}
        self.assertEqual(needed - set(TEST_TOOLS), set())

    def test_a_try_without_rights_says_nothing(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.command("sudo", "exit 1")
        self.assertEqual(self.setup("--try", "vm"), (1, "", []))

    def test_the_command_for_a_person(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        self.assertEqual(self.setup("--command", "a", "b")[1],
                         "sudo apt-get update && sudo apt-get install --no-install-recommends a b\n")

    def test_the_doctor_without_python(self) -> None:
        self.apt()
        self.command("id", "echo 1000")
        (self.folder / "gcc").unlink()
        status, said, calls = self.setup("--doctor")
        self.assertEqual((status, calls), (1, []))
        self.assertIn("FAIL  python3: missing\nFAIL  gcc: missing\n", said)
        self.assertIn("OK    nasm\n", said)
        self.assertIn("--no-install-recommends python3 gcc ", said)
        self.command("python3")
        self.assertEqual(self.setup("--doctor"), (0, "", []))

    def test_another_system_gets_the_names(self) -> None:
        (self.folder / "nasm").unlink()
        status, said, _ = self.setup("build")
        self.assertEqual(status, 1)
        self.assertIn("nasm", said)

    def test_an_unknown_part_is_a_mistake(self) -> None:
        self.assertEqual(self.setup("everything")[0], 2)

    def test_the_search_for_python_imports_nothing(self) -> None:
        for name in ("pexpect.py", "capstone.py"):
            (self.folder / name).write_text("raise SystemExit(1)\n")
        done = subprocess.run([self.folder / "sh", ROOT / "grader/setup.sh", "--python"], text=True,
                              env={"PATH": str(self.folder), "PYTHONPATH": str(self.folder)},
                              stdout=subprocess.PIPE)
        self.assertEqual(done.stdout, "/usr/bin/python3\n")


class Choices(unittest.TestCase):
    """What the Makefile makes of CC and of variables that are exported, but empty."""

    def printed(self, *words: str, **environment: str) -> str:
        """What `make` prints with these words, without its command above us."""
        done = subprocess.run([str(shutil.which("make")), "-s", *words], cwd=ROOT, text=True,
                              env={**clean_environment(), **environment}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        return done.stdout

    def compiler(self, *names: str, **environment: str) -> str:
        """The compiler of a machine that has these."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for tool in ("sh", "sed", "grep", "test", "echo"):
                os.symlink(str(shutil.which(tool)), folder / tool)
            for tool in names:
                (folder / tool).write_text("#!/bin/sh\n")
                (folder / tool).chmod(0o755)
            return self.printed("vmm-flags", "LAB=1", PATH=name, **environment).split()[0]

    def test_clang_where_there_is_no_gcc(self) -> None:
        self.assertEqual(self.compiler("gcc", "clang"), "gcc")
        self.assertEqual(self.compiler("clang"), "clang")
        self.assertEqual(self.compiler(), "gcc")
        self.assertEqual(self.compiler("gcc", CC=""), "gcc")
        self.assertEqual(self.compiler("gcc", CC="mine"), "mine")

    def test_a_compiler_of_several_words(self) -> None:
        text = make_text("vmm", {"LAB": "1", "SOLUTION": "1", "CC": "/usr/bin/env gcc -g3"})
        self.assertRegex(text, r"^build/vmm/[\w.-]+/vmm\n$")

    def test_the_command_that_repeats_it_is_one_for_a_shell(self) -> None:
        words = shlex.split(Choice(7, cc="gcc -g3").command(1, "1.1"))
        self.assertIn("CC=gcc -g3", words)

    def test_an_exported_empty_choice_is_ignored(self) -> None:
        with mock.patch.dict(os.environ, {"CC": "", "SANITIZE": ""}):
            self.assertEqual(parse(["grade", "--lab", "1"]).sanitize, "")
        with mock.patch.dict(os.environ, dict.fromkeys(("SCHED", "OS_OUT", "PROGRAM_DIR", "OUT", "CC"), "")):
            self.assertTrue(build_os()[0].exists())

    def test_python_keeps_its_bytecode(self) -> None:
        said = self.printed("--eval=environment: ; @env", "environment", PYTHONDONTWRITEBYTECODE="1")
        self.assertIn(f"PYTHONPYCACHEPREFIX={BUILD}/pycache\n", said)
        self.assertNotIn("PYTHONDONTWRITEBYTECODE", said)


class Clones(unittest.TestCase):
    def test_lines_end_in_lf_in_every_clone(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            call = ["git", "-c", "core.autocrlf=true", "-c", "core.eol=crlf", "-C", name]
            for words in (["init", "-q"], ["config", "core.autocrlf", "true"]):
                subprocess.run([*call, *words], check=True)
            for file in (".gitattributes", "Makefile", "grader/setup.sh"):
                target = Path(name) / file
                target.parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / file, target)
            subprocess.run([*call, "add", "-A"], check=True, stderr=subprocess.DEVNULL)
            for file in ("Makefile", "grader/setup.sh"):
                (Path(name) / file).unlink()
            subprocess.run([*call, "checkout", "-q", "--", "."], check=True)
            for file in ("Makefile", "grader/setup.sh"):
                self.assertNotIn(b"\r", (Path(name) / file).read_bytes())

    def test_a_release_also_has_them(self) -> None:
        self.assertIn(".gitattributes", released_files())


if __name__ == "__main__":
    unittest.main()
