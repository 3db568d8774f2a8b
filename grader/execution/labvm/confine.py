"""QEMU with as few rights as this machine can take from it, because what runs in a lab VM may find a fault of
QEMU's: no files but /usr, no network, no other process, no capability, no program to execute.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import threading
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent
NOBODY = "65534"
# QEMU's own filter of system calls (qemu(1), -sandbox).
SANDBOX = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
KILLED_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
AS_NOBODY = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all"]
NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork",
              "--kill-child"]
CHUNK = 1 << 20


def rooted(script: str) -> str:
    """The text of a script that begins with a root of its own."""
    return (SCRIPTS / "root.sh").read_text() + (SCRIPTS / script).read_text()


@functools.lru_cache(maxsize=None)
def confinement() -> list[str]:
    """The words before a command that take its rights: as many as this machine allows."""
    drop = [*KILLED_WITH_US, *(AS_NOBODY if os.geteuid() == 0 else [])]
    closed = [*drop, *NAMESPACES, "sh", "-ec", rooted("labvm/confine.sh"), "confine"]
    for words in (closed, drop):
        if subprocess.run([*words, "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0:
            return words
    return KILLED_WITH_US


def innermost(pid: int) -> int:
    """The process that a process became or started: in namespaces a command is the only child of unshare."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()     # proc(5)
    except OSError:
        return pid
    return innermost(int(children[0])) if children else pid


_copies: dict[str, int] = {}
_copying = threading.Lock()


def sealed_copy(path: Path, identity: str) -> int:
    """A descriptor of a copy of this file in memory, which nobody can change: memfd_create(2). It stays open,
    and is the same for all who ask for the file with this identity."""
    with _copying:
        if identity not in _copies:
            copy = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                os.ftruncate(copy, size)
                _copy_data(file.fileno(), copy, size)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS,
                        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
            _copies[identity] = copy
        return _copies[identity]


def _copy_data(source: int, target: int, size: int) -> None:
    """Copies what is not a hole, and not zero."""
    zeros, at = bytes(CHUNK), 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:      # no more data
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(source, min(CHUNK, end - at), at)
            if not data:
                return
            if data != zeros[:len(data)]:
                os.pwrite(target, data, at)
            at += len(data)
