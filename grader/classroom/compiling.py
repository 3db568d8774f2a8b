"""Compiling a stranger's file, which can do harm already: `#include "/etc/shadow"` shows it in the errors,
`.incbin` takes any file along, a few macros make the compiler eat all memory.

So the compiler runs under the runner's limits, as nobody where we are root, and in a jail where it sees
nothing but /usr and the kit's headers. What comes out is an object; that one is never executed here.
"""

from __future__ import annotations

import functools
import io
import os
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from grader.execution.worker import Worker, run_all
from grader.execution.backends.kvm import HostWorker
from grader.core.building import SCHED_FLAGS, SCHED_PROBE, make_text
from grader.course import LABS, ROOT
from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run

NOBODY = 65534
LIMITS = Limits(wall=40, quiet=40, spin=0, output=1 << 20, memory=1 << 30, processes=32, file=16 << 20)
HEADERS = ("common/contract", "os-1k/lib", "os-1k/kernel")
OBJECT = "module.o"
NOTHING = b"int nothing;\n"
# Without a jail, for throw-away containers that forbid one: the same place for what comes out.
NO_JAIL = 'mkdir kit && tar -x -C kit && cd kit && eval "$1"'


class CompileError(Exception):
    """The file does not compile; the text is the compiler's, for its learner."""


def compile_file(lab: int, name: str, content: bytes, jail: bool = True,
                 headers: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """The object of a lab's file `name`, with the learner's own headers beside it. Raises CompileError."""
    folder = f"labs/{LABS[lab].folder}"
    place = f"{folder}/{name}"
    command = [*_compiler(lab, LABS[lab].files.index(name)), "-c", place, "-o", f"../{OBJECT}"]
    beside = {f"{folder}/{header}": text for header, text in headers.items()}
    result = _execute(command, {**beside, place: content}, jail)
    made = result.files.get(OBJECT, b"")
    if result.ending is Ending.EXIT and result.code == 0 and made:
        return made
    said = result.stderr.decode("utf-8", "replace").strip()
    if result.ending is Ending.EXIT:
        if jail:
            check_jail()
        raise CompileError(said or "the compiler made no object")
    raise CompileError(f"the compiler was stopped: {result}\n{said[:4000]}")


@functools.lru_cache(maxsize=None)
def check_jail() -> None:
    """Raises CannotGrade where this machine can't jail a compiler."""
    command = [*_compiler(1, 0), "-c", "nothing.c", "-o", f"../{OBJECT}"]
    result = _execute(command, {"nothing.c": NOTHING}, True)
    if not result.files.get(OBJECT):
        said = result.stderr.decode("utf-8", "replace").strip() or str(result)
        raise CannotGrade(f"submissions can't be compiled safely here: {said}",
                          "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), install "
                          "util-linux and gcc below /usr; a container needs --cap-add SYS_ADMIN")


@functools.lru_cache(maxsize=None)
def _compiler(lab: int, which: int) -> tuple[str, ...]:
    """The words that compile a lab's first or, for the kernel, second file."""
    if which:
        text = make_text("os-flags", {"LAB": str(lab), "SCHED_FLAGS": SCHED_FLAGS})
    else:
        text = make_text("vmm-flags", {"LAB": str(lab)})
    return (*text.split(), "-Wno-unused")


@functools.lru_cache(maxsize=None)
def _headers() -> dict[str, bytes]:
    paths = [path for folder in HEADERS for path in sorted((ROOT / folder).glob("*.h"))]
    return {str(path.relative_to(ROOT)): path.read_bytes() for path in [*paths, SCHED_PROBE]}


def _execute(command: list[str], files: dict[str, bytes], jailed: bool) -> Result:
    """Runs a command where the kit's headers and these files are, in a jail or not."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in {**_headers(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    script = (Path(__file__).parent / "jail.sh").read_text() if jailed else NO_JAIL
    enter = ("unshare", "--user", "--map-root-user", "--mount") if jailed else ()
    argv = (*enter, "sh", "-ec", script, "jail", shlex.join(command))
    run = Run(argv, stdin=packed.getvalue(), limits=LIMITS, outputs=(OBJECT,))

    def start(_after_death: bool) -> Worker:
        return HostWorker(NOBODY if os.geteuid() == 0 else 0)
    return run_all(start, [run], 1, None)[0]
