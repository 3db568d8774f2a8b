"""The Makefile at work on a stranger's files: in a jail, with the kit's own objects made before.

The results are programs, as bytes that this machine only stores: they are never read here, let alone run.
The lab VM gets each with the libraries of the kit's own program of that kind.
"""

from __future__ import annotations

import atexit
import functools
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from grader.course import BUILD, LABS, ROOT
from grader.execution.jail import Files, run_jailed
from grader.execution.labvm.pack import pack_like
from grader.execution.runs import CannotGrade, Ending, Result

JAILED = BUILD / "jailed"
# The kit's sources that a build reads.
SOURCES = ("Makefile", "common/**/*", "guests/guests.mk", "os-1k/**/*", "grader/labs/*.*", "build/abi.inc")
_LOST = (Ending.MACHINE, Ending.NOT_STARTED)   # no program's own doing


class JailedError(Exception):
    """It was not built: the compiler's words, for the learner."""


class Wanted(NamedTuple):
    """A program that make builds."""

    target: str
    variables: Mapping[str, str]
    twin: Path               # the kit's own, made with its solution

    def command(self) -> str:
        """Makes it, and leaves it in $RESULTS."""
        words = ["make", "-j2", self.target, *(f"{name}={value}" for name, value in self.variables.items())]
        return f'{shlex.join(words)} && cp {shlex.quote(str(self.twin.relative_to(ROOT)))} "$RESULTS"'


def jailed_make(lab: int, wanted: Sequence[Wanted], learner: Mapping[str, bytes],
                control: Mapping[str, bytes], cc: str) -> list[Path]:
    """Makes what the kit has made with its solution, all in one jail. `learner`: the strange files, by the
    names that the Makefile has for them; `control`: the solution's. Raises JailedError, and CannotGrade if
    the sources are not at fault: after a failure, the control must build here and now, and the strange files
    must fail once more, unless they took too much processor time. A build's messages don't count: the sources
    can write them."""
    command = " && ".join(one.command() for one in wanted)
    programs = [_own_folder() / one.twin.relative_to(ROOT) for one in wanted]
    made_of = (command, cc, *learner.items())
    if all(_made_of.get(program) == made_of for program in programs):
        return programs
    names = [program.name for program in programs]
    first = wanted[0]
    kit = _kit(lab, first.twin.parent, _shared_objects(first.variables.get("CC") or cc,
                                                       first.variables.get("SANITIZE", "")))

    def build(sources: Mapping[str, bytes]) -> Result:
        files = {**kit, **{name: (content, 0.0) for name, content in sources.items()}}
        result = run_jailed(command, files, {"CC": cc} if cc else {}, names)
        if result.ending in _LOST:
            raise _stopped(str(result))
        return result

    def built(result: Result) -> bool:
        return result.status == 0 and set(names) <= set(result.files)

    result = build(learner)
    if not built(result):
        checked = build(control)
        if not built(checked):
            raise _stopped("the solution does not build in it either: " + (
                _said(checked).strip().partition("\n")[0] or str(checked)))
        if result.ending is not Ending.PROCESSOR:   # that does not depend on the moment
            result = build(learner)
    if not built(result):
        if result.ending is not Ending.EXIT:
            raise JailedError(f"the compiler was stopped: {result}")
        said = re.sub(r"^make: .*\n?", "", _said(result), flags=re.M)
        raise JailedError(said.strip() or "the compiler made nothing")
    for program, one in zip(programs, wanted):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        program.write_bytes(result.files[program.name])
        program.chmod(0o755)
        pack_like(program, one.twin)
        _made_of[program] = made_of
    return programs


# The programs in _own_folder: with which command, compiler and files they were made.
_made_of: dict[Path, tuple[object, ...]] = {}


@functools.lru_cache(maxsize=None)
def _own_folder() -> Path:
    """This process's own, until it ends: several may grade at a time, and their programs have one name."""
    JAILED.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=JAILED)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


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
    units = Path("grader/labs") / folder / "units"
    paths += (ROOT / units).glob("*")
    paths += [path for path in (ROOT / "solutions").glob("*/*.o") if path.parent.name != folder]
    paths += [path for path in shared.rglob("*") if _is_object(path) and path.parent.name != folder
              and (path.parent.name != units.name or path.is_relative_to(shared / units))]
    # These names also stand for what was linked with the solution.
    paths += [path for path in built.rglob("*") if _is_object(path) and not re.match(
        rf"lab{lab}\b|sched\b|kernel.*-symbols", path.name)]
    return {str(path.relative_to(ROOT)): (path.read_bytes(), path.stat().st_mtime)
            for path in paths if path.is_file()}


def _is_object(path: Path) -> bool:
    """What make compares and links, not a program."""
    return path.suffix in (".o", ".sum") or path.name == "flags"
