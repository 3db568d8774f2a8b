"""Builds VMMs, unit programs and the 1K OS with the Makefile, and decides whose fault a failure is."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from grader.core.jailed_make import JailedError, Wanted, jailed_make
from grader.core.strange_files import read_headers, read_source
from grader.course import BUILD, LABS, ROOT
from grader.execution import place
from grader.execution.c_tools import locked
from grader.execution.progress import Progress
from grader.execution.runs import CannotGrade

# Exported by the `make grade SOLUTION=1 ...` that started us, but must not reach the make that we start.
# CC and SANITIZE pass through on purpose: `make grade CC=clang SANITIZE=thread`.
_NOT_INHERITED = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "LAB", "SOLUTION", "FROM",
                  "MODULE", "OUT", "SHARED", "UNIT", "GUESTS", "ARGS", "HOLD", "UNDER", "BACKEND", "T",
                  "SEED", "FORCE", "UNIT_WRAPS", "UNIT_SCRIPT", "SCHED", "SCHED_FLAGS", "SCHED_GIVES",
                  "OS_OUT", "PROGRAM_DIR")

# The functions that the graded unit programs replace, the VMM's and the C library's (grader/labs/unit.h).
UNIT_WRAPS = ("stage_before_entry", "vcpu_translate", "malloc", "calloc", "realloc")

# The linker script of such a program: see grader/labs/apart.h.
UNIT_SCRIPT = ROOT / "grader/labs/unit.ld"

# Compiled before a graded scheduler: a caller that inlines its context_switch.
SCHED_PROBE = LABS[6].grading / "units/inlined.h"
SCHED_FLAGS = f"-include {SCHED_PROBE.relative_to(ROOT)}"
SCHED_GIVES = "switch_pattern switch_inlined"


GET_PERSONALITY, ADDR_NO_RANDOMIZE = 0xffffffff, 0x0040000

# How make marks a line that names the file being built: see STEP in the Makefile.
STEP_MARK = ": "

# Targets in words.
_NAMES = {"vmm": "the VMM of lab {LAB}", "unit": "the unit tests of lab {LAB}: {UNIT}",
          "guests": "the guests", "kernel": "the kernel of the 1K OS", "archive": "the programs of the 1K OS",
          "kernel-unit": "the unit tests of the scheduler"}


_jailed = False
NO_SANITIZERS = ("another's module is graded without sanitizers, with which it could have code that runs "
                 "before the tests: leave out SANITIZE")


def use_jail() -> None:
    """From now on a learner's files are compiled and linked in a jail: they are a stranger's."""
    global _jailed
    _jailed = True


class BuildError(Exception):
    """A failed build. `learner`: the learner's module is the cause; `program`: this program of the 1K OS is,
    which may be the learner's own; else the kit is."""

    def __init__(self, text: str, learner: bool, program: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.learner = learner
        self.program = program


def build_vmm(lab: int, *, solution: bool = False, source: str = "", module: Path | None = None,
              sanitize: str = "", cc: str = "", out: Path | None = None) -> Path:
    """The VMM of `lab`, ready to run. `source` selects the earlier labs whose modules are the learner's: all
    for "mine", labs 1 and 2 for "1,2". `module` replaces the lab's own file; `sanitize` and `cc` default to
    the environment's SANITIZE and CC, then to none and gcc. Raises BuildError, or CannotGrade if the machine
    is at fault."""
    _check_sources(lab, solution, source, module)
    variables = _variables(lab, solution, source, module, sanitize, cc, out)
    return _make_file("vmm", variables, _learner_targets(lab, solution, source, module, "vmm"))


def build_unit(lab: int, unit: Path, *, solution: bool = False, source: str = "",
               module: Path | None = None, sanitize: str = "", cc: str = "",
               out: Path | None = None) -> Path:
    """The Check program `unit`, linked with the VMM's objects of `lab`."""
    _check_sources(lab, solution, source, module)
    variables = _variables(lab, solution, source, module, sanitize, cc, out)
    variables.update(unit_variables(lab, unit))
    targets = _learner_targets(lab, solution, source, module, f"unit-{unit.stem}")
    return _make_file("unit", variables, targets)


def unit_variables(lab: int, unit: Path) -> dict[str, str]:
    """What make needs for a Check program; a graded one is linked in a way of its own."""
    if unit != LABS[lab].unit(unit.stem):
        return {"UNIT": _relative(unit)}
    wraps = [*UNIT_WRAPS, *_module_functions(unit.read_text())]
    return {"UNIT": _relative(unit), "UNIT_WRAPS": " ".join(wraps), "UNIT_SCRIPT": _relative(UNIT_SCRIPT)}


def _module_functions(unit: str) -> list[str]:
    """The module's functions that a unit program calls in the module's own process: grader/labs/apart.h."""
    return re.findall(r"^MODULE(?:_VOID\(|\([^,(]+,)\s*(\w+),", unit, re.M)


def build_guests() -> Path:
    """The folder of the reference guests' images, assembled with their default values."""
    _make("guests", {}, set())
    return BUILD / "guests"


def build_os(sched: Path | None = None, *, out: Path | None = None) -> tuple[Path, Path]:
    """The kernel and the archive of the 1K OS; `sched` replaces the solution's scheduler. With `out`, a
    folder of the grader's own, it is built for grading."""
    variables = _graded_kernel(sched, out) if out else _scheduler(sched)
    return (_make_file("kernel", variables, _kernel_targets("kernel") if sched else set()),
            _make_file("archive", variables, set()))


def build_os_archive(programs: Path, out: Path) -> Path:
    """An archive for the 1K OS with the programs of another folder."""
    return _make_file("archive", {"PROGRAM_DIR": _relative(programs), "OS_OUT": _relative(out)}, set())


def build_kernel_unit(sched: Path | None, *, out: Path) -> Path:
    """The kernel with the unit tests of a scheduler: units/sched.c."""
    variables = {**_graded_kernel(sched, out), "KERNEL_UNIT": _relative(LABS[6].unit("sched"))}
    return _make_file("kernel-unit", variables, _kernel_targets("kernel-unit") if sched else set())


def _scheduler(sched: Path | None) -> dict[str, str]:
    if not sched:
        return {}
    _check_learner_file(sched)
    return {"SCHED": _relative(sched)}


def _graded_kernel(sched: Path | None, out: Path) -> dict[str, str]:
    return {**_scheduler(sched), "OS_OUT": _relative(out), "SCHED_FLAGS": SCHED_FLAGS,
            "SCHED_GIVES": SCHED_GIVES}


def build_path(path: str) -> Path:
    """A file that the Makefile has a rule for."""
    _make(path, {}, set())
    return ROOT / path


def clean_environment() -> dict[str, str]:
    """The environment without the variables of the make that started us."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def make_text(target: str, variables: dict[str, str]) -> str:
    """The complete output of a build, to check for warnings."""
    return _make(target, variables, set())


def _check_sources(lab: int, solution: bool, source: str, module: Path | None) -> None:
    """Checks the files that a VMM is built from. Each may be an object file instead."""
    labs = set() if solution else {*learner_labs(source, lab)}
    mine = [path for number in sorted(labs) for path in LABS[number].learner_modules()]
    if module or not solution:
        mine += [module] if module else LABS[lab].learner_modules()
        labs.add(lab)
    for path in mine:
        _check_learner_file(path)
    for number in {*range(1, lab + 1)} - labs:
        for path in LABS[number].solution_files():
            if not (path.exists() or path.with_suffix(".o").exists()):
                raise CannotGrade(f"{_relative(path)} is not here, nor its object",
                                  "take your own files of earlier labs (FROM=mine), or ask your instructor")


def _check_learner_file(path: Path) -> None:
    """Like check_source, but an object file may replace the source."""
    if path.exists() or not path.with_suffix(".o").exists():
        check_source(path)


def _variables(lab: int, solution: bool, source: str, module: Path | None, sanitize: str, cc: str,
               out: Path | None) -> dict[str, str]:
    variables = {"LAB": str(lab)}
    if solution:
        variables["SOLUTION"] = "1"
    if source:
        variables["FROM"] = source
    if module:
        variables["MODULE"] = _relative(module)
    if sanitize:
        variables["SANITIZE"] = sanitize
    if cc:
        variables["CC"] = cc
    if out:
        variables["OUT"] = _relative(out)
    return variables


def _fix_addresses() -> None:
    """From now on this thread's processes have no random addresses, as in the lab VM: personality(2). Where
    addresses have more than 28 random bits (vm.mmap_rnd_bits), programs with the thread sanitizer of an older
    compiler (GCC 12, clang 14) don't start. A container may forbid the call; then nothing changes."""
    libc = ctypes.CDLL(None)
    now = libc.personality(ctypes.c_ulong(GET_PERSONALITY))
    if now >= 0:
        libc.personality(ctypes.c_ulong(now | ADDR_NO_RANDOMIZE))


def _relative(path: Path) -> str:
    """The path for make, relative if it is in the kit."""
    path = path.absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _learner_targets(lab: int, solution: bool, source: str, module: Path | None,
                     program: str) -> set[str]:
    """The targets whose failure is the learner's fault: their objects and the program."""
    if solution and not module:
        return set()
    labs = [lab] if solution else [*learner_labs(source, lab), lab]
    parts = {_part(number, name) for number in labs for name in LABS[number].modules()}
    return {name for number in labs for name in _objects(f"lab{number}")} | parts | {program}


def _kernel_targets(kernel: str) -> set[str]:
    """The same for a kernel with the learner's scheduler."""
    return {*_objects("sched"), f"{kernel}-nameless.elf", f"{kernel}.elf"}


def _part(lab: int, name: str) -> str:
    """The object that the Makefile makes from one of a module's files."""
    return f"lab{lab}-{Path(name).stem}.o"


def _objects(module: str) -> tuple[str, str]:
    """The two objects that the Makefile builds from a module's files, the second from the first."""
    return f"{module}-whole.o", f"{module}.o"


def learner_source(text: str) -> str:
    """The value of FROM=, checked. Raises ValueError."""
    learner_labs(text, 0)
    return text


def learner_labs(source: str, lab: int) -> list[int]:
    """The labs before `lab` whose modules are the learner's. Raises ValueError."""
    numbers = range(1, lab) if source == "mine" else [int(word) for word in source.split(",") if word]
    return [number for number in numbers if number < lab]


def _make_file(target: str, variables: dict[str, str], learner_targets: set[str]) -> Path:
    """Builds a target that prints its file's path last; what it is, this thread can execute."""
    if "thread" in variables.get("SANITIZE", os.environ.get("SANITIZE", "")):
        _fix_addresses()
    if _jailed and learner_targets:
        return _make_in_jail(target, variables)
    return ROOT / _make(target, variables, learner_targets).splitlines()[-1]


def _make_in_jail(target: str, variables: dict[str, str]) -> Path:
    """The same for a stranger's files, together with all else that is graded of them. The kit's own part is
    made first, here, with the solution."""
    kernel = "OS_OUT" in variables
    lab = LABS[6 if kernel else int(variables["LAB"])]
    given = variables.pop("SCHED" if kernel else "MODULE", "")
    asked = (target, variables)
    family = _kernels(variables) if kernel else _vmm_and_units(variables)
    family += [] if asked in family else [asked]
    wanted = []
    for name, values in family:
        twin = _make_file(name, values if kernel else {**values, "SOLUTION": "1"}, set())
        own = {"SCHED": f"labs/{lab.folder}/{lab.kernel}"} if kernel else {"OUT": _relative(twin.parent)}
        wanted.append(Wanted(name, {**values, **own}, twin))
    built = wanted[0].twin.parent
    strange: dict[str, bytes] = {}
    objects = {f"labs/{lab.folder}/{lab.kernel}": _relative(built / "kernel/sched-whole.o")} if kernel else {}
    for number in [] if kernel else [*learner_labs(variables.get("FROM", ""), lab.number), lab.number]:
        for path in LABS[number].learner_modules():
            objects[_relative(path)] = _relative(built / _part(number, path.name))
            if number != lab.number:
                strange.update(_with_headers(path))
    control = dict(strange)
    names = [lab.kernel] if kernel else lab.modules()
    for name in names:
        learner, solution = ROOT / "labs" / lab.folder / name, ROOT / "solutions" / lab.folder / name
        if solution.exists():
            control[_relative(learner)] = solution.read_bytes()
        else:   # in a release
            control[_relative(learner.with_suffix(".o"))] = solution.with_suffix(".o").read_bytes()
        if not given:
            strange.update(_with_headers(learner))
        elif len(names) == 1 or Path(given).stem == learner.stem:
            strange.update(_with_headers(ROOT / given, _relative(learner)))
        else:   # the solution answers the lab's other exercises, but its source is not for strangers
            strange[_relative(learner.with_suffix(".o"))] = (built / _part(lab.number, name)).read_bytes()
    try:
        programs = jailed_make(lab.number, wanted, strange, control, objects,
                               clean_environment().get("CC", ""))
    except JailedError as error:
        raise BuildError(str(error), learner=True) from error
    return programs[family.index(asked)]


def _vmm_and_units(variables: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The VMM and the graded unit programs of a lab: their targets and variables."""
    rest = {name: value for name, value in variables.items() if not name.startswith("UNIT")}
    lab = LABS[int(rest["LAB"])]
    units = [lab.unit(Path(name).stem) for name in lab.modules()]
    return [("vmm", rest), *(("unit", {**rest, **unit_variables(lab.number, unit)}) for unit in units)]


def _kernels(variables: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The same for a scheduler: the kernel, and the one with the unit tests."""
    rest = {name: value for name, value in variables.items() if name != "KERNEL_UNIT"}
    return [("kernel", rest), ("kernel-unit", {**rest, "KERNEL_UNIT": _relative(LABS[6].unit("sched"))})]


def _with_headers(source: Path, name: str = "") -> dict[str, bytes]:
    """A stranger's file and the headers beside it, by the names that they have in the jail."""
    name = name or _relative(source)
    return {name: read_source(source), **{f"{os.path.dirname(name)}/{header}": content
                                          for header, content in read_headers(source.parent).items()}}


def _make(target: str, variables: dict[str, str], learner_targets: set[str]) -> str:
    """Runs make; returns its output and the compiler's, standard error first."""
    environment = {**clean_environment(), "LC_ALL": "C"}
    _check_compiler(variables.get("CC") or environment.get("CC") or "")
    words = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", f"-j{os.cpu_count() or 1}", target, *words]
    try:
        with locked(_lock(target, variables)):
            with Progress(f"building {_in_words(target, variables)}") as progress:
                status, output, errors = _run_make([*command, "PROGRESS=1"], environment, progress)
    except OSError as error:
        raise place.cause(error) or error
    if status == 0:
        if learner_targets and target in ("vmm", "kernel"):      # the compiler's warnings about that file
            print(re.sub(r"^make: .*\n?", "", errors, flags=re.M), end="", file=sys.stderr, flush=True)
        return errors + output
    stopped = place.stopped(errors)
    fault = place.fault() if stopped or _MACHINES_WORDS.search(errors) else None
    if fault or stopped:
        raise fault or CannotGrade(f"this machine stopped a build: {stopped}",
                                   "free space in TMPDIR (/tmp) and build/, allow large files (ulimit -f "
                                   "unlimited), end other programs; if the compiler crashes, try another CC=")
    failed = re.findall(r"^make: \*\*\* \[\S+: (\S+)\] Error", errors, re.M)
    text = re.sub(r"^make: .*\n?", "", errors, flags=re.M).strip() or errors.strip()
    folder = variables.get("PROGRAM_DIR", "os-1k/user")
    programs = [f"{folder}/{Path(path).stem}.c" for path in failed if Path(path).parent.name == "user"]
    raise BuildError(text, bool(failed) and all(Path(path).name in learner_targets for path in failed),
                     programs[0] if programs and len(programs) == len(failed) else "")


def _in_words(target: str, variables: Mapping[str, str]) -> str:
    words = _NAMES.get(target, target)
    return words.format(**{**variables, "UNIT": Path(variables.get("UNIT", "")).name})


def _lock(target: str, variables: Mapping[str, str]) -> Path:
    """One for all builds that write to the same folder."""
    if target in ("kernel", "kernel-unit", "archive"):
        folder = variables.get("OS_OUT", "os-1k")
    else:   # as VARIANT in common/vmm.mk
        names = ("LAB", "SOLUTION", "FROM", "MODULE", "CC", "SANITIZE")
        chosen = [f"{name}={variables[name]}" for name in names if name in variables]
        folder = variables.get("OUT") or "-".join(chosen) or target
    return BUILD / "locks" / re.sub(r"[^\w.=+-]", "_", folder)[-200:]


def _run_make(command: list[str], environment: dict[str, str], progress: Progress) -> tuple[int, str, str]:
    """Runs make with PROGRESS=1; returns its status and output, without the progress lines."""
    output = ""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace")
        assert process.stdout
        try:
            for line in process.stdout:
                if line.startswith(STEP_MARK):
                    progress.step(line[len(STEP_MARK):].strip())
                else:
                    output += line
        except BaseException:
            process.terminate()  # make ends its compilers and removes their incomplete files
            raise
        finally:
            process.wait()
            process.stdout.close()
        errors.seek(0)
        return process.returncode, output, errors.read()


# Build errors that are the machine's fault.
_MACHINES_WORDS = re.compile("Permission denied|Read-only file system|No space left|quota exceeded|"
                             "No locks available|Cannot allocate memory")


def _check_compiler(cc: str) -> None:
    """Checks CC, which may be several words: a wrapper, a compiler, its options."""
    program = cc.split()[0] if cc.split() else ""
    if program and not shutil.which(program):
        raise CannotGrade(f"CC={cc}: {program} is not installed",
                          "name an installed compiler, or omit CC")


def check_source(path: Path) -> None:
    """Raises BuildError if a learner's file is missing or is not text that a compiler could read."""
    name = _relative(path)
    if not path.is_file():
        alike = [other.name for other in path.parent.glob("*") if other.name.lower() == path.name.lower()]
        raise BuildError(f"{name} is missing" + (f"; rename {alike[0]}" if alike else ""), True)
    content = read_source(path) if _jailed else path.read_bytes()
    if path.suffix != ".o" and b"\0" in content:
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise BuildError(f"{name} is {'UTF-16' if utf_16 else 'not text'}: save it as UTF-8", True)
