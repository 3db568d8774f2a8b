"""Who works on what, where several machines share a folder.

A claim is a file that is created exclusively: one step, even for several machines. It says which process on
which machine has made it, and that process renews its time every few seconds. A claim is stale when its
process is known to be gone, or when it has not been renewed for long by the file system's own clock: the
clocks of two machines may differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

RENEW_SECONDS = 15.0
STALE_SECONDS = 180.0     # more than a network file system keeps a file's time in its cache


def _started(pid: str) -> str:
    """When a process started. Raises OSError or IndexError: it has ended."""
    return Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[19]


def _me() -> dict[str, str]:
    """What tells this process from all others, ever: its number is used again, and on other machines."""
    # Where /proc is that of another container, our number is another process's there.
    ours = os.readlink("/proc/self") == str(os.getpid())
    return {"host": socket.gethostname(), "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "namespace": os.readlink("/proc/self/ns/pid") if ours else uuid.uuid4().hex,
            "pid": str(os.getpid()), "start": _started("self")}


class Claims:
    """The claims in a folder. Those that this object has taken are renewed until they are released."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._me = json.dumps({**_me(), "id": uuid.uuid4().hex})
        self._held: set[Path] = set()
        self._over = threading.Event()
        threading.Thread(target=self._renew_on, daemon=True).start()

    def take(self, name: str) -> bool:
        """Claims `name`, unless somebody has a claim to it that is not stale."""
        path = self._path(name)
        for _ in range(2):
            try:
                with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "w") as file:
                    file.write(self._me)
                self._held.add(path)
                return True
            except FileExistsError:
                if not self.remove_stale(name):
                    return False
        return False

    def holds(self, name: str) -> bool:
        """Whether the claim is still ours: a process that was stopped for long may have lost it."""
        return _content(self._path(name)) == self._me

    def holder(self, name: str) -> str:
        """Who has the claim, for a message."""
        found = _parsed(_content(self._path(name)))
        return f"process {found.get('pid', '?')} on {found.get('host', 'another machine')}"

    def release(self, name: str) -> None:
        """Gives a claim of ours up."""
        self._held.discard(self._path(name))
        if self.holds(name):
            self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Gives all of ours up."""
        self._over.set()
        for path in list(self._held):
            self.release(path.name[:-len(SUFFIX)])

    def is_stale(self, name: str) -> bool:
        """Whether no process works on it any more. A name that is not claimed is also stale."""
        path = self._path(name)
        return self._is_stale(path, _content(path))

    def _is_stale(self, path: Path, content: str) -> bool:
        found = _parsed(content)
        ours = json.loads(self._me)
        if all(found.get(key) == ours[key] for key in ("host", "boot", "namespace")):
            try:
                pid = str(found["pid"])
                os.kill(int(pid), 0)
                return bool(_started(pid) != found["start"])
            except (ProcessLookupError, OverflowError, ValueError, KeyError):
                return True
            except (OSError, IndexError):
                pass        # another user's, which a /proc with hidepid does not show
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".now-") as now:
            try:
                return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime > STALE_SECONDS
            except FileNotFoundError:
                return True

    def remove_stale(self, name: str) -> bool:
        """Removes the claim if it is stale. One that has taken its place meanwhile is put back."""
        path, aside = self._path(name), self.folder / f".stale-{uuid.uuid4().hex}"
        judged = _content(path)
        if not self._is_stale(path, judged):
            return False
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if _content(aside) == judged:
                aside.unlink()
            else:
                aside.rename(path)
        return True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _renew_on(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            self.renew()

    def renew(self) -> None:
        """Shows that we are still there."""
        for path in list(self._held):
            with contextlib.suppress(OSError):      # holds() will say that it is lost
                os.utime(path)


SUFFIX = ".claim"


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
