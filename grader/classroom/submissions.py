"""Reading submissions, which come from strangers: only the lab's files are taken, and never written anywhere.

A submission is a file or a folder in the folder of submissions; its name is the learner's. It may be what
`make handin` packed, any other tar or zip with the lab's files in it, a folder with them, the whole kit, or a
folder or an archive with one of these in it. Where the lab has one file, that file may come by itself, under
any name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from grader.classroom.archives import DAMAGE, PACKED_MAX, Budget, Member, Refused, is_archive, members
from grader.core.readable import printable
from grader.core.strange_files import FILE_MAX, HEADER, HEADERS_MAX, read_plain, unreadable
from grader.course import Lab

DESCRIPTION = "handin.json"
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
# What systems put beside files, and what is not the learner's work in a whole kit.
LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
NOT_THEIRS = (".git", "build", "solutions")
NAMES_SHOWN = 8
_C_TEXT = re.compile(rb"#\s*include|[;{}]")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Submission:
    """One submission, not yet read."""

    name: str
    path: Path


@dataclass(frozen=True)
class Contents:
    """What was submitted: the lab's files and the headers beside them, by name; and the version of the kit
    that packed them."""

    files: dict[str, bytes]
    headers: dict[str, bytes] = field(default_factory=dict)
    kit: str = ""


@dataclass(frozen=True)
class _File:
    """A file that may count. If it can't be taken, `content` has no value, and `fault` is the reason."""

    path: PurePosixPath
    content: bytes | None
    fault: str = ""


def find(folder: Path) -> list[Submission]:
    """The submissions in a folder, sorted by name; hidden files and what systems leave there are not."""
    paths = [path for path in sorted(folder.iterdir()) if not _is_left_out(path.name)]
    full = {path.name for path in paths}
    short = [_short(path.name) for path in paths]
    return [Submission(path.name if short.count(name) > 1 or name in full else name, path)
            for path, name in zip(paths, short)]


def left_out(folder: Path) -> str:
    """Which entries of a folder are not submissions, and why, in one line; or nothing."""
    names = [printable(path.name) for path in folder.iterdir() if _is_left_out(path.name)]
    return f"Left out, as hidden or left there by a system: {_listed(names)}" if names else ""


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _short(name: str) -> str:
    """A submission's name without the suffix of its format."""
    for suffix in (*ARCHIVES, ".c"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[:-len(suffix)]
    return name


def read(submission: Submission, lab: Lab) -> Contents:
    """The lab's files in a submission. Raises Refused; and CannotGrade where this machine can't read it."""
    path, budget = submission.path, Budget()
    if path.is_symlink():
        raise Refused("it is a link")
    if path.is_dir():
        closed: list[OSError] = []
        try:
            return _Reader(lab, budget).take(_folder_members(path, budget, closed))
        except Refused:
            if closed:      # what is missing may be there
                raise unreadable(closed[0]) from closed[0]
            raise
    content = read_plain(path, PACKED_MAX)
    if content is None:
        raise Refused("it is neither a file nor a folder")
    if len(content) > PACKED_MAX:
        raise Refused(f"it has more than {PACKED_MAX >> 20} MB")
    if is_archive(content):
        return _Reader(lab, budget).take(_checked(members(content, budget)))
    if len(lab.files) == 1 and (path.suffix.lower() == ".c" or _is_c(content)):
        return Contents({lab.files[0]: _text(_File(PurePosixPath(lab.files[0]), *_limited(content)))})
    raise Refused(f"it is neither an archive (tar.gz, tar, zip) nor {' and '.join(lab.files)}: pack it with "
                  "`make handin`")


def _is_c(content: bytes) -> bool:
    """Whether it looks like C, whatever it is called."""
    return b"\0" not in content and not content.startswith(b"%PDF") and _C_TEXT.search(content) is not None


def _limited(content: bytes) -> tuple[bytes | None, str]:
    return (content, "") if len(content) <= FILE_MAX else (None, f"has more than {FILE_MAX >> 10} KB")


def _folder_members(folder: Path, budget: Budget, closed: list[OSError]) -> Iterator[Member]:
    """The files below a folder; links are not followed. `closed` gets what this machine can't open."""
    waiting = [folder]
    while waiting:
        try:
            found = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except OSError as error:
            closed.append(error)
            continue
        for entry in found:
            path = Path(entry.path)
            name = budget.enter(path.relative_to(folder).as_posix())
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in (*LITTER, *NOT_THEIRS):
                    waiting.append(path)
            elif entry.is_file(follow_symlinks=False):
                def content(limit: int, path: Path = path) -> bytes | None:
                    found = read_plain(path, limit)
                    budget.unpack(len(found or b""))
                    return found if found is not None and len(found) <= limit else None
                yield Member(name, content)
            else:
                yield Member(name, None)


def _checked(found: Iterator[Member]) -> Iterator[Member]:
    """The same; what is wrong with the bytes is the learner's affair."""
    try:
        yield from found
    except DAMAGE as error:
        raise Refused(f"it can't be read: {error}") from error


class _Reader:
    """Goes through a submission and takes the lab's files."""

    def __init__(self, lab: Lab, budget: Budget) -> None:
        self._lab, self._budget = lab, budget
        self._wanted = {name.lower() for name in lab.files}
        self._files: list[_File] = []       # the lab's, headers and descriptions
        self._archives: list[_File] = []
        self._others: list[str] = []        # what else there is, for a message
        self._nested = False                # we are in an archive of an archive or folder

    def take(self, found: Iterator[Member]) -> Contents:
        """The lab's files. Archives in it are opened if it has not all of them itself, and none in those."""
        self._collect(found, PurePosixPath())
        if self._wanted - {file.path.name.lower() for file in self._files}:
            archives, self._nested = self._archives, True
            for archive in archives:
                if archive.content and is_archive(archive.content):
                    self._collect(_checked(members(archive.content, self._budget)), archive.path)
        described = self._description()
        number = described.get("lab")
        if isinstance(number, int) and number != self._lab.number:
            raise Refused(f"it was packed for lab {number}")
        chosen = {name: self._choose(name) for name in self._lab.files}
        places = {file.path.parent for file in chosen.values()}
        headers = {file.path.name: file.content for file in self._files
                   if file.path.suffix == ".h" and file.path.parent in places and file.content is not None}
        if len(headers) > HEADERS_MAX:
            raise Refused(f"it has more than {HEADERS_MAX} headers beside the lab's files")
        kit = described.get("kit")
        return Contents({name: _text(file) for name, file in chosen.items()}, headers,
                        kit[:100] if isinstance(kit, str) else "")

    def _collect(self, found: Iterator[Member], below: PurePosixPath) -> None:
        for member in found:
            if {*LITTER, *NOT_THEIRS} & set(member.name.parts) or member.name.name.startswith("._"):
                continue
            path, name = below / member.name, member.name.name.lower()
            if name in self._wanted or name == DESCRIPTION or HEADER.fullmatch(member.name.name):
                self._files.append(self._keep(path, member, FILE_MAX))
            else:
                self._others.append(str(path))
                if name.endswith(ARCHIVES) and not self._nested:
                    self._archives.append(self._keep(path, member, PACKED_MAX))

    def _keep(self, path: PurePosixPath, member: Member, limit: int) -> _File:
        if member.read is None:
            return _File(path, None, "is a link or a device, not a file")
        try:
            content = member.read(limit)
        except DAMAGE as error:
            return _File(path, None, f"can't be read: {error}")
        if content is None:
            return _File(path, None, f"has more than {limit >> 10} KB")
        self._budget.keep(len(content))
        return _File(path, content)

    def _description(self) -> dict[str, object]:
        """What `make handin` wrote about it, as far as it makes sense."""
        for file in self._files:
            if file.path.name == DESCRIPTION and file.content:
                try:
                    found = json.loads(file.content)
                except (ValueError, RecursionError):
                    return {}
                return found if isinstance(found, dict) else {}
        return {}

    def _choose(self, name: str) -> _File:
        """The one file that counts as `name`: in labs/ and the lab's folder, in such a folder, anywhere."""
        found = [file for file in self._files if file.path.name.lower() == name.lower()]
        for better in (lambda file: file.path.name == name,
                       lambda file: file.path.parent.name == self._lab.folder,
                       lambda file: file.path.parts[-3:-2] == ("labs",) and "grader" not in file.path.parts):
            found = list(filter(better, found)) or found
        if not found:
            raise Refused(f"{name} is not in it" + self._instead())
        if len({file.content for file in found}) > 1:
            raise Refused(f"it has {len(found)} files called {name}: which one counts, "
                          f"{_listed([str(file.path) for file in found])}?")
        return found[0]

    def _instead(self) -> str:
        """What there is instead of the lab's file."""
        names = self._others + [str(file.path) for file in self._files if file.path.name != DESCRIPTION]
        faults = [f"{archive.path} {archive.fault}" for archive in self._archives if archive.fault]
        return "".join([f"; it has {_listed(names)}" if names else "; it is empty",
                        *(f"; {fault}" for fault in faults[:NAMES_SHOWN])])


def _listed(names: Sequence[str]) -> str:
    """Some names, few enough to be read."""
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(name[:100] for name in sorted(names)[:NAMES_SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")


def _text(file: _File) -> bytes:
    """A file's content, if a compiler could read it."""
    if file.content is None:
        raise Refused(f"{file.path.name} {file.fault}")
    if file.content.startswith(_UTF_16):
        raise Refused(f"{file.path.name} is UTF-16: save it as UTF-8")
    if b"\0" in file.content:
        raise Refused(f"{file.path.name} is not text")
    return file.content
