"""Runs under limits, on the host and in the lab VM: the same tests for both."""

from __future__ import annotations

import errno
import os
import signal
import stat
import tempfile
import unittest
from dataclasses import replace
from typing import Any

from grader.execution.worker import Backend
from grader.execution.backends.kvm import HostWorker, KvmBackend
from grader.execution.backends.vm import VmBackend
from grader.course import ROOT
from grader.execution.c_tools import c_tool
from grader.execution.runs import MIB, CannotGrade, Ending, Limits, Result, Run, Step, Terminal

PROGRAM = str(c_tool("test-program", ROOT / "grader/quality/tests/program.c"))
SHORT = Limits(wall=20, no_output=2)
SLOW = Limits(wall=300, no_output=300, spin=0)  # what takes long on a loaded machine ends by another limit


def do(*words: str, **options: Any) -> Run:
    """A run of the test program."""
    return Run((PROGRAM, *words), **options)


class RunnerTests:
    """What holds on every back end. The classes below say which one."""

    backend: Backend

    def run_one(self, run: Run) -> Result:
        """Execute one run."""
        return self.backend.run([run])[0]

    def check(self, condition: bool, result: Result) -> None:
        """Like assertTrue, and shows the result."""
        if not condition:
            raise AssertionError(f"{result}: {result!r}")

    def check_all(self, *cases: tuple[Run, Ending, int]) -> None:
        """Each run ends as it should; all in one job."""
        for (_, ending, code), result in zip(cases, self.backend.run([case[0] for case in cases])):
            self.check((result.ending, result.code) == (ending, code), result)

    def test_status_and_signal(self) -> None:
        self.check_all((do("exit", "0"), Ending.EXIT, 0), (do("exit", "255"), Ending.EXIT, 255),
                       (do("signal", "11"), Ending.SIGNAL, 11), (do("signal", "9"), Ending.SIGNAL, 9))

    def test_no_descriptor_but_its_own(self) -> None:
        script = "for fd in 3 4 5 6 7 8 9; do test ! -e /proc/$$/fd/$fd || readlink /proc/$$/fd/$fd; done"
        result = self.run_one(Run(("/bin/sh", "-c", script), files=("/usr/bin/readlink",)))
        self.check(result.status == 0 and result.stdout == b"", result)

    def test_not_started(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
            self.check_all((Run(("/nonesuch",)), Ending.NOT_STARTED, errno.ENOENT),
                           (Run(("nonesuch",)), Ending.NOT_STARTED, errno.ENOENT),
                           (Run((text.name,)), Ending.NOT_STARTED, errno.EACCES))

    def test_arguments_and_environment_are_exact(self) -> None:
        result = self.run_one(do("show", "a b", "", "\t'\"$x", "ä\n", env={"A": "1", "B": "x=y \n"}))
        self.check(result.stdout.decode() == "[a b][][\t'\"$x][ä\n]{A=1}{B=x=y \n}", result)

    def test_streams_are_apart_and_binary(self) -> None:
        result = self.run_one(do("both"))
        self.check((result.stdout, result.stderr) == (b"out", b"err"), result)
        data = bytes(range(256)) * 3000
        result = self.run_one(do("copy", stdin=data))
        self.check(result.stdout == data, replace(result, stdout=b""))

    def test_no_key_outlives_a_run(self) -> None:
        result = self.run_one(do("keep"))
        self.check(set(result.stdout.splitlines()) == {b"Function not implemented"}, result)

    def test_no_memory_of_the_kernel_that_stays(self) -> None:
        result = self.run_one(do("ipc"))
        self.check(result.stdout == b"refused\n" * 4, result)

    def test_no_socket(self) -> None:
        result = self.run_one(do("connect"))
        self.check(set(result.stdout.splitlines()) == {b"Function not implemented"}, result)

    def test_no_device_that_kvm_emulates(self) -> None:
        """Where a run is graded: the labs are about these. What a VMM needs and others' requests are made."""
        for refused, devices in ((0, True), (12, False)):
            result = self.run_one(do("ask-for-devices", kvm_devices=devices))
            self.check(result.stdout.splitlines() == [b"Function not implemented"] * refused
                       + [b"Inappropriate ioctl for device"] * (18 - refused), result)

    def test_input_ends(self) -> None:
        self.check(self.run_one(do("copy")).status == 0, self.run_one(do("copy")))
        held = self.run_one(do("copy", stdin=b"x", hold_stdin=True, limits=Limits(no_output=30, deadlock=2)))
        self.check(held.ending is Ending.DEADLOCK and held.stdout == b"x", held)

    def test_steps(self) -> None:
        result = self.run_one(do("lines", steps=(
            Step(after=b"ready\n", send=b"one\n"), Step(after=b"got one", send=b"two\nthree\n"),
            Step(after=b"got three", close=True))))
        self.check(result.stdout == b"ready\ngot one\ngot two\ngot three\nend of input\n", result)
        self.check(result.steps_done == 3, result)

    def test_signals_as_steps(self) -> None:
        result = self.run_one(do("signals", steps=(Step(after=b"ready", signal=signal.SIGTERM),)))
        self.check(result.stdout == b"ready\nsignal 15\n" and result.status == 55, result)

    def test_terminal(self) -> None:
        runs = [do("terminal", terminal=Terminal(33, 99)),
                do("lines", terminal=Terminal(), steps=(Step(after=b"ready\r\n", send=b"x\n"),
                                                        Step(after=b"got x", close=True))),
                do("signals", terminal=Terminal(), steps=(Step(after=b"ready", send=b"\x03"),)),
                do("signals", terminal=Terminal(), steps=(Step(after=b"ready", resize=(11, 22)),
                                                          Step(after=b"size 11 22", signal=15)))]
        raw, lines, interrupt, resized = self.backend.run(runs)
        self.check(raw.stdout == b"110\r\nsize 33 99\r\n" and raw.terminal_restored is False, raw)
        self.check(lines.stdout == b"ready\r\nx\r\ngot x\r\nend of input\r\n", lines)
        self.check(lines.terminal_restored is True and lines.status == 0, lines)
        self.check(b"signal 2" in interrupt.stdout and interrupt.status == 42, interrupt)
        self.check(resized.status == 55, resized)

    def test_new_terminal(self) -> None:
        self.check_all((do("new-terminal"), Ending.EXIT, 0))

    def test_limits(self) -> None:
        self.check_all(
            (do("print", limits=Limits(output=100_000)), Ending.OUTPUT, 0),
            (do("stubborn", limits=Limits(no_output=30, deadlock=1)), Ending.DEADLOCK, 0),
            (do("stubborn", limits=Limits(no_output=2, deadlock=0)), Ending.NO_OUTPUT, 0),
            (do("naps", limits=Limits(no_output=4, deadlock=1)), Ending.NO_OUTPUT, 0),
            (do("stubborn", steps=(Step(send=b"x"),), limits=replace(SLOW, after_steps=2, deadlock=0)),
             Ending.NO_OUTPUT, 0),
            (do("spin", limits=Limits(no_output=2, spin=0)), Ending.NO_OUTPUT, 0),
            (do("spin", limits=Limits(wall=0, no_output=0, spin=1)), Ending.SPIN, 0),
            (do("spin-in-child", limits=Limits(wall=0, no_output=0, spin=1)), Ending.SPIN, 0),
            (do("print", limits=Limits(wall=2, spin=0.5, output=10 ** 10)), Ending.TIMEOUT, 0),
            (do("print", limits=Limits(wall=0.5, output=10 ** 10)), Ending.TIMEOUT, 0),
            (do("memory", limits=replace(SLOW, memory=100 * MIB)), Ending.MEMORY, 0),
            (do("memory-unnamed", limits=replace(SLOW, memory=100 * MIB)), Ending.MEMORY, 0),
            (do("fork", limits=SLOW), Ending.PROCESSES, 0))

    def test_processor_time_is_that_of_all_processes(self) -> None:
        """Of ended ones as well: each of these takes little and prints something."""
        script = "while :; do (i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done); echo 1; done"
        limits = replace(SLOW, spin=1, processor=1)
        self.check_all((Run(("/bin/sh", "-c", script), limits=limits), Ending.PROCESSOR, 0))

    def test_many_processes_with_much_memory_exceed_the_process_limit(self) -> None:
        self.check_all((do("herd", limits=replace(SLOW, memory=800 * MIB)), Ending.PROCESSES, 0))

    def test_the_kernel_bounds_the_processes(self) -> None:
        result = self.run_one(do("fork-at-limit", limits=SLOW))
        self.check(result.stdout == b"a limit\nnone beyond it\n", result)

    def test_output_is_cut_at_its_limit(self) -> None:
        result = self.run_one(do("print", limits=Limits(output=12345)))
        self.check(len(result.stdout) == 12345, result)

    def test_a_hang_is_described(self) -> None:
        result = self.run_one(do("spin", limits=Limits(wall=0, no_output=0, spin=1)))
        self.check("running" in result.diagnosis and "test-program" in result.diagnosis, result)
        self.check(result.cpu > 0.1, result)

    def test_disk_is_bounded(self) -> None:
        result = self.run_one(do("disk", limits=Limits(file=2 * MIB)))
        self.check(result.ending is Ending.EXIT, result)

    def test_nothing_is_left_behind(self) -> None:
        result = self.run_one(do("daemons"))
        self.check(result.status == 0 and result.left_behind == 3, result)
        self.check(result.wall < 10, result)

    def test_outputs_come_back(self) -> None:
        result = self.run_one(do("write", "trace.txt", outputs=("trace.txt", "nothing")))
        self.check(result.files == {"trace.txt": b"written"}, result)
        result = self.run_one(do("link", "/etc/passwd", outputs=("link",)))
        self.check(result.status == 0 and not result.files, result)

    def test_given_files_are_there(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "guest.bin")
            with open(path, "wb") as file:
                file.write(b"\0\1\2")
            results = self.backend.run([do("read", path), do("read", "guest.bin", cwd=folder),
                                        do("read", folder), do("read", path + "x")])
            self.check(results[0].stdout == b"\0\1\2" == results[1].stdout, results[1])
            self.check(results[2].status == 0, results[2])
            self.check(results[3].status == errno.ENOENT, results[3])
            with open(path, "wb") as file:
                file.write(b"changed")
            self.check(self.run_one(do("read", path)).stdout == b"changed", results[0])

    def test_a_private_file_of_ours_is_the_programs_too(self) -> None:
        with tempfile.NamedTemporaryFile() as file:   # mode 0600
            file.write(b"mine")
            file.flush()
            opened, asked = self.backend.run([do("read", file.name), do("access", file.name)])
            self.check(opened.stdout == b"mine", opened)
            self.check(asked.stdout == b"yes\n", asked)

    def test_results_keep_their_order(self) -> None:
        runs = [do("exit", str(n % 256)) for n in range(30)]
        seen = []
        results = self.backend.run(runs, jobs=2, on_result=lambda index, _: seen.append(index))
        if [r.status for r in results] != [n % 256 for n in range(30)] or sorted(seen) != list(range(30)):
            raise AssertionError(results)

    def test_attacks_fail(self) -> None:
        kill_all, attack = self.backend.run([do("kill-all"), do("attack")])
        self.check(kill_all.stdout == b"alive\n", kill_all)
        self.check(attack.stdout == b"traced 0, channel 0, still here\n", attack)

    def test_only_the_scratch_folder_is_writable(self) -> None:
        result = self.run_one(do("write", os.path.join(tempfile.gettempdir(), "zzz")))
        self.check(result.stdout in (b"Read-only file system\n", b"Permission denied\n"), result)


def _host_isolation() -> str:
    worker = HostWorker()
    worker.close()
    return worker.isolation


class HostRunner(RunnerTests, unittest.TestCase):
    """The runner as a child of ours."""

    backend = KvmBackend()

    def setUp(self) -> None:
        needs_namespaces = ("attacks", "scratch", "devices")
        if any(word in self.id() for word in needs_namespaces) and _host_isolation() == "plain":
            self.skipTest("this machine forbids namespaces")
        if "bounds" in self.id() and os.geteuid() == 0 and _host_isolation() == "user namespaces":
            self.skipTest("root may not make namespaces here, and the kernel does not bound root")

    def test_only_the_usual_devices_can_be_used(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            other = os.path.join(folder, "null")
            try:
                os.mknod(other, stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
            except PermissionError:
                self.skipTest("only root can create a device")
            self.check_all((do("read", "/dev/null"), Ending.EXIT, 0),
                           (do("read", other), Ending.EXIT, errno.EACCES))


class VmRunner(RunnerTests, unittest.TestCase):
    """The runner in the lab VM."""

    backend = VmBackend()

    @classmethod
    def setUpClass(cls) -> None:
        try:
            cls.backend.run([do("exit", "0")])
        except CannotGrade as error:
            raise unittest.SkipTest(str(error)) from error

    def test_no_user_namespace(self) -> None:
        result = self.run_one(do("new-user-namespace"))
        self.check(result.stdout == os.strerror(errno.ENOSPC).encode(), result)


if __name__ == "__main__":
    unittest.main()
