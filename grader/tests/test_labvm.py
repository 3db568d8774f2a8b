"""The lab VM's parts: what is packed, how the first file system looks, and a cache that survives mishaps."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Callable, Dict, List
from unittest import mock

from grader.backends.connection import Connection
from grader.backends.vm import VmBackend
from grader.helpers import ROOT, helper
from grader.labvm import initrd, snapshot
from grader.labvm.kernel import Kernel, find_kernel
from grader.labvm.machine import KERNEL_ARGUMENTS
from grader.labvm.pack import files_needed
from grader.runs import CannotGrade, Ending, Limits, Result, Run

PROGRAM = str(helper("test-program", ROOT / "grader" / "tests" / "program.c"))


def vm_processes(marker: str) -> List[int]:
    """The QEMUs whose command line contains `marker` (the cache that they use)."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"qemu-system" in line.split(b"\0")[0] and marker.encode() in line:
                found.append(int(entry.name))
    return found


def processor_seconds(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill_at_work(pid: int, seconds: float) -> None:
    """Kill a lab VM that has just got a run, once it has computed for so long."""
    began = processor_seconds(pid)
    while processor_seconds(pid) < began + seconds:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


class Packing(unittest.TestCase):
    """Which files are sent along."""

    def test_a_dynamic_program_brings_its_libraries(self) -> None:
        files = list(files_needed(Run(("/bin/ls",))))
        self.assertIn("/bin/ls", files)
        self.assertTrue(any("ld-linux" in name for name in files), files)
        self.assertTrue(any(name.endswith("libc.so.6") for name in files), files)

    def test_a_static_program_brings_itself(self) -> None:
        self.assertEqual(list(files_needed(Run((PROGRAM,)))), [PROGRAM])

    def test_a_script_brings_its_interpreter(self) -> None:
        with tempfile.NamedTemporaryFile("w") as script:
            script.write("#!/bin/sh\n")
            script.flush()
            files = list(files_needed(Run((script.name,))))
        self.assertIn("/bin/sh", files)

    def test_arguments_that_are_files(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            guest = os.path.join(folder, "a=b.bin")
            Path(guest).write_bytes(b"x")
            run = Run((PROGRAM, guest, f"--initrd={guest}", folder, "/dev/kvm", "/nonesuch/x"))
            self.assertEqual(set(files_needed(run)), {PROGRAM, guest, folder + "/"})
            self.assertIn(guest, list(files_needed(Run((PROGRAM, "a=b.bin"), cwd=folder))))
            self.assertIn(guest, list(files_needed(Run((PROGRAM,), files=(guest,)))))

    def test_broken_elf_files_are_just_files(self) -> None:
        for content in (b"\x7fELF", b"\x7fELF\x02\x01" + bytes(20), b"\x7fELF\x02\x01" + b"\xff" * 4000):
            with tempfile.NamedTemporaryFile() as file:
                file.write(content)
                file.flush()
                self.assertEqual(list(files_needed(Run((file.name,)))), [file.name])


class Booting(unittest.TestCase):
    """The kernel's modules and the archive that carries them."""

    def test_archive_is_aligned(self) -> None:
        data = initrd.archive([("a", 0o100644, b"12345"), ("folder", 0o40755, b"")])
        self.assertEqual(len(data) % 4, 0)
        self.assertEqual([data.find(b"070701", at) % 4 for at in (0, 6, 130)], [0, 0, 0])
        self.assertIn(b"TRAILER!!!", data)

    def test_modules_come_after_what_they_need(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for module, needs in {"kvm-amd": "kvm,ccp", "kvm": "irqbypass", "irqbypass": "",
                                  "virtio_console": "virtio", "virtio": "", "other": ""}.items():
                (folder / f"{module}.ko").write_bytes(b"\0depends=" + needs.encode() + b"\0")
            names = [name for name, _ in Kernel(folder, folder).module_files()]
        self.assertEqual(names, ["virtio", "virtio_console", "irqbypass", "kvm", "kvm_amd"])

    def test_no_kvm_module_is_said(self) -> None:
        with tempfile.TemporaryDirectory() as name, self.assertRaises(CannotGrade):
            Kernel(Path(name), Path(name)).module_files()

    def test_own_kernel(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            image = Path(name) / "vmlinuz"
            with mock.patch.dict(os.environ, {"LABVM_KERNEL": str(image), "LABVM_MODULES": name}):
                self.assertRaises(CannotGrade, find_kernel, Path(name), print)
                image.write_bytes(b"x")
                self.assertEqual(find_kernel(Path(name), print).image, image.resolve())

    def test_without_apt_the_text_says_which_files(self) -> None:
        with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"PATH": name}), \
                self.assertRaises(CannotGrade) as caught:
            find_kernel(Path(name), lambda _: None)
        self.assertIn("LABVM_KERNEL", caught.exception.mend)
        self.assertIn("LABVM_MODULES", caught.exception.mend)


class Cache(unittest.TestCase):
    """Mishaps: each ends in a right result or a clear error, with nothing left behind."""

    home: str
    cache: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.home = tempfile.mkdtemp(prefix="labvm-test-")
        cls.cache = Path(cls.home) / "mini-kvm-labs"
        cls.cache.mkdir()
        try:
            snapshot.start().close()  # fetches the kernel for everybody, once
        except CannotGrade as error:
            shutil.rmtree(cls.home)
            raise unittest.SkipTest(str(error)) from error
        kept = snapshot.cache_folder() / "kernel"
        if kept.exists():
            shutil.copytree(kept, cls.cache / "kernel")

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.home)

    def setUp(self) -> None:
        patch = mock.patch.dict(os.environ, {"XDG_CACHE_HOME": self.home})
        patch.start()
        self.addCleanup(patch.stop)
        quiet = mock.patch.object(snapshot, "progress", lambda _: None)
        quiet.start()
        self.addCleanup(quiet.stop)

    def tearDown(self) -> None:
        for _ in range(100):
            if not vm_processes(self.home):
                break
            time.sleep(0.05)
        self.assertEqual(vm_processes(self.home), [])

    def command(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "grader.labvm", "run", "--", PROGRAM, *words],
                                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def check_works(self) -> None:
        result = VmBackend().run([Run((PROGRAM, "exit", "3"))])[0]
        self.assertEqual((result.ending, result.code), (Ending.EXIT, 3), result)

    def snapshots(self) -> List[Path]:
        return sorted(self.cache.glob("snapshot-*"))

    def made(self) -> Path:
        """The snapshot of this kit, made if it is not there."""
        self.check_works()
        self.assertEqual(len(self.snapshots()), 1)
        return self.snapshots()[0]

    def test_damage_is_noticed(self) -> None:
        damages: Dict[str, Callable[[Path], object]] = {
            "ram cut": lambda folder: os.truncate(folder / "ram", 10),
            "state cut": lambda folder: os.truncate(folder / "state", 10),
            "state written": lambda folder: (folder / "state").write_bytes(b"x" * 1000),
            "ram gone": lambda folder: (folder / "ram").unlink(),
            "mark gone": lambda folder: (folder / "done.json").unlink(),
            "mark written": lambda folder: (folder / "done.json").write_text("[]"),
        }
        for what, damage in damages.items():
            with self.subTest(what), tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for part in ("ram", "state"):
                    (folder / part).write_bytes(bytes(1000))
                    os.utime(folder / part, (1, 1))
                snapshot.Snapshot(folder).seal()
                self.assertTrue(snapshot.Snapshot(folder).is_whole())
                damage(folder)
                self.assertFalse(snapshot.Snapshot(folder).is_whole())

    def test_damage_is_mended(self) -> None:
        os.truncate(self.made() / "ram", 1 << 20)
        self.check_works()

    def test_damage_that_only_a_restore_finds(self) -> None:
        folder = self.made()
        (folder / "state").write_bytes(b"x" * 300000)
        snapshot.Snapshot(folder).seal()
        self.check_works()

    def test_two_at_once_make_one(self) -> None:
        shutil.rmtree(self.made())
        processes = [self.command("exit", "5") for _ in range(2)]
        said = [process.communicate(timeout=120)[1] for process in processes]
        self.assertEqual([process.returncode for process in processes], [5, 5], said)
        self.assertEqual(sum(b"first time" in text for text in said), 1, said)

    def interrupt_first_boot(self, number: int) -> int:
        shutil.rmtree(self.made())
        process = self.command("exit", "0")
        while not vm_processes(self.home) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode

    def test_interrupt_in_the_first_boot(self) -> None:
        self.assertEqual(self.interrupt_first_boot(signal.SIGINT), 130)
        self.assertEqual(list(self.cache.glob("partial-*")), [])
        self.assertEqual(self.snapshots(), [])

    def test_kill_in_the_first_boot(self) -> None:
        self.assertEqual(self.interrupt_first_boot(signal.SIGKILL), -signal.SIGKILL)
        self.assertEqual(self.snapshots(), [])
        self.check_works()
        self.assertEqual(list(self.cache.glob("partial-*")), [])

    def test_qemu_is_killed_half_way(self) -> None:
        self.made()
        hanging = Run((PROGRAM, "spin"), limits=Limits(wall=120, quiet=10))
        execute = Connection.execute

        def execute_until_killed(connection: Connection, run: Run) -> Result:
            if run == hanging and kills:
                threading.Thread(target=kill_at_work, args=(vm_processes(self.home)[0], kills.pop())).start()
            return execute(connection, run)

        for times, ending in ((1, Ending.QUIET), (2, Ending.MACHINE)):
            kills = [0.3] * times
            with self.subTest(times=times), mock.patch.object(Connection, "execute", execute_until_killed):
                results = VmBackend().run([hanging, Run((PROGRAM, "exit", "1"))])
                self.assertEqual([r.ending for r in results], [ending, Ending.EXIT])

    def test_no_space(self) -> None:
        shutil.rmtree(self.made())
        usage = shutil.disk_usage(self.home)._replace(free=10 << 20)
        with mock.patch("shutil.disk_usage", lambda _: usage), self.assertRaises(CannotGrade):
            self.check_works()

    def test_no_qemu(self) -> None:
        with mock.patch.dict(os.environ, {"PATH": "/nonesuch"}), self.assertRaises(CannotGrade) as caught:
            self.check_works()
        self.assertIn("install", caught.exception.mend)

    def test_home_that_cannot_be_written(self) -> None:
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "/proc/nonesuch"}):
            self.assertEqual(snapshot.cache_folder(), ROOT / "build" / "labvm")

    def test_other_hardware_is_another_snapshot_and_they_are_bounded(self) -> None:
        mine = self.made()
        for number in range(6):
            other = self.cache / f"snapshot-{number}"
            other.mkdir()
            os.utime(other, (number, number))
        with mock.patch.object(snapshot, "KERNEL_ARGUMENTS", KERNEL_ARGUMENTS + " other"):
            self.check_works()
        self.assertEqual(len(self.snapshots()), snapshot.KEPT)
        self.assertIn(mine, self.snapshots())
        for folder in self.snapshots():
            shutil.rmtree(folder)

    def test_clean(self) -> None:
        self.made()
        kernel = self.cache / "kernel"
        aside = Path(self.home) / "kernel"
        if kernel.exists():
            shutil.copytree(kernel, aside)
        snapshot.clean()
        self.assertFalse(self.cache.exists())
        self.cache.mkdir()
        if aside.exists():
            aside.rename(kernel)

    def test_memory_of_the_vm_runs_out(self) -> None:
        self.made()
        greedy = Run((PROGRAM, "memory"), limits=Limits(wall=120, quiet=120, memory=1 << 40))
        results = VmBackend().run([greedy, Run((PROGRAM, "exit", "1"))])
        self.assertEqual((results[0].ending, results[0].code), (Ending.SIGNAL, signal.SIGKILL), results[0])
        self.assertEqual(results[1].status, 1)


if __name__ == "__main__":
    unittest.main()
