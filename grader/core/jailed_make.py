"""The Makefile at work on a stranger's files: in a jail, with the kit's own objects made before.

The result is one program, as bytes that this machine only stores: it is never read here, let alone run.
The lab VM gets it with the libraries of the kit's own program of that kind.
"""

from __future__ import annotations

import atexit
import functools
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from grader.course import BUILD, LABS, ROOT
from grader.execution.jail import RESULT, Files, run_jailed
from grader.execution.labvm.pack import pack_like
from grader.execution.runs import CannotGrade, Ending, Result

JAILED = BUILD / "jailed"
# The kit's sources that a build reads.
SOURCES = ("Makefile", "common/**/*", "guests/guests.mk", "os-1k/**/*", "grader/labs/*.*", "build/abi.inc")
# No program's own doing; and those of a compiler that was given too little of a processor.
_LOST = (Ending.MACHINE, Ending.NOT_STARTED, Ending.TIMEOUT, Ending.NO_OUTPUT)


class JailedError(Exception):
    """It was not built: the compiler's words, for the learner."""


def jailed_make(lab: int, target: str, variables: Mapping[str, str], twin: Path,
                learner: Mapping[str, bytes], control: Mapping[str, bytes], cc: str) -> Path:
    """Makes what the kit has made as `twin` with its solution. `learner`: the strange files, by the names
    that the Makefile has for them; `control`: the solution's. Raises JailedError, and CannotGrade if the
    sources are not at fault: after a failure, the control must build here and now, and the strange files
    must fail once more. A build's messages don't count: the sources can write them."""
    place = str(twin.relative_to(ROOT))
    words = ["make", "-j2", target, *(f"{name}={value}" for name, value in variables.items())]
    command = f'{shlex.join(words)} && cp {shlex.quote(place)} "$RESULT"'
    kit = _kit(lab, twin.parent, _shared_objects(variables.get("CC") or cc, variables.get("SANITIZE", "")))

    def build(sources: Mapping[str, bytes]) -> Result:
        files = {**kit, **{name: (content, 0.0) for name, content in sources.items()}}
        result = run_jailed(command, files, {"CC": cc} if cc else {})
        if result.ending in _LOST:
            raise _stopped(str(result))
        return result

    result = build(learner)
    if not _built(result):
        checked = build(control)
        if not _built(checked):
            raise _stopped("the solution does not build in it either: " + (
                _said(checked).strip().partition("\n")[0] or str(checked)))
        result = build(learner)
    if not _built(result):
        if result.ending is not Ending.EXIT:
            raise JailedError(f"the compiler was stopped: {result}")
        said = re.sub(r"^make: .*\n?", "", _said(result), flags=re.M)
        raise JailedError(said.strip() or "the compiler made nothing")
    program = _own_folder() / place
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.write_bytes(result.files[RESULT])
    program.chmod(0o755)
    pack_like(program, twin)
    return program


@functools.lru_cache(maxsize=None)
def _own_folder() -> Path:
    """This process's own, until it ends: several may grade at a time, and their programs have one name."""
    JAILED.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=JAILED)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _built(result: Result) -> bool:
    return result.status == 0 and RESULT in result.files


def _said(result: Result) -> str:
    return result.stderr.decode("utf-8", "replace")


def _stopped(how: str) -> CannotGrade:
    return CannotGrade(f"a build in the jail was stopped by this machine: {how}",
                       "end other programs, or grade with fewer JOBS; if a compiler crashes: another CC")


def _shared_objects(cc: str, sanitize: str) -> Path:
    """The folder of what this compiler and these sanitizers have made for all labs: SHARED of
    common/vmm.mk. Without it the jail compiles the same once more."""
    name = re.sub("[ /]", "_", (cc or "gcc").strip()) + (f"-{sanitize.replace(',', '+')}" if sanitize else "")
    return BUILD / "objects" / name


def _kit(lab: int, built: Path, shared: Path) -> Files:
    """The kit without this lab's solution, sources or objects, and without what was linked with it."""
    folder = LABS[lab].folder
    paths = [path for pattern in SOURCES for path in ROOT.glob(pattern)]
    paths += (ROOT / "grader/labs" / folder / "units").glob("*")
    paths += [path for path in (ROOT / "solutions").glob("*/*.o") if path.parent.name != folder]
    paths += [path for path in shared.rglob("*") if path.parent.name != folder and _is_object(path)]
    # These names also stand for what was linked with the solution.
    paths += [path for path in built.rglob("*") if _is_object(path) and not re.match(
        rf"lab{lab}\b|sched\b|kernel.*-symbols", path.name)]
    return {str(path.relative_to(ROOT)): (path.read_bytes(), path.stat().st_mtime)
            for path in paths if path.is_file()}


def _is_object(path: Path) -> bool:
    """What make compares and links, not a program."""
    return path.suffix in (".o", ".sum") or path.name == "flags"
