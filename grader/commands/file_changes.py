"""Waits until one of several files changes: with inotifywait if it is installed, and by polling, because not
every file system reports changes (network folders, some container mounts).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

LOOK_SECONDS = 1.0                   # between two polls; with inotify they only cover the other file systems
SETTLE_SECONDS = 0.1                 # an editor may write in several steps

Signature = tuple[Optional[tuple[int, int, int]], ...]


def signature(files: Sequence[Path]) -> Signature:
    """Changes when a file is written, replaced, created or removed."""
    found: list[tuple[int, int, int] | None] = []
    for path in files:
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def wait_for_change(files: Sequence[Path], before: Signature) -> Signature:
    """Returns the new signature once it differs from `before` and has been stable for a moment."""
    while signature(files) == before:
        _sleep_until_event({path.parent for path in files})
    while True:
        found = signature(files)
        time.sleep(SETTLE_SECONDS)
        if signature(files) == found:
            return found


def _sleep_until_event(folders: set[Path]) -> None:
    """Sleeps until something changes in one of the folders (editors replace files), but not for long."""
    there = [str(folder) for folder in folders if folder.is_dir()]
    command = shutil.which("inotifywait")
    if not command or not there:
        time.sleep(LOOK_SECONDS)
        return
    with subprocess.Popen([command, "-qq", "-t", "2", "-e", "close_write,moved_to,create,delete", *there],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as waiting:
        try:
            if waiting.wait() == 1:              # it could not watch, for example: too many watches
                time.sleep(LOOK_SECONDS)
        finally:
            waiting.kill()
