"""Guests for one grading: a source of guests/ assembled with values of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Union

from grader.course import BUILD, ROOT
from grader.execution.c_tools import install_command
from grader.execution.runs import CannotGrade
from grader.core.encryption import sealable, seal

Define = Union[int, str, list[int], None]


def write_constants() -> None:
    """build/abi.inc, which every guest includes: the Makefile knows how."""
    _execute(["make", "-s", "build/abi.inc"])


def assemble(name: str, image: Path, sealer: Random | None = None, **defines: Define) -> Path:
    """guests/NAME.asm as `image`, with `defines` in the place of its default values.

    A number becomes a number, a list of them `1,2,3`, a text a quoted string; None defines a name alone.
    With `sealer`'s random numbers the image is sealed, where that can be done: see grader.core.encryption.
    """
    image.parent.mkdir(parents=True, exist_ok=True)
    options = [f"-D{key}{_value(value)}" for key, value in defines.items()]
    _execute(["nasm", "-f", "bin", "-Werror", f"-I{BUILD}/", "-Iguests/", *options,
              f"guests/{name}.asm", "-o", str(image)])
    if sealer and sealable((ROOT / "guests" / f"{name}.asm").read_text(), image.read_bytes()):
        seal(image, sealer)
    return image


def _value(value: Define) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"={value}"
    if isinstance(value, list):
        return "=" + ",".join(map(str, value))
    if not value.isprintable() or "'" in value:
        raise ValueError(f"nasm has no string for {value!r}")
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
