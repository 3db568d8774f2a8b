"""What `make linux` boots: a Linux kernel as Debian packages it, and an initramfs of our own.

The initramfs has busybox (its static package) and guests/linux/init.c. Nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from grader.course import ROOT
from grader.execution.c_tools import BUILD, c_tool, install_command, locked
from grader.execution.labvm import initrd
from grader.execution.labvm.kernel import find_kernel, unpack_packages
from grader.execution.labvm.snapshot import cache_folder
from grader.execution.runs import CannotGrade

INIT = ROOT / "guests/linux/init.c"
INSTALLED = Path("/bin/busybox")
PACKAGE = "busybox-static"


def progress(text: str) -> None:
    """Report what takes time; only a first use does."""
    print(f"linux: {text}", file=sys.stderr, flush=True)


def linux_kernel() -> Path:
    """The bzImage: the lab VM's kernel, or the file that LINUX_KERNEL names."""
    named = os.environ.get("LINUX_KERNEL", "")
    if named:
        if not os.path.isfile(named):
            raise CannotGrade(f"LINUX_KERNEL={named} is not a file", "name a bzImage for x86-64")
        return Path(named).resolve()
    cache = cache_folder()
    with locked(cache / "lock"):
        return find_kernel(cache, progress).image


def linux_initramfs() -> Path:
    """The initramfs, built if its parts are newer."""
    init, busybox = c_tool("linux-init", INIT, for_lab_vm=True), _busybox()
    target = BUILD / "linux.cpio"
    with locked(BUILD / ".linux.lock"):
        parts = max(path.stat().st_mtime for path in (init, busybox, Path(__file__)))
        if not target.exists() or target.stat().st_mtime < parts:
            partial = target.with_suffix(".partial")
            partial.write_bytes(_archive(init.read_bytes(), busybox.read_bytes()))
            os.replace(partial, target)
    return target


def _archive(init: bytes, busybox: bytes) -> bytes:
    """Folders, busybox, and what its names are. The shell finds busybox's other commands without links."""
    program, folder, link = stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
    names = ("bin", "dev", "proc", "root", "sys", "tmp")
    folders: list[initrd.Entry] = [(name, folder, b"") for name in names]
    return initrd.archive([*folders, ("init", program, init), ("bin/busybox", program, busybox),
                           ("bin/sh", link, b"busybox")])


def _busybox() -> Path:
    """A static busybox: the installed one, or the package's, kept in the cache."""
    if INSTALLED.exists() and b"ld-linux" not in INSTALLED.read_bytes():
        return INSTALLED
    cache = cache_folder()
    kept = cache / "busybox"
    with locked(cache / "lock"):
        if not kept.exists():
            progress(f"fetching {PACKAGE} (1 MB; nothing is installed)")
            with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as name:
                unpack_packages([PACKAGE], Path(name))
                found = [path for path in Path(name).glob("**/bin/busybox") if path.is_file()]
                if not found:
                    raise CannotGrade(f"{PACKAGE} has no busybox in it", install_command(PACKAGE))
                shutil.move(str(found[0]), kept)
    return kept
