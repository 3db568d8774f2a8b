"""A clean tree: a copy of the kit in which one submission after the other is graded.

Nothing of a submission gets into it but the lab's files and headers beside them. The kit's own objects are
built once: what the original has built for all labs is copied with its times, so make won't build it again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid

from grader.classroom.claims import Claims
from grader.course import ROOT, Lab

PARTS = ("Makefile", "common", "guests", "os-1k", "grader", "solutions", "build/objects", "build/grader")
REMOVALS = 50


def _copy(source: str, target: str) -> None:
    """Copies a file with its times, unless it is gone: another make's unfinished one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


class Tree:
    """A copy of the kit, at a place in the claims' folder that is claimed for it."""

    def __init__(self, claims: Claims, lab: Lab) -> None:
        self._claims, self._name = claims, uuid.uuid4().hex
        self.folder = folder = claims.folder / self._name
        self._lab = lab
        claims.take(self._name)
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, copy_function=_copy,
                                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            elif source.exists():
                shutil.copy2(source, folder / part)

    def put(self, files: dict[str, bytes]) -> None:
        """The learner's files instead of those before."""
        learner = self.folder / "labs" / self._lab.folder
        for old in (learner, self.folder / "build" / "grade", self.folder / "build" / "jailed"):
            shutil.rmtree(old, ignore_errors=True)
        learner.mkdir(parents=True)
        for name, content in files.items():
            (learner / name).write_bytes(content)

    def is_ours(self) -> bool:
        """Whether no other process has considered this one dead and taken its tree."""
        return self._claims.holds(self._name)

    def remove(self) -> None:
        """Removes it; what was killed in it may write for a moment still."""
        for _ in range(REMOVALS):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.1)
        self._claims.release(self._name)


def remove_stale(claims: Claims) -> None:
    """Removes the trees of gradings that were killed, on this machine or another one."""
    for folder in claims.folder.iterdir():
        if folder.is_dir() and claims.is_stale(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
            claims.remove_stale(folder.name)
