"""Archives for the 1K OS with the grader's own programs, which attack the kernel or show what it does."""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from grader.core.building import build_os, make_text
from grader.core.line_code import LineCode
from grader.course import BUILD, LABS, ROOT

_PROGRAMS = LABS[6].grading / "programs"


@functools.lru_cache(maxsize=None)
def finished_os() -> tuple[Path, Path]:
    """The kit's own 1K OS: kernel and archive."""
    return build_os()


@functools.lru_cache(maxsize=None)
def grader_programs() -> dict[str, bytes]:
    """The programs in grader/labs/lab6-1k-os/programs/, built."""
    out = BUILD / "os-1k-grader"
    make_text("programs", {"PROGRAM_DIR": str(_PROGRAMS.relative_to(ROOT)),
                           "OS_OUT": str(out.relative_to(ROOT))})
    return {source.stem: (out / "user" / source.stem).read_bytes()
            for source in sorted(_PROGRAMS.glob("*.c"))}


def archive_with(files: Mapping[str, bytes] | None = None, code: LineCode | None = None,
                 shell: str = "") -> bytes:
    """The user's archive with the grader's programs and `files`, which replace files of the same names. With
    `code` the programs' lines have numbers; `shell` names the one that replaces the shell."""
    _, archive = finished_os()
    content = io.BytesIO()
    with tarfile.open(archive) as user, tarfile.open(fileobj=content, mode="w",
                                                     format=tarfile.USTAR_FORMAT) as image:
        programs = {name: code.put_into(program) if code else program
                    for name, program in grader_programs().items()}
        added = {**programs, **({"shell": programs[shell]} if shell else {}), **(files or {})}
        for member in user:
            if member.name not in added:
                image.addfile(member, user.extractfile(member))
        for name, data in added.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            image.addfile(member, io.BytesIO(data))
    return content.getvalue()
