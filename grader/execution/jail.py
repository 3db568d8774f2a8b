"""A jail for compilers: where a stranger's file is compiled and linked, which can do harm already.

`#include` and `.incbin` take any file along, options of the linker's plugins write any file, a few macros eat
all memory. So one command runs under the runner's limits where it can read nothing but the toolchain and what
it is given, and leaves nothing but one file's bytes. That is a namespace of its own on this machine
(jail.sh), or, where those are forbidden, a lab VM that is thrown away.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from grader.execution.backends.kvm import HostWorker
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import Limits, Result, Run, plain_environment
from grader.execution.toolchain import toolchain_files
from grader.execution.worker import Worker, run_all

NOBODY = 65534
# Time by the clock is for what went wrong; a compiler is held to processor time, which a loaded machine gives
# later, but not less of.
LIMITS = Limits(wall=900, no_output=900, spin=0, output=1 << 20, memory=1 << 30, processes=64, file=16 << 20)
VM_LIMITS = Limits(wall=900, no_output=900, spin=0, output=1 << 20, memory=1 << 29, processes=64,
                   file=16 << 20)
CPU_SECONDS, VM_CPU_SECONDS = 60, 300      # for each process
ENTER = ("unshare", "--user", "--map-root-user", "--mount")
IN_VM = 'mkdir kit && tar -x -C kit && cd kit && exec sh -c "$1"'
RESULT = "result"

Files = Mapping[str, tuple[bytes, float]]      # content and time of change, by name


def run_jailed(command: str, files: Files, env: Mapping[str, str]) -> Result:
    """Runs a shell's command in a folder with these files. Result.files has what it wrote to $RESULT. A
    process that takes too much processor time gets SIGXCPU."""
    stdin = _packed(files)
    env = {**plain_environment(), **env}
    if namespaces_work():
        return _in_namespaces(f"ulimit -S -t {CPU_SECONDS}; {command}", stdin, env)
    command = f"ulimit -S -t {VM_CPU_SECONDS}; {command}"
    run = Run(("sh", "-ec", IN_VM, "jail", command), stdin=stdin, limits=VM_LIMITS, outputs=(RESULT,),
              env={**env, "RESULT": "../result"}, files=toolchain_files(env.get("CC", "gcc")))
    return run_all(lambda after_death: VmWorker(after_death), [run], 1, None)[0]


@functools.lru_cache(maxsize=None)
def namespaces_work() -> bool:
    """Whether this machine can close a jail with namespaces."""
    result = _in_namespaces('echo closed > "$RESULT"', _packed({}), plain_environment())
    return result.files.get(RESULT) == b"closed\n"


def _in_namespaces(command: str, stdin: bytes, env: Mapping[str, str]) -> Result:
    script = Path(__file__).with_name("jail.sh").read_text()
    run = Run((*ENTER, "sh", "-ec", script, "jail", command), stdin=stdin, limits=LIMITS, outputs=(RESULT,),
              env={**env, "RESULT": "/out/result"})
    return run_all(_host, [run], 1, None)[0]


def _host(_after_death: bool) -> Worker:
    return HostWorker(NOBODY if os.geteuid() == 0 else 0)


def _packed(files: Files) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (content, changed) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, changed  # type: ignore[assignment]
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
