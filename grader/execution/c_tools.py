"""Building the C tools (runner, probe, the lab VM's init) into build/grader/, when their sources are newer.

They are linked statically: the same file runs on the host and in the lab VM, where there are no libraries.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from grader import course
from grader.execution import place
from grader.execution.progress import Progress
from grader.execution.runs import CannotGrade

BUILD = course.BUILD / "grader"
SETUP = course.ROOT / "grader/setup.sh"
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-static"]


def install_command(*packages: str) -> str:
    """The command that installs these packages on this machine, from setup.sh."""
    return subprocess.run(["/bin/sh", str(SETUP), "--command", *packages], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()


def is_x86_64() -> bool:
    """Whether this machine executes what runs in the lab VM."""
    return platform.machine() == "x86_64"


def compiler(for_lab_vm: bool) -> str:
    """The C compiler; for the lab VM, one that produces x86-64 programs on any host."""
    if for_lab_vm and not is_x86_64():
        names, packages = ["x86_64-linux-gnu-gcc"], ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross")
    else:
        names, packages = [os.environ.get("CC", "cc"), "gcc", "clang"], ("gcc", "libc6-dev")
    for name in names:
        if shutil.which(name):
            return name
    raise CannotGrade("no C compiler found", install_command(*packages))


@contextlib.contextmanager
def locked(path: Path, wait: str = "") -> Iterator[None]:
    """Holds the lock file `path`: only one process at a time builds what is next to it. `wait` is reported
    while another one holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if wait else 0))
        except BlockingIOError:
            print(wait, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def c_tool(name: str, sources: Path, for_lab_vm: bool = False) -> Path:
    """build/grader/NAME, recompiled if its sources (a .c file or a folder) are newer."""
    output = BUILD / (f"{name}-vm" if for_lab_vm and not is_x86_64() else name)
    files: list[Path] = sorted(sources.glob("*.[ch]")) if sources.is_dir() else [sources]
    try:
        with locked(BUILD / ".lock"):
            newest = max(file.stat().st_mtime for file in files)
            if not output.exists() or output.stat().st_mtime < newest:
                with Progress(f"building the grader's {name}") as progress:
                    progress.step()
                    _compile(compiler(for_lab_vm), [f for f in files if f.suffix == ".c"], output)
    except OSError as error:
        raise place.cause(error) or error
    return output


def _compile(cc: str, files: list[Path], output: Path) -> None:
    partial = output.with_name(output.name + ".partial")
    done = subprocess.run([cc, *FLAGS, "-o", str(partial), *map(str, files)],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotGrade(f"{cc} could not build the kit's {output.name}:\n{done.stderr}",
                          "report this: the kit's own source should compile")
    os.replace(partial, output)
