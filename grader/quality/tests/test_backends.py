"""Choosing a back end, handing runs to workers, and the records on the wire."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from grader.execution import kvm_probe
from grader.execution.backends import Backend, pick_backend, vm
from grader.execution.worker import Worker, WorkerDied, _order, _Pool, run_all
from grader.execution.connection import Connection
from grader.execution.kvm_probe import Probe
from grader.execution.runs import (CannotGrade, Ending, Limits, Result, Run, Step, absolute_argument, decode,
                                   encode)

ALL_RUN = {kind: "ok" for kind in kvm_probe.KINDS}
REAL_ONLY = {**ALL_RUN, "paging32": "KVM_RUN ends with exit reason 8 (shutdown)", "protected": "no"}


def _with_probe(device: str, kinds: "dict[str, str]") -> "mock._patch[object]":
    return mock.patch("grader.execution.backends.pick.probe_kvm", lambda: Probe(device, kinds))


class Picking(unittest.TestCase):
    """BACKEND= and the needs of a lab."""

    def test_auto_chooses_kvm_if_it_supports_what_is_needed(self) -> None:
        with _with_probe("ok", REAL_ONLY):
            self.assertEqual(pick_backend("auto", ("real", "interrupts")).name, "kvm")
            backend = pick_backend("auto", ("real", "paging32"))
        self.assertEqual(backend.name, "vm")
        self.assertIn("32-bit paging", backend.why)
        self.assertNotIn("\n", backend.why)

    def test_auto_chooses_the_vm_without_a_device(self) -> None:
        for device in (f"open {errno.ENOENT}", f"open {errno.EACCES}", "version 11", "the probe failed"):
            with _with_probe(device, {}):
                self.assertEqual(pick_backend("auto", ("real",)).name, "vm")

    def test_kvm_as_asked_or_a_reason(self) -> None:
        with _with_probe("ok", ALL_RUN):
            self.assertEqual(pick_backend("kvm", ("paging32",)).name, "kvm")
        with _with_probe(f"open {errno.EACCES}", {}), self.assertRaises(CannotGrade) as caught:
            pick_backend("kvm", ("real",))
        self.assertIn("usermod -aG kvm", caught.exception.fix)

    def test_wrong_names(self) -> None:
        self.assertRaises(CannotGrade, pick_backend, "xen")
        self.assertRaises(ValueError, pick_backend, "auto", ("vm86",))

    def test_commands(self) -> None:
        self.assertEqual(pick_backend("vm").command(["a", "b"])[-3:], ["--", "a", "b"])
        with _with_probe("ok", ALL_RUN):
            self.assertEqual(pick_backend("kvm").command(["a", "b"]), ["a", "b"])

    def test_a_few_runs_share_a_vm(self) -> None:
        for count, vms in ((1, 1), (vm.RUNS_EACH, 1), (vm.RUNS_EACH + 1, 2), (10 * vm.RUNS_EACH, 4)):
            with mock.patch.object(vm, "run_all", return_value=[Result(Ending.EXIT)] * count) as run_all:
                vm.VmBackend().run([Run(("program",))] * count, jobs=4)
            self.assertEqual(run_all.call_args.args[2], vms, f"{count} runs")

    def places(self, backend: Backend) -> list[str]:
        """Where the back end executes three runs, of which the second needs no KVM."""
        class Place:
            used = 0.0

            def __init__(self, name: str) -> None:
                self._name = name

            def execute(self, run: Run) -> Result:
                return Result(Ending.EXIT, stdout=f"{run.argv[0]} {self._name}".encode())

            def close(self) -> None:
                pass

        runs = [Run(("a",)), Run(("b",), kvm=False), Run(("c",))]
        seen: dict[int, Result] = {}
        with mock.patch.object(vm, "HostWorker", lambda: Place("host")), \
                mock.patch.object(vm, "VmWorker", lambda: Place("vm")):
            results = backend.run(runs, on_result=seen.__setitem__)
        self.assertEqual([seen[place] for place in range(3)], results)
        return [result.stdout.decode() for result in results]

    def test_what_needs_no_kvm_runs_on_the_host_unless_it_may_be_a_strangers(self) -> None:
        with _with_probe(f"open {errno.ENOENT}", {}):
            auto, wanted = pick_backend("auto", ("real",)), pick_backend("vm", ("real",))
        self.assertEqual(self.places(auto), ["a vm", "b host", "c vm"])
        self.assertEqual(self.places(wanted), ["a vm", "b vm", "c vm"])
        with mock.patch("platform.machine", lambda: "aarch64"), _with_probe(f"open {errno.ENOENT}", {}):
            self.assertEqual(self.places(pick_backend("auto", ("real",))), ["a vm", "b vm", "c vm"])


class Probing(unittest.TestCase):
    """The probe's answers are kept; the probe runs again when something changes."""

    def test_kept_until_the_kernel_changes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "probe.json"
            with mock.patch.object(kvm_probe, "CACHE", cache):
                first = kvm_probe.probe_kvm()
                with mock.patch("subprocess.run", side_effect=AssertionError("asked again")):
                    self.assertEqual(kvm_probe.probe_kvm(), first)
                    with mock.patch("platform.release", lambda: "other"), self.assertRaises(AssertionError):
                        kvm_probe.probe_kvm()
                    with self.assertRaises(AssertionError):
                        kvm_probe.probe_kvm(again=True)
                cache.write_text("{ damaged")
                self.assertEqual(kvm_probe.probe_kvm(), first)

    def probed(self, device: Path) -> Probe:
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(kvm_probe, "CACHE", Path(folder) / "probe.json"), \
                mock.patch.object(kvm_probe, "DEVICE", str(device)):
            return kvm_probe.probe_kvm()

    def test_what_else_a_device_may_be(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "file").touch()
            os.mkfifo(folder / "pipe")
            words = {"nonesuch": ("there is no", "modprobe"), ".": ("is a folder", "rmdir"),
                     "file": ("not the KVM device", "sudo rm"), "pipe": ("not the KVM device", "sudo rm")}
            if os.geteuid() == 0:
                os.mknod(folder / "node", stat.S_IFCHR | 0o600, os.makedev(241, 241))
                words["node"] = ("has no driver", "modprobe")
            for device, (reason, fix) in words.items():
                with self.subTest(device):
                    probe = self.probed(folder / device)
                    self.assertIn(reason, probe.reason_against(("real",)))
                    self.assertIn(fix, probe.fix())

    def test_another_hypervisor(self) -> None:
        probe = Probe("ok", dict.fromkeys(kvm_probe.KINDS, "no VM can be created: Device or resource busy"))
        self.assertIn("VirtualBox", probe.fix())

    def test_a_probe_that_can_not_be_started(self) -> None:
        with mock.patch("subprocess.run", side_effect=PermissionError(errno.EACCES, "Permission denied")), \
                mock.patch.object(kvm_probe, "c_tool", lambda *_: Path("/x")):
            probe = self.probed(Path("/dev/null"))
        self.assertIn("could not be probed", probe.reason_against(()))


class _FakeWorker:
    """A worker that does with a run what its first argument says."""

    used = 0.0

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.closed = threading.Event()
        log.append("start")

    def execute(self, run: Run) -> Result:
        word = run.argv[0]
        self.log.append(word)
        if word == "kill" or (word == "kill-once" and self.log.count(word) == 1):
            raise WorkerDied("killed")
        if word == "wait":
            self.closed.wait(20)
            raise WorkerDied("closed")
        if word == "fail":
            raise CannotGrade("no", "none")
        return Result(Ending.EXIT, int(word) if word.isdigit() else 0)

    def close(self) -> None:
        self.closed.set()


class Pool(unittest.TestCase):
    """Workers that die do not take other runs' results along."""

    def setUp(self) -> None:
        self.log: list[str] = []
        self.started = 0

    def start(self) -> Worker:
        self.started += 1
        return _FakeWorker(self.log)

    def run_words(self, *words: str, jobs: int = 1) -> list[Result]:
        return run_all(self.start, [Run((word,)) for word in words], jobs, None)

    def test_a_death_is_tried_once_more(self) -> None:
        results = self.run_words("1", "kill-once", "2")
        self.assertEqual([r.code for r in results], [1, 0, 2])
        self.assertEqual([r.ending for r in results], [Ending.EXIT] * 3)
        self.assertEqual(self.started, 2)

    def test_two_deaths_are_the_runs_result(self) -> None:
        results = self.run_words("1", "kill", "2")
        self.assertEqual([r.ending for r in results], [Ending.EXIT, Ending.MACHINE, Ending.EXIT])
        self.assertEqual(self.log.count("kill"), 2)

    def test_no_runs(self) -> None:
        self.assertEqual(self.run_words(), [])
        self.assertEqual(self.log, [])

    def test_a_failure_ends_the_other_workers(self) -> None:
        self.assertRaises(CannotGrade, self.run_words, "wait", "fail", "1", jobs=2)

    def test_several_workers_take_the_longest_first(self) -> None:
        runs = [Run((str(number),), limits=Limits(wall=wall)) for number, wall in enumerate((1, 5, 2, 9, 9))]
        for jobs, order in ((1, "01234"), (2, "34120")):
            taken: list[str] = []
            with mock.patch.object(_FakeWorker, "execute", lambda _, run: taken.append(run.argv[0])):
                pool = _Pool(self.start, runs, _order(runs, jobs), None, None)
                pool.serve()
            self.assertEqual("".join(taken), order)


class Wire(unittest.TestCase):
    """Records and what they stand for."""

    def test_steps_have_one_action(self) -> None:
        self.assertRaises(ValueError, Step, b"x")
        self.assertRaises(ValueError, Step, b"x", "stdout", b"y", True)
        self.assertRaises(ValueError, Step, b"x", "stdin", b"y")

    def test_relative_paths_become_absolute(self) -> None:
        run = Run(("x",))
        here = os.path.relpath(__file__)
        self.assertEqual(absolute_argument(run, here), os.path.abspath(__file__))
        self.assertEqual(absolute_argument(run, "--initrd=" + here), "--initrd=" + os.path.abspath(__file__))
        for word in ("a/b", "--x=a/b", "1", "--stats", "-", ""):
            self.assertEqual(absolute_argument(run, word), word)
        self.assertEqual(absolute_argument(Run(("x",), cwd="/tmp"), here), here)

    def test_result_from_records(self) -> None:
        result = decode([("stdout", b"a"), ("stderr", b"e"), ("stdout", b"b"), ("file", b"n\0\0x"),
                         ("result", b"signal 11 1.5 0.25 2 1 0")])
        self.assertEqual(result, Result(Ending.SIGNAL, 11, b"ab", b"e", 1.5, 0.25, 2, 1, False, "",
                                        {"n": b"\0x"}))
        self.assertRaises(ValueError, decode, [("stdout", b"")])

    def test_encoding_carries_all(self) -> None:
        keys = [key for key, _ in encode(Run(("/x", "y"), cwd="/", stdin=b"z", hold_stdin=True,
                                             outputs=("o",),
                                             steps=(Step(b"m", "stderr", close=True),)))]
        for key in ("program", "arg", "env", "cwd", "stdin", "hold", "after2", "close", "output", "limits"):
            self.assertIn(key, keys)

    def test_records_in_pieces(self) -> None:
        ours, theirs = socket.socketpair()
        connection = Connection(ours)
        for byte in b"key 3\na\nb":
            theirs.send(bytes([byte]))
        self.assertEqual(connection.receive(5), ("key", b"a\nb"))
        self.assertRaises(WorkerDied, connection.receive, 0.01)
        theirs.close()
        self.assertRaises(WorkerDied, connection.receive, 5)
        connection.close()

    def answered(self, answer: bytes) -> Result:
        """A run's result from a runner that sends this."""
        ours, theirs = socket.socketpair()
        connection = Connection(ours)

        def send() -> None:
            with contextlib.suppress(OSError):
                theirs.sendall(answer)
        sender = threading.Thread(target=send)
        sender.start()
        try:
            run = Run(("/x",), outputs=("o",), limits=Limits(wall=5, output=100, file=100))
            return connection.execute(run)
        finally:
            connection.close()
            sender.join()
            theirs.close()

    def test_an_answer_of_a_stranger_is_none(self) -> None:
        def result(text: bytes) -> bytes:
            return b"result %d\n%s" % (len(text), text)

        right = b"stdout 2\nab" + result(b"exit 3 1.500000 0.250000 0 0 -")
        self.assertEqual(self.answered(right).stdout, b"ab")
        heads = (b"x hello\n", b"x -4\n", b"\xff\xfe 2\nab", b"stdout 9999999999999\n", b"stdout 99999999\n",
                 b"stdout\n", b"\n", b"x" * 1000, b"stdout " + b"9" * 5000 + b"\n", b"stdout 1_0\n",
                 b"a 1\nb" * 200000, b"file 8000000\n" + bytes(8000000))
        results = map(result, (
            b"won 0 1.0 1.0 0 0 -", b"machine 0 1.0 1.0 0 0 -", b"budget 0 1.0 1.0 0 0 -",
            b"exit 3 nan 1.0 0 0 -", b"exit 3 inf 1.0 0 0 -", b"exit 3 -1 1.0 0 0 -", b"exit 3", b"",
            b"exit 99999999999999999999 1.0 1.0 0 0 -", b"exit \xff 1.0 1.0 0 0 -", b"exit 3 1e999 1 0 0 -"))
        for answer in (*heads, *results):
            with self.subTest(answer=answer[:80]):
                self.assertRaises(WorkerDied, self.answered, answer + right)


if __name__ == "__main__":
    unittest.main()
