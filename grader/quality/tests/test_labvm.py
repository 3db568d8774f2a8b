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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from grader.execution.connection import Connection
from grader.execution.backends.vm import VmBackend
from grader.course import ROOT
from grader.execution.c_tools import c_tool
from grader.execution.labvm import confine, initrd, snapshot
from grader.execution.labvm.confine import ENVIRONMENT, USERS, own_user, sealed_copy
from grader.execution.labvm.kernel import (Kernel, find_kernel, kernel_packages, module_content,
                                           unpacked_kernel)
from grader.execution.labvm.machine import KERNEL_ARGUMENTS, Machine, processor_time, qemu_path
from grader.execution.labvm.pack import files_needed
from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run
from grader.execution.worker import WorkerDied

PROGRAM = str(c_tool("test-program", ROOT / "grader/quality/tests/program.c"))


def vm_processes(cache: str) -> list[int]:
    """The QEMUs that were started with this cache."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and "qemu-system" in (entry / "comm").read_text() \
                    and any(cache in os.readlink(fd) for fd in (entry / "fd").iterdir()):
                found.append(int(entry.name))
    return found


def kill_at_work(pid: int, seconds: float) -> None:
    """Kill a lab VM that has just got a run, once it has computed for so long."""
    began = processor_time(pid)
    while processor_time(pid) < began + seconds:
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

    def test_a_missing_kvm_module_is_reported(self) -> None:
        with tempfile.TemporaryDirectory() as name, self.assertRaises(CannotGrade):
            Kernel(Path(name), Path(name)).module_files()

    def test_without_apt_the_text_says_which_files(self) -> None:
        with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"PATH": name}), \
                self.assertRaises(CannotGrade) as caught:
            find_kernel(Path(name), lambda _: None)
        self.assertIn("LABVM_KERNEL", caught.exception.fix)
        self.assertIn("LABVM_MODULES", caught.exception.fix)


def bz_image(version: str) -> bytes:
    """The beginning of a kernel image of this version."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20e:0x210] = (0x300).to_bytes(2, "little")
    text = f"{version} (someone@somewhere) #1 SMP".encode()
    image[0x500:0x500 + len(text)] = text
    return bytes(image)


def write_module(folder: Path, version: str = "6.1.0-49-cloud-amd64") -> None:
    """kvm-amd.ko as far as the kit reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kvm-amd.ko").write_bytes(b"\0depends=\0vermagic=" + version.encode() + b" SMP mod_unload \0")


class Clock(unittest.TestCase):
    """The second source of interrupts, without which QEMU can lose the only one that an idle VM waits for."""

    def test_the_real_time_clock_interrupts(self) -> None:
        count = ('count() { while read -r line number _; do [ "$line" = 8: ] && now=$number; done'
                 ' < /proc/interrupts; }')
        script = f'{count}; count; first=$now; while [ "$now" = "$first" ]; do count; done; echo more'
        result = VmBackend().run([Run(("/bin/sh", "-c", script))])[0]
        self.assertEqual((result.ending, result.stdout), (Ending.EXIT, b"more\n"), result)


class Programs(unittest.TestCase):
    def test_what_everyone_may_only_execute_no_run_can_read(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = shutil.copy(PROGRAM, folder)
            os.chmod(program, 0o711)
            run, read = VmBackend().run([Run((program, "exit", "7")), Run(("/bin/cat", program))])
        self.assertEqual((run.ending, run.code), (Ending.EXIT, 7), run)
        self.assertEqual((read.code, read.stdout), (1, b""), read)
        self.assertIn(b"Permission denied", read.stderr)


# What a program finds in QEMU's place: one line for each thing that it should not reach.
PROBE = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
CALLS = {"add_key": 248, "keyctl": 250, "socket": 41, "shmget": 29, "mq_open": 240, "bpf": 321,
         "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425}
for name, number in CALLS.items():
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:
        print("it may call", name)
for path in ("/etc/passwd", "/etc/hostname", "/var/lib/dpkg/status", sys.argv[1]):
    try:
        open(path).close()
        print("it can read", path)
    except OSError:
        pass
for folder in ("/tmp", "/var/tmp", "/dev/shm", os.path.dirname(sys.argv[1])):
    try:
        open(f"{folder}/confined-probe", "x").close()
        print("it can write to", folder)
    except OSError:
        pass
try:
    os.truncate(sys.argv[1], 0)
    print("it can cut", sys.argv[1])
except OSError:
    pass
try:
    os.kill(int(sys.argv[2]), 0)
    print("it can send signals to another lab VM")
except OSError:
    pass
kept = set(os.environ) - {"PATH", "PWD", "SHLVL", "OLDPWD", "_", "LC_CTYPE"}
if kept:
    print("it sees", kept)
for name in ("RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CORE", *sys.argv[3:]):
    if not 0 <= resource.getrlimit(getattr(resource, name))[1] < 5 << 30:
        print(name, "has no limit")
print("end")
"""


class Confined(unittest.TestCase):
    """QEMU's confinement in each way that this machine allows: those of root, or of another user."""

    def qemu_in(self, way: int) -> Machine:
        """A lab VM, confined in this way."""
        with mock.patch.object(confine, "best_way", return_value=way):
            machine = snapshot.start()
        self.addCleanup(machine.close)
        return machine

    def ways(self) -> list[tuple[int, list[str]]]:
        """Those that this machine allows."""
        return list(enumerate(confine._ways(own_user())))[confine.best_way(qemu_path()):]

    def is_apart(self, words: Sequence[str]) -> bool:
        """Whether this way gives QEMU another user or sight of no other process."""
        return "unshare" in words or any("reuid" in word for word in words)

    def test_what_can_be_reached_in_each_way(self) -> None:
        other = snapshot.start()
        self.addCleanup(other.close)
        python = os.path.realpath(sys.executable)
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            secret = Path(folder, "secret")
            secret.write_text("for others to read and to write")
            secret.chmod(0o666)
            for way, words in self.ways():
                threads = ["RLIMIT_NPROC"] if any("reuid" in word for word in words) else []
                probe = [python, "-Ic", PROBE, str(secret), str(other.qemu()), *threads]
                done = subprocess.run([*words, *probe], env=ENVIRONMENT, text=True, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                signals = "" if self.is_apart(words) else "it can send signals to another lab VM\n"
                with self.subTest(way=way):
                    self.assertEqual(done.stdout, f"{signals}end\n")

    def test_a_vm_runs_in_each_way(self) -> None:
        for way, words in self.ways():
            process = Path(f"/proc/{self.qemu_in(way).qemu()}")
            lines = (line.split(":", 1) for line in (process / "status").read_text().splitlines())
            found = {name: rest.split() for name, rest in lines}
            with self.subTest(way=way):
                self.assertEqual([found[name] for name in ("Name", "NoNewPrivs", "Seccomp")],
                                 [["qemu-system-x86"], ["1"], ["2"]])
                if self.is_apart(words):
                    rights = {int(found[name][0], 16) for name in ("CapPrm", "CapEff", "CapInh")}
                    self.assertEqual(rights, {0})
                for kind in ("net", "mnt", "pid", "ipc") if "unshare" in words else ():
                    self.assertNotEqual(os.readlink(process / "ns" / kind),
                                        os.readlink(f"/proc/self/ns/{kind}"))

    def test_root_gives_each_vm_a_user_of_its_own(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can")
        users = {os.stat(f"/proc/{self.qemu_in(confine.best_way(qemu_path())).qemu()}").st_uid
                 for _ in range(2)}
        self.assertEqual(len(users), 2)
        self.assertLessEqual(users, set(USERS))

    def test_no_vm_changes_what_the_others_start_from(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.seek(5 << 20)
            file.write(b"x" * 5000)
            file.truncate(9 << 20)
            file.flush()
            copy = sealed_copy(Path(file.name), "one")
            self.assertEqual(os.pread(copy, 10 << 20, 0), Path(file.name).read_bytes())
            self.assertEqual(sealed_copy(Path(file.name), "one"), copy)
            self.assertNotEqual(sealed_copy(Path(file.name), "two"), copy)
        with open(f"/proc/self/fd/{copy}", "r+b") as again, self.assertRaises(PermissionError):
            os.pwrite(again.fileno(), b"y", 0)


class Modules(unittest.TestCase):
    def test_the_end_of_a_vm_waits_for_no_ticks(self) -> None:
        script = 'read -r set < /sys/module/kvm/parameters/tdp_mmu && echo "$set"'
        result = VmBackend().run([Run(("/bin/sh", "-c", script))])[0]
        self.assertEqual((result.ending, result.stdout), (Ending.EXIT, b"N\n"), result)


class Packages(unittest.TestCase):
    """The forms in which distributions pack a kernel: which packages are taken, and where the parts lie."""

    FORMS = {
        "Debian 12": ("boot/vmlinuz-6.1", "lib/modules/6.1/kernel/arch/x86/kvm", {
            "linux-image-cloud-amd64": ["linux-image-6.1-cloud-amd64"],
            "linux-image-6.1-cloud-amd64": ["kmod", "linux-base", "initramfs-tools"]}),
        "Debian 13": ("boot/vmlinuz-6.12", "usr/lib/modules/6.12/kernel/arch/x86/kvm", {
            "linux-image-cloud-amd64": ["linux-image-6.12-cloud-amd64"],
            "linux-image-6.12-cloud-amd64": ["kmod", "linux-base"]}),
        "testing": ("usr/lib/modules/6.17/vmlinuz", "usr/lib/modules/6.17/kernel/arch/x86/kvm", {
            "linux-image-cloud-amd64": ["linux-image-6.17-cloud-amd64"],
            "linux-image-6.17-cloud-amd64": ["linux-binary-6.17-cloud-amd64",
                                             "linux-modules-6.17-cloud-amd64"],
            "linux-binary-6.17-cloud-amd64": ["linux-modules-6.17-cloud-amd64"]}),
        "Ubuntu": ("boot/vmlinuz-6.8.0-88-generic", "lib/modules/6.8.0-88-generic/kernel/arch/x86/kvm", {
            "linux-image-virtual": ["linux-image-6.8.0-88-generic", "linux-modules-6.8.0-88-generic"],
            "linux-image-6.8.0-88-generic": ["kmod", "linux-base", "linux-modules-6.8.0-88-generic"]}),
    }

    def test_the_packages_of_each_distribution(self) -> None:
        for form, (_, _, depends) in self.FORMS.items():
            def said(name: str, depends: dict[str, list[str]] = depends) -> str:
                lines = [f"{'Depends' if place else ' |Depends'}: {needed}"
                         for place, needed in enumerate(depends.get(name, []))]
                return "\n  ".join([name, *lines, "Suggests: linux-image-other"])
            with self.subTest(form):
                wanted = {name for names in depends.values() for name in names if name.startswith("linux-")}
                self.assertEqual(set(kernel_packages(next(iter(depends)), said)), wanted - {"linux-base"})

    def test_the_parts_of_each_distribution(self) -> None:
        for form, (image, modules, _) in self.FORMS.items():
            with self.subTest(form), tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / image).parent.mkdir(parents=True)
                (folder / image).write_bytes(bz_image("6"))
                write_module(folder / modules)
                kernel = unpacked_kernel(folder)
                self.assertEqual(kernel.image, folder / image)
                self.assertEqual([name for name, _ in kernel.module_files()], ["kvm_amd"])

    def test_the_text_names_them_all(self) -> None:
        with tempfile.TemporaryDirectory() as name, self.assertRaises(CannotGrade) as caught:
            unpacked_kernel(Path(name))
        for place in ("boot/vmlinuz-VERSION", "lib/modules/VERSION", "usr/lib/modules/VERSION/vmlinuz"):
            self.assertIn(place, caught.exception.fix)

    def test_zstd_modules(self) -> None:
        if not shutil.which("zstd"):
            self.skipTest("zstd is not installed")
        with tempfile.TemporaryDirectory() as name:
            write_module(Path(name))
            plain = (Path(name) / "kvm-amd.ko").read_bytes()
            subprocess.run(["zstd", "-q", "--rm", f"{name}/kvm-amd.ko"], check=True)
            self.assertEqual(module_content(Path(name) / "kvm-amd.ko.zst"), plain)


class Named(unittest.TestCase):
    """LABVM_KERNEL and LABVM_MODULES."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = Path(folder.name) / "cache"
        self.cache.mkdir()
        self.image, self.modules = Path(folder.name) / "vmlinuz", Path(folder.name) / "modules"
        self.image.write_bytes(bz_image("6.1.0-49-cloud-amd64"))
        write_module(self.modules)

    def find(self, **named: object) -> Kernel:
        with mock.patch.dict(os.environ, {key: str(value) for key, value in named.items()}):
            return find_kernel(self.cache, print)

    def refusal(self, **named: object) -> str:
        with self.assertRaises(CannotGrade) as caught:
            self.find(**named)
        return caught.exception.reason

    def test_named_once_it_is_kept(self) -> None:
        kept = self.find(LABVM_KERNEL=self.image, LABVM_MODULES=self.modules)
        time_kept = kept.image.stat().st_mtime_ns
        content = self.image.read_bytes()
        self.assertEqual(self.find(LABVM_KERNEL=self.image, LABVM_MODULES=self.modules).image, kept.image)
        self.assertEqual(kept.image.stat().st_mtime_ns, time_kept)     # or each command made a snapshot
        self.image.unlink()
        shutil.rmtree(self.modules)
        self.assertEqual(self.find().image.read_bytes(), content)
        self.assertEqual([name for name, _ in self.find().module_files()], ["kvm_amd"])

    def test_one_alone(self) -> None:
        self.assertEqual(self.refusal(LABVM_KERNEL=self.image),
                         "LABVM_KERNEL is set but LABVM_MODULES is not: the lab VM needs both")
        self.assertIn("LABVM_KERNEL is not", self.refusal(LABVM_MODULES=self.modules))

    def test_a_wrong_file_is_blamed(self) -> None:
        self.assertIn("/etc/passwd is not a Linux kernel",
                      self.refusal(LABVM_KERNEL="/etc/passwd", LABVM_MODULES=self.modules))
        self.assertIn("LABVM_KERNEL=/nonesuch is not a file",
                      self.refusal(LABVM_KERNEL="/nonesuch", LABVM_MODULES=self.modules))
        empty = self.image.with_name("empty")
        empty.mkdir()
        self.assertIn(f"no kvm-amd module in {empty}",
                      self.refusal(LABVM_KERNEL=self.image, LABVM_MODULES=empty))
        write_module(self.modules, "6.1.0-50-cloud-amd64")
        self.assertIn("kvm_amd in", self.refusal(LABVM_KERNEL=self.image, LABVM_MODULES=self.modules))


class Place(unittest.TestCase):
    """Where the cache is."""

    def folder(self, **environment: str) -> Path:
        kept = {"PATH": os.environ["PATH"]}
        with mock.patch.dict(os.environ, {**kept, **environment}, clear=True), \
                mock.patch("pwd.getpwuid", side_effect=KeyError):
            return snapshot.cache_folder()

    def test_only_absolute_folders_count(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            self.assertEqual(self.folder(XDG_CACHE_HOME=name), Path(name) / "mini-kvm-labs")
            self.assertEqual(self.folder(HOME=name, XDG_CACHE_HOME="here"),
                             Path(name, ".cache", "mini-kvm-labs"))
        self.assertEqual(self.folder(), ROOT / "build" / "labvm")     # neither HOME nor a passwd entry

    def test_what_failed_is_not_tried_again_by_a_thread_that_waited(self) -> None:
        tries: list[int] = []
        both = threading.Barrier(2)

        def fail(cache: Path, progress: object) -> Kernel:
            tries.append(1)
            waiting.wait()
            raise CannotGrade("no network", "wait")

        waiting = threading.Event()
        failed: list[str] = []

        def start() -> None:
            both.wait()
            try:
                snapshot.start()
            except CannotGrade as error:
                failed.append(error.reason)

        with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ, {"XDG_CACHE_HOME": name}), \
                mock.patch.object(snapshot, "find_kernel", fail), \
                mock.patch.object(snapshot, "locked", Serial(waiting).locked):
            threads = [threading.Thread(target=start) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual((len(tries), failed), (1, ["no network"] * 2))


class Serial:
    """A lock for two, which lets the first go on as soon as the second waits for it."""

    def __init__(self, second_waits: threading.Event) -> None:
        self._lock = threading.Lock()
        self._second_waits = second_waits

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            self._second_waits.set()
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


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
        return subprocess.Popen([sys.executable, "-m", "grader.execution.labvm", "run", "--", PROGRAM,
                                 *words],
                                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def check_works(self) -> None:
        result = VmBackend().run([Run((PROGRAM, "exit", "3"))])[0]
        self.assertEqual((result.ending, result.code), (Ending.EXIT, 3), result)

    def snapshots(self) -> list[Path]:
        return sorted(self.cache.glob("snapshot-*"))

    def made(self) -> Path:
        """The snapshot of this kit, made if it is not there."""
        self.check_works()
        self.assertEqual(len(self.snapshots()), 1)
        return self.snapshots()[0]

    def test_damage_is_noticed(self) -> None:
        damages: dict[str, Callable[[Path], object]] = {
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
                snapshot.Snapshot(folder).mark_complete()
                self.assertTrue(snapshot.Snapshot(folder).is_complete())
                damage(folder)
                self.assertFalse(snapshot.Snapshot(folder).is_complete())

    def test_damage_is_repaired(self) -> None:
        os.truncate(self.made() / "ram", 1 << 20)
        self.check_works()

    def test_damage_that_only_a_restore_finds(self) -> None:
        folder = self.made()
        (folder / "state").write_bytes(b"x" * 300000)
        snapshot.Snapshot(folder).mark_complete()
        self.check_works()

    def test_one_that_another_process_replaces_meanwhile(self) -> None:
        folder, restored = self.made(), []
        restore = snapshot.Snapshot.restore

        def replaced_before(self: snapshot.Snapshot, debugger: None = None) -> Machine:
            restored.append(self.identity())
            if len(restored) == 1:
                shutil.move(folder / "ram", folder / "elsewhere")
                snapshot.Snapshot(folder).done.unlink()
            return restore(self, debugger)

        with mock.patch.object(snapshot.Snapshot, "restore", replaced_before):
            self.check_works()
        self.assertEqual(len(set(restored)), 2)

    def test_a_program_that_crashes_the_vm_costs_the_others_nothing(self) -> None:
        before = (self.made() / "done.json").read_text()
        printed = ["qemu: fatal: why", *(f"R{number}=0" for number in range(40))]
        with mock.patch.object(Connection, "execute", side_effect=WorkerDied("gone")), \
                mock.patch.object(Machine, "console", return_value=printed):
            result, = VmBackend().run([Run((PROGRAM, "exit", "3"))])
        self.assertEqual(result.ending, Ending.MACHINE)
        self.assertIn("gone\nqemu: fatal: why\nR28=0\n", result.diagnosis)
        self.assertEqual((self.made() / "done.json").read_text(), before)

    def test_two_at_once_make_one(self) -> None:
        shutil.rmtree(self.made())
        processes = [self.command("exit", "5") for _ in range(2)]
        said = [process.communicate(timeout=120)[1] for process in processes]
        self.assertEqual([process.returncode for process in processes], [5, 5], said)
        self.assertEqual(sum(b"first boot" in text for text in said), 1, said)

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
        hanging = Run((PROGRAM, "spin"), limits=Limits(wall=120, no_output=10, spin=0))
        execute = Connection.execute

        def execute_until_killed(connection: Connection, run: Run) -> Result:
            if run == hanging and kills:
                threading.Thread(target=kill_at_work, args=(vm_processes(self.home)[0], kills.pop())).start()
            return execute(connection, run)

        for times, ending in ((1, Ending.NO_OUTPUT), (2, Ending.MACHINE)):
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
        self.assertIn("install", caught.exception.fix)

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
        greedy = Run((PROGRAM, "memory"), limits=Limits(wall=120, no_output=120, spin=0, memory=1 << 40))
        results = VmBackend().run([greedy, Run((PROGRAM, "exit", "1"))])
        self.assertEqual((results[0].ending, results[0].code), (Ending.SIGNAL, signal.SIGKILL), results[0])
        self.assertEqual(results[1].status, 1)


if __name__ == "__main__":
    unittest.main()
