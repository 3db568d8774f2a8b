"""What `make` and a C compiler consist of, for a lab VM that is their jail."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from grader.execution.c_tools import install_command
from grader.execution.runs import CannotGrade

PROGRAMS = ("make", "tar", "as", "ld", "ld.bfd", "nm", "readelf", "objcopy", "awk", "sed", "grep", "cat",
            "cp", "mv", "rm", "mkdir", "cmp", "cksum", "pkg-config", "echo", "printf", "test")
PARTS = ("cc1", "collect2", "lto-wrapper")
FILES = ("liblto_plugin.so", "pkgconfig/check.pc", "pkgconfig/libsubunit.pc")
# The folders of headers whose files programs name; those that their files name in turn come along.
HEADERS = ("linux", "sys")

_INCLUDED = re.compile(rb"^\s*#\s*include(?:_next)?\s*<([\w+-]+)/", re.M)


@functools.lru_cache(maxsize=None)
def toolchain_files(cc: str) -> tuple[str, ...]:
    """All files that a build with this compiler, perhaps several words, reads or executes, but for the kit's
    own. Raises CannotGrade for any but gcc: the parts of others are different ones."""
    words = cc.split()
    if not shutil.which(words[0]) or "Free Software Foundation" not in _output([*words, "--version"]):
        reason = f"CC={cc}: where user namespaces are forbidden, modules are compiled in the lab VM, by gcc"
        raise CannotGrade(reason, f"{install_command('gcc')}, and leave CC out; or allow user namespaces")
    return tuple(dict.fromkeys(_files(cc)))


def _files(cc: str) -> Iterator[str]:
    yield "/bin/sh"
    for program in (*PROGRAMS, *cc.split()):
        path = shutil.which(program)
        if path:
            yield path
    for option, names in (("prog", PARTS), ("file", FILES)):
        for name in names:
            part = Path(_output([*cc.split(), f"-print-{option}-name={name}"]).strip())
            if part.is_absolute() and part.is_file():
                yield str(part)
    yield from _linked(cc)
    lines = _output([*cc.split(), "-E", "-v", "-x", "c", "/dev/null"]).splitlines()
    folders = [Path(line.strip()) for line in lines if line.startswith(" /")]
    yield from map(str, _headers([folder for folder in folders if folder.is_dir()]))


def _headers(folders: Sequence[Path]) -> Iterator[Path]:
    """The headers right in these folders, and those of HEADERS, with all that they include from there."""
    headers = [path for folder in folders for path in folder.glob("*.h")]
    wanted = set(HEADERS)
    known: set[str] = set()
    while headers:
        yield from headers
        for path in headers:
            wanted |= {name.decode() for name in _INCLUDED.findall(path.read_bytes())}
        headers = [path for folder in folders for name in sorted(wanted - known)
                   for path in (folder / name).glob("**/*.h")]
        known |= wanted


def _linked(cc: str) -> Iterator[str]:
    """What the linker opens for a Check program, by its own words: these files differ between versions, and
    some name others."""
    check = _output(["pkg-config", "--libs", "check"]).split()
    said = _output([*cc.split(), "-pthread", "-x", "c", "/dev/null", "-x", "none", *check, "-Wl,--verbose",
                    "-o", "/dev/null"])
    for path in re.findall(r"^attempt to open (/.+) succeeded$", said, re.M):
        if Path(path).is_file():    # but for the object, which is gone
            yield path


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace").stdout
