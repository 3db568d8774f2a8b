"""What is known of one hand-in when it is done: kept as record.json in its folder, so that a class grading
that was interrupted goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

GRADED, REFUSED, MACHINE = "graded", "refused", "machine"


@dataclass(frozen=True)
class TestScore:
    """One test's points."""

    name: str
    score: float
    possible: float


@dataclass(frozen=True)
class Record:
    """How one hand-in came out. `status`: GRADED; REFUSED, the learner's affair; MACHINE, ours: not a 0."""

    name: str
    key: str                  # of all that shapes the result
    status: str
    reason: str = ""          # why it was not graded, or why all of it failed
    score: float = 0
    possible: float = 0
    tests: list[TestScore] = field(default_factory=list)
    kit: str = ""             # that the hand-in was packed with
    seconds: float = 0.0

    def save(self, folder: Path) -> None:
        """Writes it whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"record.json.{os.getpid()}"
        partial.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        os.replace(partial, folder / "record.json")


def load(folder: Path) -> Optional[Record]:
    """The record of a hand-in's folder, if there is a good one."""
    try:
        fields = json.loads((folder / "record.json").read_text())
        fields["tests"] = [TestScore(**test) for test in fields["tests"]]
        return Record(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def key_of(files: dict[str, bytes], *settings: object) -> str:
    """A digest of a hand-in's files and of all else that shapes its result."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return digest.hexdigest()[:24]


def folder_name(name: str) -> str:
    """A hand-in's name as that of a folder: unlike names stay unlike."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:60]
    if plain and plain == name:
        return plain
    return f"{plain or 'hand-in'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
