"""A person at a command in the lab VM: what passes through, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import pexpect  # type: ignore

from grader.execution.backends.vm import VmBackend
from grader.course import ROOT
from grader.execution.c_tools import c_tool
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import CannotGrade, Run

PROGRAM = str(c_tool("test-program", ROOT / "grader/quality/tests/program.c"))
TIMEOUT = 60


def setUpModule() -> None:
    """Without a lab VM there is nothing to test."""
    try:
        VmBackend().run([Run((PROGRAM, "exit", "0"))])
    except CannotGrade as error:
        raise unittest.SkipTest(str(error)) from error


def command(*words: str) -> list[str]:
    """The host's command line that runs the test program in there."""
    return [sys.executable, "-m", "grader.execution.labvm", "run", "--", PROGRAM, *words]


def call(*words: str, stdin: bytes = b"", **options: Any) -> tuple[int, bytes, bytes]:
    """Status, stdout and stderr of the test program, run with pipes."""
    done = subprocess.run(command(*words), cwd=ROOT, input=stdin, capture_output=True, timeout=TIMEOUT,
                          check=False, **options)
    return done.returncode, done.stdout, done.stderr


class Pipes(unittest.TestCase):
    """Without a terminal."""

    def test_status_and_signal(self) -> None:
        self.assertEqual(call("exit", "64"), (64, b"", b""))
        self.assertEqual(call("signal", "11"), (-11, b"", b""))
        self.assertEqual(call("signal", "9"), (-9, b"", b""))

    def test_streams_are_apart(self) -> None:
        self.assertEqual(call("both"), (0, b"out", b"err"))

    def test_environment(self) -> None:
        _, out, _ = call("show", env={"PATH": os.environ["PATH"], "TERM": "xterm-x", "EMPTY": ""})
        self.assertIn(b"{TERM=xterm-x}", out)
        self.assertIn(b"{EMPTY=}", out)

    def test_input_is_binary_and_ends(self) -> None:
        data = bytes(range(256)) * 4000
        status, out, _ = call("copy", stdin=data)
        self.assertEqual((status, out == data), (0, True))
        with open(PROGRAM, "rb") as file:
            done = subprocess.run(command("copy"), cwd=ROOT, stdin=file, capture_output=True, timeout=TIMEOUT,
                                  check=False)
            file.seek(0)
            self.assertEqual(done.stdout, file.read())

    def test_input_comes_as_it_is_written(self) -> None:
        with subprocess.Popen(command("lines"), cwd=ROOT, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            assert process.stdin and process.stdout
            self.assertEqual(process.stdout.readline(), b"ready\n")
            for word in (b"one\n", b"two\n"):
                process.stdin.write(word)
                process.stdin.flush()
                self.assertEqual(process.stdout.readline(), b"got " + word)
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"end of input\n")

    def test_a_signal_is_passed_on(self) -> None:
        with subprocess.Popen(command("signals"), cwd=ROOT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), b"ready\n")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.stdout.read(), b"signal 15\n")
        self.assertEqual(process.returncode, 55)

    def test_sigalrm_kills(self) -> None:
        with subprocess.Popen(command("signals"), cwd=ROOT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), b"ready\n")
            process.send_signal(signal.SIGALRM)
            self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def test_a_file_comes_back_however_the_command_ends(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "written"
            for end, status in (("exit 3", 3), ("kill -9 $$", -signal.SIGKILL)):
                line = command()
                line[line.index("--"):] = [f"--output={path}", "--", "/bin/sh", "-c",
                                           f'echo "$1" > "${{0#--to=}}"; {end}', f"--to={path}", end]
                done = subprocess.run(line, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False)
                self.assertEqual((done.returncode, path.read_text()), (status, f"{end}\n"))

    def test_a_reader_that_leaves_ends_the_writer(self) -> None:
        with subprocess.Popen(command("print"), cwd=ROOT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.read(10)
            process.stdout.close()
            self.assertEqual(process.wait(TIMEOUT), -signal.SIGPIPE)

    def test_what_was_sent_as_the_command_ended_is_no_error(self) -> None:
        worker = VmWorker()
        self.addCleanup(worker.close)
        self.assertEqual(worker.execute(Run((PROGRAM, "exit", "3"))).status, 3)
        worker.channel.send(("send", b"late"), ("shut", b"1"), ("shut", b"1"), ("signal", b"15"),
                            ("resize", b"20 30"), ("close", b""), ("hello", b""))
        self.assertEqual(worker.channel.receive(TIMEOUT), ("hello", b""))

    def test_not_there(self) -> None:
        done = subprocess.run([*command()[:-1], "./nonesuch"], cwd=ROOT, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT, check=False)
        self.assertEqual(done.returncode, 126)
        self.assertIn(b"No such file", done.stderr)


class AtATerminal(unittest.TestCase):
    """On a terminal, as `make os` is used."""

    def spawn(self, *words: str) -> Any:
        line = command(*words)
        child = pexpect.spawn(line[0], line[1:], cwd=str(ROOT), timeout=TIMEOUT, dimensions=(33, 99))
        self.addCleanup(child.close, True)
        return child

    def ended(self, child: Any) -> tuple[Any, Any]:
        child.expect(pexpect.EOF)
        child.wait()
        return child.exitstatus, child.signalstatus

    def test_lines_are_echoed_once(self) -> None:
        child = self.spawn("lines")
        child.expect_exact("ready\r\n")
        child.sendline("hello")
        child.expect_exact("got hello\r\n")
        self.assertEqual(child.before, b"hello\r\n")
        child.sendeof()
        child.expect_exact("end of input\r\n")
        self.assertEqual(self.ended(child), (0, None))

    def test_interrupt_key(self) -> None:
        child = self.spawn("signals")
        child.expect_exact("ready")
        child.sendintr()
        child.expect_exact("signal 2")
        self.assertEqual(self.ended(child), (42, None))

    def test_window_size_follows(self) -> None:
        child = self.spawn("signals")
        child.expect_exact("ready")
        child.setwinsize(40, 120)
        child.expect_exact("size 40 120")
        child.kill(signal.SIGTERM)
        self.assertEqual(self.ended(child), (55, None))

    def test_it_is_a_terminal_there(self) -> None:
        child = self.spawn("terminal")
        child.expect_exact("111\r\nsize 33 99")
        self.assertEqual(self.ended(child), (0, None))

    def test_a_long_paste(self) -> None:
        child = self.spawn("lines")
        child.expect_exact("ready\r\n")
        lines = [b"%05d of a paste" % number for number in range(500)]
        child.send(b"\n".join(lines) + b"\n")
        child.expect_exact("got " + lines[-1].decode())
        got = re.findall(rb"got (\d{5} of a paste)", child.before + child.after)
        self.assertEqual(got, lines)

    def test_our_terminal_is_restored(self) -> None:
        line = " ".join(command("terminal"))
        child = pexpect.spawn("/bin/sh", ["-c", f"{line}; stty -a"], cwd=str(ROOT), timeout=TIMEOUT)
        self.addCleanup(child.close, True)
        child.expect(r"[^-]opost")
        child.expect(r"[^-]icanon")
        self.assertEqual(self.ended(child), (0, None))


if __name__ == "__main__":
    unittest.main()
