"""Fuzzes the steps of a class grading before compilation: finding, reading, recording, showing a submission.

    python3 -m grader.quality.fuzz_reader [COUNT] [SEED]

Archives of each format, the names of entries and submissions, and handin.json are generated from a seed and
then damaged. Each must result in the lab's files or in a rejection: no other exception, no file outside the
folders for it, and a page and a table for all of them. It runs under limits of memory and time.
"""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import traceback
import zipfile
from pathlib import Path

from grader.classroom.archives import Refused
from grader.classroom.class_page import write_page
from grader.classroom.record import GRADED, REFUSED, Record, TestScore, load
from grader.classroom.scores import write_csv
from grader.classroom.submissions import find, read
from grader.core.readable import file_name
from grader.course import LABS
from grader.execution.runs import CannotGrade
from grader.execution.tool import run_command
from grader.quality.tests.packing import tar, zipped

COUNT = 20_000
MEMORY = 2 << 30
SECONDS_EACH = 2.0        # average CPU time: far more than any submission needs
BATCH = 50                # submissions in one class
LAB = LABS[2]

PARTS = ("hypercall.c", "HYPERCALL.C", LAB.folder, "labs", "handin.json", "..", ".", "", "/", "x", "helper.h",
         "a.zip", "a.tar.gz", "__MACOSX", "build", "=1+1", ";=1", "\x1b[31m", "\r\n", "\0", "\udce9",
         "\ud800", "ä", "\u202e",
         "y" * 300, " ", "\\", "C:", "-rf", "\uff1d1", "'", '"', "<script>")
TEXTS = (b'{"lab": 2, "kit": "1.0"}', b'{"lab": "\\ud800", "kit": "\\udfff"}', b"[[[[", b'{"lab": 1e999}',
         b"null",
         b'{"lab": NaN, "kit": {}}', b"\xef\xbb\xbf{}", b'{"lab": true}', b"[" * 5000, b"9" * 5000)
ENDS = (b"", b".c", b".zip", b".tar.gz", b".TGZ", b"\xe9", b"=1", b"\n", b";=1+1", b" ", b"  ", b"\x1b[2J")
NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"77777777777", b"-1")


def fuzz(folder: Path, count: int, seed: int) -> list[str]:
    """The failures, one text each."""
    failures: list[str] = []
    inside = str(folder)
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], (str, bytes)):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            path = os.path.abspath(os.fsdecode(arguments[0]))
            written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull
            if written and not path.startswith(inside):
                failures.append(f"a file outside was opened for writing: {path}")

    sys.addaudithook(watch)
    sys.dont_write_bytecode = True  # of modules that the reader imports now
    try:
        for start in range(0, count, BATCH):
            failures += _fuzz_class(folder, range(start, min(start + BATCH, count)), seed)
    finally:
        watching = False
    return failures


def _fuzz_class(folder: Path, numbers: range, seed: int) -> list[str]:
    """One class with submissions generated from these numbers."""
    failures: list[str] = []
    place, out = folder / "in", folder / "out"
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    place.mkdir(parents=True)
    out.mkdir()
    for number in numbers:
        _make(random.Random(f"{seed} {number}"), place, number)
    records: list[Record] = []
    for submission in find(place):
        try:
            contents = read(submission, LAB)
            test = TestScore("2.1-name", 1, 2)
            records.append(Record(submission.name, "k", GRADED, "", 1, 2, [test], contents.kit))
        except Refused as refused:
            records.append(Record(submission.name, "", REFUSED, str(refused)))
        except CannotGrade as error:
            failures.append(f"{numbers}: {submission.name!r}: {error}")
        except BaseException:
            failures.append(f"{numbers}: {submission.name!r}: {traceback.format_exc()}")
    try:
        for record in records:
            record.save(out / "reports" / file_name(record.name))
        loaded = [load(path) for path in (out / "reports").iterdir()]
        write_csv(records, out / "scores.csv")
        write_page(LAB, seed, records, out / "index.html")
        with open(out / "scores.csv", newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except BaseException:
        return [*failures, f"{numbers}: {traceback.format_exc()}"]
    if len(rows) != len(records) + 1 or len(loaded) != len(records) or None in loaded:
        failures.append(f"{numbers}: {len(records)} records, {len(rows) - 1} rows, {len(loaded)} folders")
    if any(not character.isprintable() for row in rows for cell in row for character in cell):
        failures.append(f"{numbers}: the table has a character that can't be printed")
    return failures


def _make(rng: random.Random, place: Path, number: int) -> None:
    """One submission: a file, or a folder with one."""
    content = _content(rng, 2)
    for _ in range(rng.choice((0, 0, 1, 1, 3, 10))):
        content = _damaged(rng, content)
    name = os.fsencode(f"{number}") + rng.choice(ENDS)
    path = os.fsencode(place) + b"/" + name
    if rng.random() < 0.2:
        os.mkdir(path)
        path += b"/" + rng.choice((b"hypercall.c", b"a.zip", b"a.tar.gz", b"handin.json", b"x\xe9.c"))
    with open(path, "wb") as file:
        file.write(content)


def _content(rng: random.Random, depth: int) -> bytes:
    """An archive, or a text at the maximum depth."""
    form = rng.randrange(6) if depth else 5
    if form == 5:
        name = _name(rng).encode("utf-8", "surrogatepass")
        return rng.choice((b'#include "lab2.h"\nint x;\n', *TEXTS, name, b""))
    entries = [(_name(rng), _content(rng, rng.choice((0, 0, depth - 1)))) for _ in range(rng.randrange(5))]
    if form >= 3:
        return zipped(*((name.encode("utf-8", "replace").decode(), text) for name, text in entries),
                      method=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                                         zipfile.ZIP_LZMA)), mode=rng.choice((0, 0o100644, 0o120777)))
    kind = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE))
    special = {"hypercall_c": (kind, "/etc/passwd")} if rng.random() < 0.2 else {}
    usable = [(name.encode("utf-8", "replace").decode().replace("\0", "?"), text) for name, text in entries]
    return tar(*usable, mode=rng.choice(("w", "w:gz", "w:bz2", "w:xz")), **special)


def _name(rng: random.Random) -> str:
    return "/".join(rng.choice(PARTS) for _ in range(rng.choice((1, 1, 2, 3, 60))))


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """The content with one change."""
    at, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[end:]
    if kind == 2:
        return content[:end] + content[at:]
    if kind == 3:
        noise = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 4, 100))))
        return content[:at] + noise + content[at + 1:]
    if kind == 4:
        return content[:at] + rng.choice(NUMBERS) + content[at + 4:]
    return content[:at] + rng.choice((b"PK\5\6", b"PK\1\2", b"PK\3\4", b"\x1f\x8b", b"ustar")) + content[at:]


def main() -> int:
    numbers = [int(word) for word in sys.argv[1:]]
    count = numbers[0] if numbers else COUNT
    seed = numbers[1] if numbers[1:] else random.randrange(1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seconds = int(60 + count * SECONDS_EACH)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    print(f"{count} submissions, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mini-kvm-fuzz-") as folder:
        failures = fuzz(Path(folder), count, seed)
    print("\n".join(failures))
    print(json.dumps({"submissions": count, "failures": len(failures)}))
    return 1 if failures else 0


if __name__ == "__main__":
    run_command(main)
