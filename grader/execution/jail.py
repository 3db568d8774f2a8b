"""A jail for compilers: even compiling and linking an untrusted file can do harm.

`#include` and `.incbin` can read any file, options of the linker's plugins can write any file, and a few
macros can use up all memory. So each command runs under the runner's limits, can read only the toolchain and
the files that it is given, and returns only the bytes of the files that are asked for. The jail consists of
namespaces on this machine (jail.sh), or, where those are forbidden, of a lab VM that is discarded afterwards.
"""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from grader.execution.backends.kvm import HostWorker
from grader.execution.labvm.confine import own_user, rooted
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import Limits, Result, Run, plain_environment
from grader.execution.toolchain import toolchain_files
from grader.execution.worker import Worker, run_all

# The wall-clock limits are a last resort. What a build may use is processor time, of all its processes: on a
# loaded machine it gets that later, but not less of it. A solution's build needs about a tenth.
LIMITS = Limits(wall=900, no_output=900, spin=0, processor=30, output=1 << 20, memory=1 << 30, processes=64,
                file=16 << 20)
VM_LIMITS = Limits(wall=900, no_output=900, spin=0, processor=120, output=1 << 20, memory=1 << 29,
                   processes=64, file=64 << 20)
ENTER = ("unshare", "--user", "--map-root-user", "--mount")
# Only the scratch folder can be written there: make needs a file for its jobs, from version 4.4 on.
IN_VM = 'export TMPDIR="$PWD"; mkdir kit && tar -x -C kit && cd kit && exec sh -c "$1"'

Files = Mapping[str, tuple[bytes, float]]      # content and time of change, by name


def run_jailed(command: str, files: Files, env: Mapping[str, str], results: Sequence[str] = ()) -> Result:
    """Runs a shell command in a folder with these files. Result.files has those `results`, by name, that it
    left in $RESULTS."""
    stdin = _packed(files)
    env = {**plain_environment(), **env}
    if namespaces_work():
        return _in_namespaces(command, stdin, env, results)
    run = Run(("sh", "-ec", IN_VM, "jail", command), stdin=stdin, limits=VM_LIMITS, outputs=tuple(results),
              env={**env, "RESULTS": ".."}, files=toolchain_files(env.get("CC", "gcc")))
    return run_all(VmWorker, [run], 1, None)[0]


@functools.lru_cache(maxsize=None)
def namespaces_work() -> bool:
    """Whether this machine can build a jail from namespaces."""
    result = _in_namespaces('echo closed > "$RESULTS/word"', _packed({}), plain_environment(), ["word"])
    return result.files.get("word") == b"closed\n"


def _in_namespaces(command: str, stdin: bytes, env: Mapping[str, str], results: Sequence[str]) -> Result:
    run = Run((*ENTER, "sh", "-ec", rooted("jail.sh"), "jail", command, *results), stdin=stdin, limits=LIMITS,
              outputs=tuple(results), env={**env, "RESULTS": "/out"})
    return run_all(_host, [run], 1, None)[0]


def _host() -> Worker:
    return HostWorker(own_user())


def _packed(files: Files) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (content, changed) in files.items():
            entry: Any = tarfile.TarInfo(name)  # whose mtime is a whole number by its types
            entry.size, entry.mode, entry.mtime = len(content), 0o644, changed
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
