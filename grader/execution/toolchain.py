"""What `make` and a C compiler consist of, for a lab VM that is their jail."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from grader.execution.c_tools import install_command
from grader.execution.runs import CannotGrade

PROGRAMS = ("make", "tar", "as", "ld", "ld.bfd", "nm", "readelf", "objcopy", "awk", "sed", "grep", "cat",
            "cp", "mv", "rm", "mkdir", "cmp", "cksum", "pkg-config", "echo", "printf", "test")
PARTS = ("cc1", "collect2", "lto-wrapper")
LIBRARIES = ("crt1.o", "Scrt1.o", "crti.o", "crtn.o", "crtbegin.o", "crtbeginS.o", "crtend.o", "crtendS.o",
             "liblto_plugin.so", "libgcc.a", "libgcc_s.so", "libgcc_s.so.1", "libc.so", "libc.so.6",
             "libc_nonshared.a", "libm.so", "libm.so.6", "libm.a", "libmvec.so.1", "libpthread.a", "librt.a",
             "libcheck.a", "libcheck_pic.a", "libcheck.so", "libsubunit.a", "libsubunit.so",
             "pkgconfig/check.pc", "pkgconfig/libsubunit.pc")
# Of the folders of headers, beside what is right in them.
HEADERS = ("asm", "asm-generic", "bits", "gnu", "linux", "sys")


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
    for option, names in (("prog", PARTS), ("file", LIBRARIES)):
        for name in names:
            part = Path(_output([*cc.split(), f"-print-{option}-name={name}"]).strip())
            if part.is_absolute() and part.is_file():
                yield str(part)
                yield from _named_in(part)
    for line in _output([*cc.split(), "-E", "-v", "-x", "c", "/dev/null"]).splitlines():
        folder = Path(line.strip())
        if line.startswith(" /") and folder.is_dir():
            for place in (folder, *(folder / name for name in HEADERS)):
                yield from map(str, place.glob("*.h" if place == folder else "**/*.h"))


def _named_in(library: Path) -> list[str]:
    """The files that a library which is a script for the linker names: at that place, if by a link."""
    if library.suffix != ".so" or library.read_bytes()[:4] == b"\x7fELF":
        return []
    return [word for word in library.read_text(errors="replace").split()
            if word.startswith("/") and Path(word).is_file()]


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace").stdout
