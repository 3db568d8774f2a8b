"""Commands start on any machine, or say why they can't: locales, outputs, colours, folders, sources."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from grader.commands import doctor, handin, skeletons
from grader.core import version
from grader.core.building import BuildError, build_vmm, check_source, clean_environment
from grader.core.grading import Choice, Report, grade
from grader.core.plan import Plan
from grader.course import LABS, ROOT
from grader.execution import place, tool
from grader.execution.backends.kvm import KvmBackend
from grader.execution.budget import Account
from grader.execution.runs import CannotGrade, Ending, Result, Run
from grader.execution.worker import Backend
from grader.execution.worker import OnResult
from grader.quality.tests.fakes import SHORT, FakeCase, FakePrograms, host, lab_of

# The strictest of all: bytes above 127 can't be read, nor letters beyond ASCII be printed.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LETTERS = "from grader.execution.tool import run_command; run_command(lambda: print({!a}))"


def call(*words: str, stdout: int = subprocess.PIPE,
         environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[bytes]":
    """A command of the kit, with these variables."""
    variables = {**clean_environment(), **(environment or {})}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=variables,
                          stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)


class Locales(unittest.TestCase):
    """One place decides about encodings: grader/__init__.py."""

    def test_all_is_utf_8_in_any_locale(self) -> None:
        script = ("import grader, sys, subprocess; print(open('grader/core/readable.py').encoding, "
                  "sys.getfilesystemencoding(), len(subprocess.run(['printf', r'\\303\\251'], text=True, "
                  "capture_output=True).stdout))")
        self.assertEqual(call("-c", script, environment=ASCII).stdout.lower(), b"utf-8 utf-8 1\n")

    def test_letters_are_printed_in_any_locale(self) -> None:
        for environment in (ASCII, {"LC_ALL": "C.UTF-8"}, {"PYTHONIOENCODING": "latin-1"}):
            with self.subTest(environment):
                done = call("-c", LETTERS.format("⏎ö"), environment=environment)
                self.assertEqual((done.stdout.decode(), done.stderr), ("⏎ö\n", b""))

    def test_names_that_are_not_utf_8_are_printed(self) -> None:
        done = call("-c", LETTERS.format("ren\udce9 \ud800"))
        self.assertEqual((done.stdout, done.stderr), (b"ren\xe9 \\ud800\n", b""))

    def test_the_skeletons_know_a_committed_file_of_any_encoding(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "vm.c"
            file.write_bytes(b"/* Gr\xfc\xdfe */\n")
            git = ["git", "-C", name, "-c", "user.name=x", "-c", "user.email=x@y"]
            for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
                subprocess.run([*git, *words], check=True)
            self.assertTrue(skeletons._may_replace(file, Path(name) / "none"))
            file.write_bytes(b"/* Gr\xfc\xdfe! */\n")
            self.assertFalse(skeletons._may_replace(file, Path(name) / "none"))


class Output(unittest.TestCase):
    """Standard output that can't be written."""

    def test_a_reader_that_is_gone_ends_it_quietly(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as pipe:
            done = call("-m", "grader.commands.status", stdout=pipe.fileno())
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, b""))

    def test_a_full_disk_is_one_line(self) -> None:
        with open("/dev/full", "wb") as full:
            done = call("-m", "grader.commands.status", stdout=full.fileno())
        self.assertEqual((done.returncode, done.stderr),
                         (74, b"can't write standard output: No space left on device\n"))

    def test_a_closed_output_is_one_line(self) -> None:
        command = f'exec {sys.executable} -m grader.commands.status >&-'
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr),
                         (74, b"can't write standard output: Bad file descriptor\n"))

    def test_a_long_running_command_continues(self) -> None:
        script = ("import sys; from grader.execution.tool import run_command\n"
                  "def main():\n"
                  "    for _ in range(3): print('x', flush=True)\n"
                  "    print('all done', file=sys.stderr)\n"
                  "run_command(main, lasting=True)")
        with open("/dev/full", "wb") as full:
            done = call("-c", script, stdout=full.fileno())
        self.assertEqual(done.returncode, 74)
        self.assertRegex(done.stderr, b"^all done\ncan't write standard output: No space .*\n$")

    def test_every_command_ends_so(self) -> None:
        for path in (ROOT / "grader").rglob("*.py"):
            text = path.read_text()
            if '\nif __name__ == "__main__":' in text and "/tests/" not in str(path):
                with self.subTest(str(path)):
                    self.assertRegex(text, r"\n    run_command\(")


class Colours(unittest.TestCase):
    """One rule for all: NO_COLOR, then TERM=dumb, then isatty."""

    def test_the_rule(self) -> None:
        for terminal, environment, colour, on_terminal in (
                (True, {}, True, True), (False, {}, False, False), (True, {"NO_COLOR": "1"}, False, True),
                (True, {"NO_COLOR": ""}, True, True), (True, {"TERM": "dumb"}, False, False)):
            with self.subTest((terminal, environment)), \
                    mock.patch.dict(os.environ, environment, clear=True), \
                    mock.patch("sys.stdout", SimpleNamespace(isatty=lambda: terminal)), \
                    mock.patch("sys.stderr", SimpleNamespace(isatty=lambda: terminal)):
                self.assertEqual((tool.in_colour(), tool.on_terminal(), tool.in_place()),
                                 (colour, on_terminal, on_terminal))

    def test_no_module_has_its_own_rule(self) -> None:
        for path in (ROOT / "grader").rglob("*.py"):
            if path.name not in ("tool.py", "test_places.py"):
                with self.subTest(str(path)):
                    self.assertNotRegex(path.read_text(), r"std(out|err)\.isatty\(")


class Folders(unittest.TestCase):
    """build/ where files can't be written, locked or executed: one line with the cause and the command."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "vmm").touch()

    def reason(self) -> str:
        return "\n".join(check.reason for check in place.checks(self.folder) if check.reason)

    @contextlib.contextmanager
    def flags(self, flags: int) -> Iterator[None]:
        found = SimpleNamespace(f_flag=flags, f_bavail=1 << 30, f_frsize=1, f_blocks=1, f_bfree=1)
        with mock.patch("os.statvfs", lambda _: found):
            yield

    def test_all_is_well(self) -> None:
        self.assertEqual(self.reason(), "")

    def test_each_fault_is_named(self) -> None:
        with self.flags(os.ST_RDONLY):
            self.assertIn("read-only file system", self.reason())
        with self.flags(os.ST_NOEXEC):
            self.assertIn("mounted noexec", self.reason())
        with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available")):
            self.assertIn("does not support locks (flock: No locks available)", self.reason())
        with mock.patch("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20)):
            self.assertIn("has 1 MB left", self.reason())
        with mock.patch("os.getuid", lambda: 4711), \
                mock.patch("os.access", lambda path, _: path == self.folder):
            self.assertIn("belongs to another user", self.reason())

    def test_another_command_may_remove_files_meanwhile(self) -> None:
        (self.folder / "gone").mkdir()
        list_folder = os.scandir

        def scan(path: str) -> Any:
            if Path(path).name == "gone":
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            return list_folder(path)

        with mock.patch("os.scandir", scan):
            self.assertEqual(self.reason(), "")

    def test_a_build_that_may_not_write_is_the_machines_fault(self) -> None:
        fault = CannotGrade("build/ belongs to root", "chown")
        said = "mkdir: cannot create directory 'build/vmm': Permission denied\nmake: *** [x] Error 1"
        with mock.patch("grader.core.building._run_make", lambda *_: (2, "", said)), \
                mock.patch("grader.execution.place.fault", lambda: fault), self.assertRaises(CannotGrade):
            build_vmm(1, solution=True)
        no_locks = OSError(errno.ENOLCK, "No locks available")
        with mock.patch("grader.core.building.locked", side_effect=no_locks), self.assertRaises(CannotGrade):
            build_vmm(1, solution=True)

    def test_an_error_of_the_machine_is_one_line_for_each_command(self) -> None:
        script = ("from grader.execution.tool import run_command\n"
                  "def main(): open('/dev/full', 'wb', 0).write(b'x')\n"
                  "run_command(main)")
        done = call("-c", script)
        self.assertEqual(done.returncode, tool.CANNOT, done.stderr)
        self.assertRegex(done.stderr, rb"^No space left on device\n  fix: free space .*\n$")
        self.assertIsNone(place.cause(OSError(errno.ENOENT, "a bug")))


class StoppedBuilds(unittest.TestCase):
    """A compiler that was killed, has crashed or could not write is never the learner's fault."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.module = self.folder / "hypercall.c"
        self.module.write_bytes(LABS[2].solution_files()[0].read_bytes())
        self.command = [sys.executable, "-m", "grader", "grade", "--lab", "2", "--module", str(self.module)]
        build_vmm(2, module=self.module)          # all but the module is there then
        self.module.write_bytes(self.module.read_bytes() + b"/* one more comment */\n")

    def grade(self, **options: Any) -> "subprocess.CompletedProcess[str]":
        results = self.folder / "results"
        done = subprocess.run([*self.command, "--results", str(results)], cwd=ROOT, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              **options)
        self.assertFalse(results.exists())
        return done

    def test_a_file_size_limit(self) -> None:
        done = self.grade(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40 << 10, 40 << 10)))
        self.assertEqual((done.returncode, done.stdout), (3, ""))
        self.assertIn("this machine stopped a build: ", done.stderr)

    def test_no_room_for_temporary_files(self) -> None:
        full = self.folder / "full"
        full.mkdir()
        script = (f"mount -t tmpfs -o size=16k full {full} && ! cat /dev/zero 2>/dev/null >{full}/x && "
                  'exec "$@"')
        done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
                               *self.command], cwd=ROOT, env={**clean_environment(), "TMPDIR": str(full)},
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if "unshare" in done.stderr or "mount:" in done.stderr:
            self.skipTest(done.stderr)
        self.assertEqual((done.returncode, done.stdout), (3, ""), done.stderr)
        self.assertIn("No space left on device", done.stderr)

    def test_what_is_the_machines_and_what_the_learners(self) -> None:
        for line in ("gcc: fatal error: Killed signal terminated program cc1",
                     "gcc: internal compiler error: Segmentation fault signal terminated program cc1",
                     "vm.c:12:3: internal compiler error: in foo, at bar.c:7",
                     "vm.c:9:1: fatal error: error writing to /tmp/x.s: No space left on device",
                     "/usr/bin/ld: final link failed: No space left on device",
                     "collect2: fatal error: ld terminated with signal 25 [File size limit exceeded]",
                     "clang: error: unable to execute command: Killed",
                     "gcc: fatal error: cannot execute 'cc1': vfork: Resource temporarily unavailable",
                     "gcc: fatal error: CPU time limit exceeded signal terminated program cc1",
                     "make: *** [vmm.mk:7: build/lab2.o] Killed"):
            self.assertEqual(place.stopped(f"x\n{line}\ny"), line)
        for line in ("vm.c:1:2: error: #error internal compiler error: No space left",
                     'vm.c:11:2: error: static assertion failed: "Killed signal terminated program"',
                     "    1 | #error gcc: fatal error: Killed signal terminated program cc1",
                     "make: *** [vmm.mk:7: build/lab2.o] Error 1"):
            self.assertEqual(place.stopped(line), "")


class Sources(unittest.TestCase):
    """A learner's file that no compiler could read."""

    def said(self, name: str, content: bytes | None, wanted: str = "vm.c") -> str:
        with tempfile.TemporaryDirectory() as folder:
            if content is not None:
                (Path(folder) / name).write_bytes(content)
            with self.assertRaises(BuildError) as caught:
                check_source(Path(folder) / wanted)
        self.assertTrue(caught.exception.learner)
        return caught.exception.text.replace(f"{folder}/", "")

    def test_the_message_names_what_is_wrong(self) -> None:
        self.assertEqual(self.said("x", None), "vm.c is missing")
        self.assertEqual(self.said("VM.C", b""), "vm.c is missing; rename VM.C")
        self.assertEqual(self.said("vm.c", "int x;".encode("utf-16")), "vm.c is UTF-16: save it as UTF-8")
        self.assertEqual(self.said("vm.c", b"\x7fELF\0"), "vm.c is not text: save it as UTF-8")

    def test_a_build_asks(self) -> None:
        with self.assertRaises(BuildError) as caught:
            build_vmm(1, module=Path("/nonesuch/vm.c"))
        self.assertEqual(caught.exception.text, "/nonesuch/vm.c is missing")

    def test_a_build_that_succeeds_shows_the_compilers_warnings(self) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as said:
            module = Path(folder) / "vm.c"
            for more, expected in (("static int of_mine(void) { return 1; }", True), ("", False)):
                module.write_text(f"{LABS[1].solution_files()[0].read_text()}{more}\n")
                said.truncate(said.seek(0))
                build_vmm(1, module=module, out=Path(folder) / "out")
                self.assertEqual("vm.c" in said.getvalue() and "of_mine" in said.getvalue(), expected)


class People(unittest.TestCase):
    def test_a_user_without_a_name(self) -> None:
        with mock.patch.dict(os.environ, clear=True), mock.patch("pwd.getpwuid", side_effect=KeyError):
            self.assertEqual(handin._user(), f"user{os.getuid()}")


class Git(unittest.TestCase):
    def test_its_own_words_are_passed_on(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            subprocess.run(["git", "init", "-q", name], check=True)
            with mock.patch.object(version, "ROOT", Path(name)), \
                    mock.patch.dict(os.environ, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}):
                self.assertIn("safe.directory", version.git_refusal())
        with tempfile.TemporaryDirectory() as name, mock.patch.object(version, "ROOT", Path(name)):
            self.assertEqual(version.git_refusal(), "")


class Doctor(unittest.TestCase):
    def test_a_row_for_each_thing_that_stopped_the_kit(self) -> None:
        rows = {row.what: row for row in [*doctor.tool_rows(), *doctor.place_rows(), *doctor.kvm_rows()]}
        for what in ("disk space", "programs may be executed", "files can be locked",
                     "git on this clone", "Python", "build/ can be written"):
            self.assertEqual(rows[what].status, doctor.OK, rows[what])
        for what in ("locale", "/dev/kvm"):      # each is as this machine has it
            self.assertIn(what, rows)

    def test_a_lab_vm_that_needs_a_network_is_a_row(self) -> None:
        fault = CannotGrade("no network", "get one")
        with mock.patch("grader.execution.labvm.snapshot.start", side_effect=fault), \
                mock.patch("shutil.which", return_value="/usr/bin/true"):
            self.assertEqual(doctor.lab_vm_row(), doctor.Row("lab VM", "no network", doctor.WARN, "get one"))

    def test_a_fault_comes_with_its_fix(self) -> None:
        text = doctor.table([doctor.Row("a", "bad", doctor.FAIL, "do this"),
                             doctor.Row("b", "meagre", doctor.WARN, "or that"),
                             doctor.Row("c", "good", doctor.OK, "nothing")], colour=False)
        self.assertEqual(re.sub(" +", " ", text),
                         "FAIL a bad\n fix: do this\nWARN b meagre\n fix: or that\nOK c good")

    def test_it_installs_nothing_and_says_what_is_missing(self) -> None:
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"PATH": name, "CC": ""}), \
                mock.patch.object(doctor, "probe_kvm", side_effect=CannotGrade("no compiler", "get one")), \
                contextlib.redirect_stdout(printed):
            self.assertEqual(doctor.main(), 1)
        self.assertIn("Fix first: C compiler", printed.getvalue())
        self.assertRegex(printed.getvalue(), r"WARN +QEMU \(lab VM\) +missing")
        self.assertRegex(printed.getvalue(), r"WARN +lab VM +not tested: it needs QEMU")


class _GoneKvm(KvmBackend):
    """A KVM that was there when it was picked."""

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        return [Result(Ending.EXIT, 69, stderr=b"vmm: no VM can be created\n") for _ in runs]

    def works_still(self) -> bool:
        return False


class KvmThatGoes(FakeCase):
    def graded(self, script: str, *backends: Backend) -> Report:
        def yes(plan: Plan) -> None:
            plan.boot(limits=SHORT).prints("yes\n")

        left = list(backends)
        choice = Choice(7, folder=self.folder / "results")
        report = grade(lab_of(yes), choice, lambda _: left.pop(0), FakePrograms(self.folder, script))
        self.assertEqual(left, [])
        return report

    def test_nobody_fails_for_kvms_sake(self) -> None:
        report = self.graded("echo yes", _GoneKvm(), host(()))
        self.assertEqual(report.score, report.possible)

    def test_who_fails_on_a_good_kvm_fails(self) -> None:
        self.assertEqual(self.graded("echo no", host(())).score, 0)


if __name__ == "__main__":
    unittest.main()
