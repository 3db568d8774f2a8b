"""The Makefile at work on a stranger's files, in two jails. In the first one they are compiled, beside the
headers that they may include and nothing else: `#include` and `.incbin` can take in whatever is there. In the
second one the objects are linked with the kit's own, made before.

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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from grader.course import BUILD, LABS, ROOT
from grader.execution.jail import Files, run_jailed
from grader.execution.labvm.pack import pack_like
from grader.execution.runs import CannotGrade, Ending, Result

JAILED = BUILD / "jailed"
# What a stranger's file is compiled with.
HEADERS = ("Makefile", "common/vmm.mk", "guests/guests.mk", "os-1k/os.mk", "common/**/*.h", "os-1k/**/*.h",
           "grader/labs/*/units/inlined.h")
# The kit's sources that the rest of a build reads.
SOURCES = ("Makefile", "common/**/*", "guests/guests.mk", "os-1k/**/*", "grader/labs/*.*", "build/abi.inc")
ELF = b"\x7fELF"
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
        return _made([self.target], self.variables, [str(self.twin.relative_to(ROOT))])


def _made(targets: Sequence[str], variables: Mapping[str, str], results: Sequence[str]) -> str:
    words = ["make", "-j2", *targets, *(f"{name}={value}" for name, value in variables.items())]
    return f'{shlex.join(words)} && cp {shlex.join(results)} "$RESULTS"'


def jailed_make(lab: int, wanted: Sequence[Wanted], learner: Mapping[str, bytes],
                control: Mapping[str, bytes], objects: Mapping[str, str], cc: str) -> list[Path]:
    """Makes what the kit has made with its solution. `learner`: the strange files, by the names that the
    Makefile has for them; `control`: the solution's; `objects`: what the Makefile compiles each source to.
    Raises JailedError, and CannotGrade if the sources are not at fault: after a failure, the control must
    build here and now, and the strange files must fail once more, unless they took too much processor time. A
    build's messages don't count: the sources can write them."""
    command = " && ".join(one.command() for one in wanted)
    programs = [_own_folder() / one.twin.relative_to(ROOT) for one in wanted]
    made_of = (command, cc, *learner.items())
    if all(_made_of.get(program) == made_of for program in programs):
        return programs
    names = [program.name for program in programs]
    first = wanted[0]
    kit = _kit(lab, first.twin.parent, _shared_objects(first.variables.get("CC") or cc,
                                                       first.variables.get("SANITIZE", "")))

    def run(text: str, kits: Files, given: Mapping[str, bytes], results: Sequence[str]) -> Result:
        files = {**kits, **{name: (content, 0.0) for name, content in given.items()}}
        result = run_jailed(text, files, {"CC": cc} if cc else {}, results)
        if result.ending in _LOST:
            raise _stopped(str(result))
        return result

    def build(sources: Mapping[str, bytes]) -> Result:
        parts = {name: objects[name] for name in sources if name in objects}
        linked = {name: content for name, content in sources.items() if name.endswith(".o")}
        if parts:
            result = run(_made([*parts.values()], first.variables, [*parts.values()]), _files(HEADERS),
                         {name: content for name, content in sources.items() if name not in linked},
                         [Path(part).name for part in parts.values()])
            for name, part in parts.items():
                content = result.files.get(Path(part).name, b"")
                if result.status != 0 or not content.startswith(ELF):   # the linker takes a text for a script
                    return result
                linked[str(Path(name).with_suffix(".o"))] = content
        return run(command, kit, linked, names)

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
    """The kit without this lab's solution and those of later ones, sources or objects, and without what was
    linked with them."""
    hidden = {LABS[number].folder for number in LABS if number >= lab}
    units = Path("grader/labs") / LABS[lab].folder / "units"
    paths = [*(ROOT / units).glob("*")]
    paths += [path for path in (ROOT / "solutions").glob("*/*.o") if path.parent.name not in hidden]
    paths += [path for path in shared.rglob("*") if _is_object(path) and path.parent.name not in hidden
              and (path.parent.name != units.name or path.is_relative_to(shared / units))]
    # These names also stand for what was linked with the solution.
    paths += [path for path in built.rglob("*") if _is_object(path) and not re.match(
        rf"lab{lab}\b|sched\b|kernel.*-symbols", path.name)]
    return {**_files(SOURCES), **_contents(paths)}


def _files(patterns: Sequence[str]) -> Files:
    return _contents(path for pattern in patterns for path in ROOT.glob(pattern))


def _contents(paths: Iterable[Path]) -> Files:
    return {str(path.relative_to(ROOT)): (path.read_bytes(), path.stat().st_mtime)
            for path in paths if path.is_file()}


def _is_object(path: Path) -> bool:
    """What make compares and links, not a program."""
    return path.suffix in (".o", ".sum") or path.name == "flags"
