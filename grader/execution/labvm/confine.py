"""QEMU with as few rights as this machine can take from it, because what runs in a lab VM may find a fault of
QEMU's: no files but /usr, no network, no other process, no capability, no program to execute; and with limits
(grader/execution/runner/confine.h).
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import random
import subprocess
import threading
from pathlib import Path

from grader.execution.c_tools import c_tool
from grader.execution.runs import CannotGrade

SCRIPTS = Path(__file__).parent.parent
# QEMU's own filter of system calls (qemu(1), -sandbox).
SANDBOX = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
# Numbers that Linux keeps for services (systemd.io/UIDS-GIDS).
USERS = range(61184, 65520)
KILLED_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
WITHOUT_RIGHTS = [*KILLED_WITH_US, "--bounding-set=-all", "--inh-caps=-all"]
NAMESPACES = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
# It counts the threads of a user, so it is for a user of QEMU's own.
THREADS_MAX = ["prlimit", "--nproc=64"]
USER_NAMESPACE = ["--user", "--map-root-user"]
# Its environment: nothing of the grader's.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
CHUNK = 1 << 20


def rooted(script: str) -> str:
    """The text of a script that begins with a root of its own."""
    return (SCRIPTS / "root.sh").read_text() + (SCRIPTS / script).read_text()


# In turn, so that no two are the same in one process; another process begins elsewhere.
_users = itertools.count(random.SystemRandom().randrange(len(USERS)))


def own_user() -> int:
    """A user for one lab VM or jail alone: another one can't reach its processes or use up its limits. 0, for
    no other user, if we are not root."""
    return USERS[next(_users) % len(USERS)] if os.geteuid() == 0 else 0


def _ways(user: int) -> list[list[str]]:
    """The words before a command that take its rights, from all of them to few. `user`: own_user()."""
    runner = str(c_tool("runner", SCRIPTS / "runner"))
    root = ["sh", "-ec", rooted("labvm/confine.sh"), "confine", *WITHOUT_RIGHTS]
    if not user:
        return [[runner, "confine", *KILLED_WITH_US, *NAMESPACES, *USER_NAMESPACE, *root],
                [runner, "confine", "files", *KILLED_WITH_US]]
    as_user = [f"--reuid={user}", f"--regid={user}", "--clear-groups", *THREADS_MAX]
    return [[runner, "confine", *KILLED_WITH_US, *NAMESPACES, *root, *as_user],
            [runner, "confine", *WITHOUT_RIGHTS, *as_user, *NAMESPACES, *USER_NAMESPACE, *root],
            [runner, "confine", "files", *WITHOUT_RIGHTS, *as_user],
            [runner, "confine", "files", *KILLED_WITH_US]]


@functools.lru_cache(maxsize=None)
def best_way(program: str) -> int:
    """The first of these ways that this program starts in here."""
    said = ""
    for place, words in enumerate(_ways(own_user())):
        tried = subprocess.run([*words, program, "--version"], env=ENVIRONMENT, text=True, errors="replace",
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if tried.returncode == 0:
            return place
        said = tried.stderr.strip() or f"status {tried.returncode}"
    raise CannotGrade(f"{program} does not start: {said}", "run `make doctor`")


def confinement(program: str) -> list[str]:
    """The words before this program that take its rights: as many as this machine allows."""
    return _ways(own_user())[best_way(program)]


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
            copy = os.memfd_create(str(path)[-200:], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
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
