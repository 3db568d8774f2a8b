"""The cache: a booted lab VM on disk; each use starts from it.

    ~/.cache/mini-kvm-labs/         (XDG_CACHE_HOME; build/labvm where that can't be written)
        lock                        held while something is created or removed
        kernel/                     the unpacked kernel
        snapshot-KEY/               ram, state, and done.json: size and time of both when they were complete
        partial-*                   in progress; leftovers of a killed process are removed the next time

The key is a digest of everything that affects the snapshot, so another QEMU, kernel or kit gets its own.
Only the newest KEPT are kept. A snapshot is created under another name and then renamed, so it is never
seen incomplete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grader.execution.worker import WorkerDied
from grader.course import ROOT
from grader.execution.c_tools import BUILD, c_tool, locked
from grader.execution.labvm import initrd
from grader.execution.labvm.confine import KILLED_WITH_US, SANDBOX, confinement, sealed_copy
from grader.execution.labvm.kernel import Kernel, find_kernel
from grader.execution.labvm.machine import HARDWARE, KERNEL_ARGUMENTS, Machine, qemu_path
from grader.execution.runs import CannotGrade

KEPT = 3
_LAST_RESORT = BUILD.parent / "labvm"
SPACE_NEEDED = 400 * 1024 * 1024   # the touched pages of RAM, the kernel and its package
BOOT_TIMEOUT = 240.0               # seconds; 4 on an idle machine
RESTORE_TIMEOUT = 120.0            # seconds; 0.3 on an idle machine
TRIES = 3                          # to restore it


def progress(text: str) -> None:
    """Report what takes time; only a first use does."""
    print(f"lab VM: {text}", file=sys.stderr, flush=True)


def _wished_folder() -> Path:
    """The preferred folder of the cache. A relative XDG_CACHE_HOME is ignored (XDG base directories), and so
    is an unknown home."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "mini-kvm-labs" if os.path.isabs(home) else _LAST_RESORT


def cache_folder() -> Path:
    """The folder of the cache, created if missing."""
    wished = _wished_folder()
    for folder in (wished, _LAST_RESORT):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise CannotGrade(f"neither {wished} nor build/ can be written",
                      "free space there, or set XDG_CACHE_HOME to a writable folder")


def _stamp(path: Path) -> list[object]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _key(kernel: Kernel, init: Path, runner: Path) -> str:
    """The digest of everything that affects a snapshot."""
    parts: list[object] = [HARDWARE, KERNEL_ARGUMENTS, _stamp(Path(qemu_path()).resolve()),
                           _stamp(kernel.image), [name for name, _ in kernel.module_files()]]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in (init, runner)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Snapshot:
    """A snapshot on disk, either complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ram, self.state, self.done = folder / "ram", folder / "state", folder / "done.json"

    def is_complete(self) -> bool:
        """Whether both files are unchanged since their creation."""
        try:
            return bool(json.loads(self.done.read_text()) == self._marks())
        except (OSError, ValueError):
            return False

    def identity(self) -> str:
        """Differs from that of an earlier or later one at the same place; empty: not there."""
        try:
            return self.done.read_text()
        except OSError:
            return ""

    def _marks(self) -> list[list[int]]:
        return [[s.st_size, s.st_mtime_ns] for s in (self.ram.stat(), self.state.stat())]

    def mark_complete(self) -> None:
        """Record size and time of both files, after syncing them to disk."""
        for path in (self.ram, self.state):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        self.done.write_text(json.dumps(self._marks()))

    def restore(self, debugger: socket.socket | None = None) -> Machine:
        """A VM resumed from this snapshot. Raises WorkerDied if that fails."""
        ram = sealed_copy(self.ram, f"{self.folder} {self.identity()}")
        state, end = os.pipe()
        with subprocess.Popen(["cat", self.state], stdin=subprocess.DEVNULL, stdout=end,
                              stderr=subprocess.DEVNULL), os.fdopen(state, "rb"):
            os.close(end)
            return self._resumed(ram, state, debugger)

    def _resumed(self, ram: int, state: int, debugger: socket.socket | None) -> Machine:
        machine = Machine(f"/proc/self/fd/{ram}", ["-incoming", "defer", *SANDBOX], confinement(qemu_path()),
                          False, (ram, state), debugger)
        try:
            machine.load(state)
            now = time.time()
            machine.channel.send(("clock", f"{int(now)} {int(now % 1 * 1e6)}".encode()), ("hello", b""))
            key, _ = machine.channel.receive(RESTORE_TIMEOUT)
            if key != "hello":
                raise WorkerDied(f"the restored VM sent {key!r}")
            os.utime(self.folder)
            return machine
        except BaseException as error:
            machine.close()
            if isinstance(error, WorkerDied):
                raise WorkerDied("\n".join([str(error), *machine.last_messages(5)])) from error
            raise


def _make(cache: Path, kernel: Kernel, init: Path, runner: Path, target: Path) -> None:
    """Boot an idle VM and save it as `target`. The caller holds the lock."""
    if shutil.disk_usage(cache).free < SPACE_NEEDED:
        raise CannotGrade(f"the lab VM needs {SPACE_NEEDED >> 20} MB in {cache}",
                          "free space there, or set XDG_CACHE_HOME to a folder elsewhere")
    started = time.monotonic()
    progress("first boot (about 5 seconds; later uses restore a snapshot)")
    with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as name:
        partial = Snapshot(Path(name) / "snapshot")
        partial.folder.mkdir()
        archive = Path(name) / "initrd"
        archive.write_bytes(initrd.build(init, runner, kernel.module_files()))
        # Nothing but the kernel and the runner runs in it, and it may write its RAM and its state to files.
        machine = Machine(str(partial.ram), ["-kernel", str(kernel.image), "-initrd", str(archive),
                                             "-append", KERNEL_ARGUMENTS], KILLED_WITH_US, share=True)
        try:
            key, _ = machine.channel.receive(BOOT_TIMEOUT)
            if key != "ready":
                raise WorkerDied(f"it sent {key!r}")
            machine.save(partial.state)
        except WorkerDied as death:
            machine.close()
            raise CannotGrade("\n  ".join([f"the lab VM does not boot: {death}", *machine.last_messages(8)]),
                              "run `make doctor`; `make clean-cache` resets it") from death
        finally:
            machine.close()
        partial.mark_complete()
        os.rename(partial.folder, target)
    progress(f"ready after {time.monotonic() - started:.1f} s")


def _tidy(cache: Path, keep: Path) -> None:
    """Remove incomplete snapshots and the least recently used ones. The caller holds the lock."""
    for leftover in cache.glob("partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    others = [path for path in cache.glob("snapshot-*") if path != keep]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1:]:
        shutil.rmtree(old, ignore_errors=True)


def start(debugger: socket.socket | None = None) -> Machine:
    """A lab VM ready for work, restored from the snapshot, which is created if missing or damaged. A VM that
    is restored and crashes later says nothing about it: a run's program can crash a VM. `debugger`: as for
    Machine.
    """
    cache = cache_folder()
    damaged, death = "", ""
    try:
        for _ in range(TRIES):
            snapshot = _ensure(cache, damaged)
            found = snapshot.identity()
            try:
                return snapshot.restore(debugger)
            except (WorkerDied, FileNotFoundError) as error:    # damage, or another process has replaced it
                damaged, death = found, str(error)
    except OSError as error:
        raise CannotGrade(f"can't write {cache}: {error}",
                          "free space there, or set XDG_CACHE_HOME") from error
    raise CannotGrade(f"the lab VM does not start: {death}", "run `make doctor`")


_failures: list[CannotGrade] = []     # in this process, so that its threads don't fail one by one


def _ensure(cache: Path, damaged: str) -> Snapshot:
    """A complete snapshot, and not the damaged one with this identity. If another thread failed to create it
    while this one waited, don't try again."""
    before = len(_failures)
    init = c_tool("init", ROOT / "grader/execution/labvm/init.c", for_lab_vm=True)
    runner = c_tool("runner", ROOT / "grader/execution/runner", for_lab_vm=True)
    with locked(cache / "lock"):
        if len(_failures) > before:
            raise _failures[-1]
        try:
            return _made(cache, init, runner, damaged)
        except CannotGrade as error:
            _failures.append(error)
            raise


def _made(cache: Path, init: Path, runner: Path, damaged: str) -> Snapshot:
    """The snapshot, created if missing or damaged. The caller holds the lock."""
    kernel = find_kernel(cache, progress)
    target = cache / f"snapshot-{_key(kernel, init, runner)}"
    snapshot = Snapshot(target)
    if not snapshot.is_complete() or snapshot.identity() == damaged:
        shutil.rmtree(target, ignore_errors=True)
        _tidy(cache, target)
        _make(cache, kernel, init, runner, target)
    return snapshot


def clean() -> None:
    """Remove the cache."""
    cache = cache_folder()
    with locked(cache / "lock"):
        for path in cache.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
    shutil.rmtree(cache, ignore_errors=True)
