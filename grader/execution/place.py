"""The kit's folder: whether files there can be written, locked and executed, and how to fix what can't.
`make doctor` checks all of it; other commands look here for the cause of a failure."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.course import BUILD, ROOT
from grader.execution.runs import CannotGrade

SPACE_NEEDED = 64 << 20            # bytes: what is built for all labs, and their gradings' results

_MINE = f"sudo chown -R {os.getuid()}:{os.getgid()}"
_ELSEWHERE = "copy the kit to a folder on a local disk where you have write permission, and work there"


@dataclass(frozen=True)
class Check:
    """A property of the folder. `reason` is empty if it is fine; not every fault stops the kit."""

    what: str
    reason: str = ""
    fix: str = ""
    stops: bool = True


def checks(folder: Path = BUILD) -> Iterator[Check]:
    """Each property that commands need; those that others depend on come first."""
    yield _writable(folder)
    yield _space(folder)
    yield _executable(folder)
    yield _lockable(folder)


def fault() -> CannotGrade | None:
    """The folder's first fault, if any."""
    return next((CannotGrade(check.reason, check.fix) for check in checks() if check.reason), None)


def cause(error: OSError) -> CannotGrade | None:
    """The machine's fault that explains this error; None: the error is a bug in the kit."""
    if error.errno not in _CAUSES:
        return None
    reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return fault() or CannotGrade(reason, _CAUSES[error.errno])


_CAUSES = {
    errno.EACCES: "make it accessible to you (ls -l shows its owner)",
    errno.EPERM: "make it accessible to you (ls -l shows its owner)",
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: "free space on that disk: `make clean` and `make clean-cache` remove the kit's files",
    errno.EDQUOT: "free space in your quota: `make clean` and `make clean-cache` remove the kit's files",
    errno.EFBIG: "allow larger files: ulimit -f unlimited",
    errno.ENOLCK: _ELSEWHERE,
    errno.EOPNOTSUPP: _ELSEWHERE,
    errno.EMFILE: "allow more open files: ulimit -n 1024",
    errno.EAGAIN: "end other programs: no more processes can be started",
    errno.ENOMEM: "end other programs: there is no memory left",
}


# How a compiler, make or a tool says that it had no room, or no more time; and that it was killed, has
# crashed or could not be started.
_STOPPED = ("No space left|quota exceeded|File too large|File size limit|memory exhausted|"
            "Cannot allocate memory|CPU time limit exceeded|"
            "terminated program|terminated with signal|due to signal|unable to execute command|"
            "Resource temporarily unavailable|internal compiler error|"
            r"^make: \*\*\* \[.*\] (?!Error \d)\w")
# What a source's line is blamed for; its text may be the learner's (#error).
_DIAGNOSTIC = re.compile(r"\s|[^:]+:\d+(?!\d)"
                         r"(?!(:\d+)?: (internal compiler error: |fatal error: error writing to ))")


def stopped(errors: str) -> str:
    """The line that says that a build failed for no fault of a source; or nothing. A hostile source can
    write such a line: this is for the user's own files and the kit's."""
    return next((line for line in errors.splitlines()
                 if re.search(_STOPPED, line) and not _DIAGNOSTIC.match(line)), "")


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) and path != ROOT else str(path)


def _writable(folder: Path) -> Check:
    what = f"{_name(folder)}/ can be written"
    there = _existing(folder)
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return Check(what, f"{there} is on a read-only file system", _ELSEWHERE)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(what, f"no permission to write {_name(there)}", _ELSEWHERE if there != folder else
                     f"{_MINE} {_name(folder)}")
    for path in _inside(folder):
        if _is_another_users(path):
            return Check(what, f"{_name(path)} belongs to another user: was a command run with sudo?",
                         f"{_MINE} {_name(folder)}")
    return Check(what)


def _inside(folder: Path) -> Iterator[Path]:
    """All that a folder has. What other commands remove meanwhile is skipped: Path.rglob fails for it."""
    for name, folders, files in os.walk(folder):
        yield from (Path(name, entry) for entry in folders + files)


def _is_another_users(path: Path) -> bool:
    """Whether another user owns this built file and we can't write it. It may be gone by now."""
    try:
        return path.lstat().st_uid != os.getuid() and not path.is_symlink() and not os.access(path, os.W_OK)
    except OSError:
        return False


def _space(folder: Path) -> Check:
    for place in (_existing(folder), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < SPACE_NEEDED:
            return Check("disk space",
                         f"{place} has {free >> 20} MB left; the kit needs {SPACE_NEEDED >> 20} MB",
                         _CAUSES[errno.ENOSPC] + "; TMPDIR= names another folder for temporary files")
    return Check("disk space")


def _executable(folder: Path) -> Check:
    there = _existing(folder)
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        return Check("programs may be executed", f"{there} is on a file system mounted noexec",
                     f"{_ELSEWHERE}; or: sudo mount -o remount,exec "
                     f"{next(path for path in (there, *there.parents) if os.path.ismount(path))}",
                     stops=False)                    # the lab VM executes them
    return Check("programs may be executed")


def _lockable(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            reason = f"the file system of {_name(folder)}/ does not support locks (flock: {error.strerror})"
            return Check("files can be locked", reason, _ELSEWHERE)
    return Check("files can be locked")
