"""What is known of one submission when it is done: kept as record.json in its folder, so that a class grading
that was interrupted goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from grader.core.whole_file import write_whole

GRADED, REFUSED, MACHINE = "graded", "refused", "machine"


@dataclass(frozen=True)
class TestScore:
    """One test's points."""

    name: str
    score: float
    possible: float


@dataclass(frozen=True)
class Record:
    """How grading one submission ended: GRADED; REFUSED, the learner's fault; MACHINE, ours: never a 0."""

    name: str
    key: str                  # of all that shapes the result
    status: str
    reason: str = ""          # why it was not graded, or why all of it failed
    score: float = 0
    possible: float = 0
    tests: list[TestScore] = field(default_factory=list)
    kit: str = ""             # that the submission was packed with
    seconds: float = 0.0

    def save(self, folder: Path) -> None:
        """Writes it whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "record.json", json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load(folder: Path) -> Record | None:
    """The record of a submission's folder, if there is a good one."""
    try:
        fields = json.loads((folder / "record.json").read_text())
        fields["tests"] = [TestScore(**test) for test in fields["tests"]]
        record = Record(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    """Whether a file has what `save` writes, so that no other part of the class has to expect less."""
    texts = [record.name, record.key, record.status, record.reason, record.kit,
             *(test.name for test in record.tests)]
    numbers = [record.score, record.possible, record.seconds,
               *(number for test in record.tests for number in (test.score, test.possible))]
    return (all(isinstance(text, str) for text in texts)
            and all(isinstance(number, (int, float)) for number in numbers)
            and record.status in (GRADED, REFUSED, MACHINE)
            and abs(record.score - sum(test.score for test in record.tests)) < 0.01)


def key_of(files: dict[str, bytes], *settings: object) -> str:
    """A digest of a submission's files and of all else that shapes its result."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return digest.hexdigest()[:24]
