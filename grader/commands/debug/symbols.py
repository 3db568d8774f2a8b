"""Symbols for gdb: nasm's images of guests have none, so a guest's source is assembled a second time, to an
ELF file with the same bytes at the same addresses. A 64-bit image is an ELF file too, but without symbols."""

from __future__ import annotations

import subprocess
from pathlib import Path

from grader.course import BUILD, ROOT

# `org`, which nasm knows only for flat files: the place where the linker puts the code.
ORIGIN = """%imacro org 1+.nolist
    origin equ %1
    global origin
    image_start:
%endmacro
"""


def source_of(image: Path) -> Path:
    """Where the source of a flat image would be."""
    kit = ROOT / "guests" / f"{image.stem}.asm"
    return kit if image.parent == BUILD / "guests" and kit.exists() else image.with_suffix(".asm")


def link_image(image: Path, bits: int, folder: Path) -> Path | None:
    """The ELF file of nasm's image, in `folder`; None: there is no source that gives exactly this image."""
    source, elf = source_of(image), folder / f"{image.stem}.elf"
    parts, prelude, flat = elf.with_suffix(".o"), folder / "origin.inc", elf.with_suffix(".flat")
    if not source.exists():
        return None
    prelude.write_text(ORIGIN)
    try:
        _run("nasm", "-f", f"elf{bits}", "-g", "-F", "dwarf", "-p", str(prelude), f"-I{BUILD}/", "-Iguests/",
             f"-I{source.parent}/", _name(source), "-o", str(parts))
        symbols = [line.split() for line in _run("nm", str(parts)).splitlines()]
        origin = next((value for value, _, name in symbols if name == "origin"), "0")
        _run("ld", "-m", "elf_x86_64" if bits == 64 else "elf_i386", f"-Ttext=0x{origin}", "-e", "0",
             str(parts), "-o", str(elf))
        _run("objcopy", "-O", "binary", "-j", ".text", str(elf), str(flat))
    except subprocess.CalledProcessError:
        return None
    return elf if flat.read_bytes() == image.read_bytes() else None


def _name(source: Path) -> str:
    """As it should stand in the line numbers: gdb is started in the kit's folder."""
    return str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else str(source)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return done.stdout
