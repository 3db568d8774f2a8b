"""Reading hand-ins, which come from strangers: only the lab's files are taken, and never written anywhere.

A hand-in is a file or a folder in the folder of submissions; its name is the learner's. It may be what
`make handin` packed, any other tar, tar.gz or zip with the lab's file in it, a folder with it, or, where
the lab has one file, this file itself under any name.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from grader.course import Lab

PACKED_MAX = 4 << 20          # bytes of an archive
UNPACKED_MAX = 16 << 20       # bytes of all that is in it
ENTRIES_MAX = 2000
FILE_MAX = 256 << 10          # bytes of one source file; the longest solution has 16 KB
DESCRIPTION = "handin.json"
SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip", ".c")


class Refused(Exception):
    """This hand-in is not taken; the text is for its learner."""


@dataclass(frozen=True)
class Submission:
    """One hand-in, not yet looked into."""

    name: str
    path: Path


@dataclass(frozen=True)
class Entry:
    """A file in an archive or a folder. `content` is None for what is no plain file."""

    name: PurePosixPath
    content: Optional[bytes]


@dataclass(frozen=True)
class HandIn:
    """What was handed in: the lab's files by name, and the kit's version that they were packed with."""

    files: dict[str, bytes]
    kit: str = ""


def find(folder: Path) -> list[Submission]:
    """The hand-ins in a folder, sorted; hidden files are none."""
    found = [Submission(_name(path), path) for path in sorted(folder.iterdir())
             if not path.name.startswith(".")]
    names = [submission.name for submission in found]
    return [Submission(entry.name if names.count(entry.name) == 1 else entry.path.name, entry.path)
            for entry in found]


def _name(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[:-len(suffix)]
    return path.name


def read(submission: Submission, lab: Lab) -> HandIn:
    """The lab's files out of a hand-in. Raises Refused."""
    path = submission.path
    try:
        if path.is_symlink():
            raise Refused("it is a link")
        entries = list(_from_folder(path) if path.is_dir() else _from_file(path, lab))
    except (OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError,
            NotImplementedError, ValueError) as error:
        raise Refused(f"it can't be read: {error}") from error
    described = _description(entries)
    if described.get("lab", lab.number) != lab.number:
        raise Refused(f"it was packed for lab {described['lab']}")
    files = {name: _wanted(entries, lab, name) for name in lab.files}
    return HandIn(files, str(described.get("kit", ""))[:100])


def _from_folder(folder: Path) -> Iterator[Entry]:
    """The files below a folder; links are not followed."""
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > ENTRIES_MAX:
                raise Refused(f"it has more than {ENTRIES_MAX} files")
            path = Path(place) / name
            if name.endswith(".c") or name == DESCRIPTION:
                yield Entry(PurePosixPath(path.relative_to(folder).as_posix()), _read_plain(path, FILE_MAX))


def _read_plain(path: Path, limit: int) -> Optional[bytes]:
    """A file's content; None for a link, a device, a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Refused(f"{path.name} has more than {limit >> 10} KB")
    return content


def _from_file(path: Path, lab: Lab) -> Iterator[Entry]:
    content = _read_plain(path, PACKED_MAX)
    if content is None:
        raise Refused("it is no plain file")
    if content[:2] == b"PK":
        return _from_zip(content)
    if content[:2] == b"\x1f\x8b":
        return _from_tar(_decompress(content))
    if content[257:262] == b"ustar":
        return _from_tar(content)
    if path.suffix == ".c" and len(lab.files) == 1:
        return iter([Entry(PurePosixPath(lab.files[0]), content)])
    raise Refused("it is no archive that the kit knows (tar.gz, tar, zip): pack it with `make handin`")


def _decompress(content: bytes) -> bytes:
    """What is in a gzip file, but never more than UNPACKED_MAX."""
    machine = zlib.decompressobj(wbits=31)
    unpacked = machine.decompress(content, UNPACKED_MAX)
    if machine.unconsumed_tail:
        raise Refused(f"it unpacks to more than {UNPACKED_MAX >> 20} MB")
    return unpacked


def _from_tar(content: bytes) -> Iterator[Entry]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for count, member in enumerate(archive):
            name = _inside(member.name, count)
            if member.isdir():
                continue
            file = archive.extractfile(member) if member.isreg() else None
            yield Entry(name, file.read(FILE_MAX + 1) if file else None)


def _from_zip(content: bytes) -> Iterator[Entry]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for count, member in enumerate(archive.infolist()):
            name = _inside(member.filename, count)
            if member.is_dir() or not name.name.endswith((".c", ".json")):
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                yield Entry(name, None)
                continue
            with archive.open(member) as file:
                yield Entry(name, file.read(FILE_MAX + 1))


def _inside(name: str, count: int) -> PurePosixPath:
    """An entry's name, if it stays inside the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if count >= ENTRIES_MAX:
        raise Refused(f"it has more than {ENTRIES_MAX} entries")
    if path.is_absolute() or ".." in path.parts:
        raise Refused(f"it has an entry that leads out of it: {name[:80]!r}")
    return path


def _description(entries: list[Entry]) -> dict[str, object]:
    """handin.json, as far as it makes sense."""
    for entry in entries:
        if entry.name.name == DESCRIPTION and entry.content:
            try:
                found = json.loads(entry.content)
            except (ValueError, RecursionError):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _wanted(entries: list[Entry], lab: Lab, name: str) -> bytes:
    """The content of the one file `name`: from the lab's folder, else from wherever there is just one."""
    found = [entry for entry in entries if entry.name.name == name and "__MACOSX" not in entry.name.parts]
    in_folder = [entry for entry in found if entry.name.parent.name == lab.folder]
    found = in_folder or found
    if not found:
        others = ", ".join(sorted({entry.name.name for entry in entries})[:8])
        raise Refused(f"{name} is not in it" + (f"; it has {others}" if others else ""))
    if len(found) > 1:
        raise Refused(f"it has {len(found)} files called {name}: which one counts?")
    content = found[0].content
    if content is None:
        raise Refused(f"{name} is a link or a device, not a file")
    if len(content) > FILE_MAX:
        raise Refused(f"{name} has more than {FILE_MAX >> 10} KB")
    if b"\0" in content:
        raise Refused(f"{name} is no text")
    return content
