"""Which files a program needs in the lab VM: itself, its interpreter, its libraries and its input files.

The libraries are found by reading the ELF files, not by ldd: that would execute the program's own
interpreter on the host, and a submission may be hostile.
"""

from __future__ import annotations

import functools
import glob
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from grader.execution.runs import Run, absolute_argument, file_part, program_path

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29

# glibc opens it with dlopen to cancel a thread or print a backtrace; no ELF file names it.
ALSO_WITH_LIBC = ("libgcc_s.so.1",)
NOT_PACKED = ("/dev/", "/proc/", "/sys/")


class _Elf:
    """The dynamic part of a 64-bit little-endian ELF file (elf(5))."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._data = file.read()
        if self._data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is not a 64-bit ELF file")
        offset, = struct.unpack_from("<Q", self._data, 32)
        size, count = struct.unpack_from("<HH", self._data, 54)
        self._headers = [struct.unpack_from("<IIQQQQQQ", self._data, offset + size * i) for i in range(count)]

    def interpreter(self) -> str | None:
        """The program that loads this one."""
        for kind, _, offset, _, _, size, _, _ in self._headers:
            if kind == PT_INTERP:
                return os.fsdecode(self._data[offset:offset + size].rstrip(b"\0"))
        return None

    def _file_offset(self, address: int) -> int:
        for kind, _, offset, start, _, size, _, _ in self._headers:
            if kind == PT_LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise ValueError("an address outside the file")

    def dynamic(self) -> tuple[list[str], list[str]]:
        """The names of the needed libraries, and the search folders named in the file."""
        entries: list[tuple[int, int]] = []
        for kind, _, offset, _, _, size, _, _ in self._headers:
            if kind == PT_DYNAMIC:
                table = self._data[offset:offset + size - size % 16]
                entries += [(tag, value) for tag, value in struct.iter_unpack("<qQ", table)]
        strings = next((self._file_offset(value) for tag, value in entries if tag == DT_STRTAB), 0)

        def text(value: int) -> str:
            start = strings + value
            return os.fsdecode(self._data[start:self._data.index(b"\0", start)])

        needed = [text(value) for tag, value in entries if tag == DT_NEEDED]
        paths = [text(value) for tag, value in entries if tag in (DT_RPATH, DT_RUNPATH)]
        return needed, [folder for path in paths for folder in path.split(":") if folder]


@functools.lru_cache(maxsize=None)
def _library_folders() -> tuple[str, ...]:
    """The loader's search folders: ld.so.conf, the built-in ones, then those of a cross compiler."""
    folders: list[str] = []
    for name in sorted(glob.glob("/etc/ld.so.conf.d/*.conf")):
        with open(name, encoding="utf-8", errors="replace") as file:
            folders += [line.strip() for line in file if line.startswith("/")]
    folders += ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib",
                "/usr/lib", "/usr/x86_64-linux-gnu/lib"]
    return tuple(folders)


_TWINS: dict[str, str] = {}


def pack_like(program: Path, twin: Path) -> None:
    """Pack `program` with what its twin needs. For a strange file: by itself it could ask for any other."""
    _TWINS[str(program)] = str(twin)


def twin_of(path: str) -> str:
    """The kit's own program in the place of a strange one, or the path itself."""
    return _TWINS.get(path, path)


def _with_libraries(path: str) -> Iterator[str]:
    """A file and, if it is a program, what it needs to start."""
    twin = twin_of(path)
    status = os.stat(twin)
    yield path
    yield from _closure(twin, (status.st_size, status.st_mtime_ns))[1:]


@functools.lru_cache(maxsize=None)
def _closure(path: str, _changed: tuple[int, int]) -> tuple[str, ...]:
    """The program at `path` and every file that it needs to start."""
    found: dict[str, None] = {}

    def add(file: str) -> None:
        if file in found or not os.path.isfile(file):
            return
        found[file] = None
        with open(file, "rb") as stream:
            line = stream.readline(256)
        if line.startswith(b"#!"):
            for word in line[2:].split():
                add(os.fsdecode(word))
            return
        try:
            elf = _Elf(file)
            needed, own = elf.dynamic()
        except (ValueError, struct.error, IndexError, OverflowError, OSError):
            return  # not an ELF file, or a broken one: the lab VM's kernel reports it
        interpreter = elf.interpreter()
        if interpreter:
            add(interpreter)
            add("/etc/ld.so.cache")
            needed = [*needed, *ALSO_WITH_LIBC]
        own = [folder.replace("$ORIGIN", os.path.dirname(file)) for folder in own]
        for name in needed:
            for folder in (*own, *_library_folders()):
                if os.path.isfile(os.path.join(folder, name)):
                    add(os.path.join(folder, name))
                    break

    add(path)
    return tuple(found)


def files_needed(run: Run) -> Iterator[str]:
    """Absolute paths of the files that `run` needs; a folder ends in '/'."""
    program = program_path(run)
    base = run.cwd or os.getcwd()
    if run.cwd:
        yield os.path.join(os.path.abspath(run.cwd), "")
    if os.path.isfile(program):
        yield from _with_libraries(program)
    given = [os.path.abspath(os.path.join(base, name)) for name in run.files]
    for argument in run.argv[1:]:
        part = file_part(absolute_argument(run, argument))
        given.append(os.path.normpath(os.path.join(base, part)) if part else "")
    for path in given:
        if path.startswith(NOT_PACKED):
            continue
        if os.path.isdir(path):
            yield os.path.join(path, "")
        elif os.path.isfile(path):
            yield from _with_libraries(path)
