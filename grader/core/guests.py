"""Guests for one grading: sources of guests/ assembled with the test's values."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Union

from grader.course import BUILD, ROOT
from grader.execution.c_tools import install_command
from grader.execution.runs import CannotGrade
from grader.core.encryption import encrypt, encryptable

Define = Union[int, str, list[int], None]


def write_constants() -> None:
    """Builds build/abi.inc, which every guest includes."""
    _execute(["make", "-s", "build/abi.inc"])


def assemble(name: str, image: Path, cipher: Random | None = None, **defines: Define) -> Path:
    """guests/NAME.asm as `image`, with `defines` in the place of its default values.

    A number becomes a number, a list of numbers `1,2,3`, a text a quoted string; None defines just the name.
    `cipher`: random numbers to encrypt the image with, if possible; see grader.core.encryption.
    """
    image.parent.mkdir(parents=True, exist_ok=True)
    options = [f"-D{key}{_value(value)}" for key, value in defines.items()]
    _execute(["nasm", "-f", "bin", "-Werror", f"-I{BUILD}/", "-Iguests/", *options,
              f"guests/{name}.asm", "-o", str(image)])
    if cipher and encryptable((ROOT / "guests" / f"{name}.asm").read_text(), image.read_bytes()):
        encrypt(image, cipher)
    return image


def _value(value: Define) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"={value}"
    if isinstance(value, list):
        return "=" + ",".join(map(str, value))
    if not value.isprintable() or "'" in value:
        raise ValueError(f"{value!r} can't be a nasm string")
    return f"='{value}'"


def _execute(command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
    except FileNotFoundError as error:
        raise CannotGrade(f"{command[0]} is not installed", install_command(command[0])) from error
    if done.returncode != 0:
        raise CannotGrade(f"{' '.join(command)} failed:\n{done.stdout.strip()}",
                          "the kit's own files are at fault: compare them with a fresh clone")
