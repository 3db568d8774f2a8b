"""Grades one lab: builds it, collects the tests' runs, executes them, and judges the results."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Union

from grader.execution.backends import Backend
from grader.execution.budget import Account, Budget
from grader.execution.labvm.pack import twin_of
from grader.execution.worker import OnResult
from grader.core.building import BuildError, build_kernel_unit, build_os, build_unit, build_vmm
from grader.execution.progress import counting
from grader.course import BUILD, LABS, ROOT
from grader.core.exercises import exercises
from grader.core.framework import Lab, Test
from grader.core.guests import write_constants
from grader.core.judge import Kind, Verdict, judge
from grader.core.expectations import Mismatch
from grader.core.plan import Plan, Planned, Programs
from grader.core.readable import errors_first, printable
from grader.execution.runs import CannotGrade, Ending, Result, Run

JOBS_MAX = 4
PATH_MAX = 4096

LOADED = 1.5          # runnable programs per processor from which the machine counts as loaded
PATIENCE = 2          # factor of the time limits in a second try
IN_VAIN_MAX = 2
# On a loaded machine these may be caused by lack of time; a DEADLOCK never is. CPU time in the lab VM also
# counts time in which its host does other things.
_HUNG = (Ending.TIMEOUT, Ending.NO_OUTPUT, Ending.SPIN)

Pick = Callable[[Sequence[str]], Backend]      # picks the back end for kinds of guest


@dataclass(frozen=True)
class Choice:
    """What to grade: whose code, how to build it, with which values, and which tests."""

    seed: int
    wanted: str = ""                 # an exercise or a test's id; empty: all tests
    solution: bool = False
    source: str = ""                 # earlier labs whose modules are the learner's: "mine", or "1,2"
    module: Path | None = None
    sanitize: str = ""
    cc: str = ""
    backend: str = "auto"
    folder: Path | None = None    # for results; else build/grade/labN
    encrypted: bool = False          # encrypted guests: see grader.core.encryption
    live: bool = False               # rewrite results.json after each test
    jobs: int = 0                    # concurrent runs; 0: one per processor, up to JOBS_MAX

    def replaced(self, lab: int) -> int:
        """Which of the lab's files MODULE= stands for: the one that has its name, or the only one."""
        files = LABS[lab].files
        return files.index(self.module.name) if self.module and len(files) > 1 else 0

    def tests(self, lab: Lab) -> list[Test]:
        """The chosen tests. With MODULE=, only those of the file that it stands for: the solution answers the
        lab's other exercises. Raises CannotGrade."""
        chosen = lab.select(self.wanted)
        if self.module is None or len(LABS[lab.number].files) == 1:
            return chosen
        solution = LABS[lab.number].solution_files()[self.replaced(lab.number)]
        if not solution.exists():
            raise CannotGrade(f"MODULE= needs {path_text(solution)}", "grade it in a clone of the kit")
        answered = exercises(solution)
        return [test for test in chosen if test.exercise in answered]

    def command(self, lab: int, wanted: str) -> str:
        """The command that repeats this grading of one test or exercise."""
        return " ".join(["make grade", f"LAB={lab}", f"T={wanted}", f"SEED={self.seed}", *self.variables()])

    def variables(self) -> list[str]:
        """Whose code, and how it is built and run, as make's variables."""
        words = ["SOLUTION=1"] if self.solution else []
        for name, value in (("FROM", self.source), ("MODULE", self.module), ("SANITIZE", self.sanitize),
                            ("CC", self.cc), ("BACKEND", self.backend)):
            words += [f"{name}={printable(shlex.quote(path_text(value)), PATH_MAX)}"] \
                if value and value != "auto" else []
        return words


@dataclass
class Graded:
    """A test with its runs, their results, and the verdict."""

    verdict: Verdict
    planned: Sequence[Planned] = ()
    results: Sequence[Result] = ()


@dataclass
class Report:
    """Everything about a graded lab."""

    lab: Lab
    choice: Choice
    folder: Path
    graded: list[Graded] = field(default_factory=list)
    build_error: str = ""            # the compiler's output, if the learner's module did not compile
    seconds: float = 0.0

    @property
    def verdicts(self) -> list[Verdict]:
        return [graded.verdict for graded in self.graded]

    @property
    def filtered(self) -> bool:
        return self.choice.wanted != ""

    @property
    def score(self) -> int:
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def possible(self) -> int:
        return sum(verdict.test.points for verdict in self.verdicts)

    @property
    def partial(self) -> bool:
        """MODULE= is one of several files of the lab."""
        return self.choice.module is not None and len(LABS[self.lab.number].files) > 1

    @property
    def late(self) -> int:
        """How many runs a time limit stopped, which may be the fault of an overloaded machine. It is not if
        the budget was used up, because that counts no waits for a processor."""
        endings = [result.ending for graded in self.graded for result in graded.results]
        return 0 if Ending.BUDGET in endings else sum(ending in _HUNG for ending in endings)

    @property
    def cannot(self) -> bool:
        return any(verdict.kind is Kind.CANNOT for verdict in self.verdicts)


class BuiltPrograms:
    """The learner's programs, built at first use."""

    def __init__(self, lab: int, choice: Choice, folder: Path) -> None:
        self.folder = folder
        self._lab = lab
        self._choice = choice
        self._built: dict[str, Path] = {}

    def vmm(self) -> Path:
        return self._build("", build_vmm)

    def unit(self, source: str) -> Path:
        path = LABS[self._lab].unit(source)
        return self._build(source, lambda lab, **how: build_unit(lab, path, **how))

    def kernel(self) -> Path:
        if "kernel" not in self._built:
            sched, folder = self._scheduler()
            self._built["kernel"], _ = build_os(sched, out=folder)
        return self._built["kernel"]

    def kernel_unit(self) -> Path:
        if "kernel unit" not in self._built:
            sched, folder = self._scheduler()
            self._built["kernel unit"] = build_kernel_unit(sched, out=folder)
        return self._built["kernel unit"]

    def _scheduler(self) -> tuple[Path | None, Path]:
        """The learner's scheduler (None: the solution's), and the folder where its kernels are built."""
        sched: Path | None = LABS[self._lab].learner_files()[1]
        if self._module_is_kernels():
            sched = self._choice.module
        elif self._choice.solution or self._choice.module:
            sched = None
        return sched, BUILD / "os-1k-grader" / re.sub(r"[^\w.-]+", "_", str(sched or "solution"))

    def finished_vmm(self) -> Path:
        if "finished" not in self._built:
            self._built["finished"] = build_vmm(self._lab, solution=True, sanitize=self._choice.sanitize,
                                                cc=self._choice.cc)
            self._built["finished"].chmod(0o711)    # a stranger's VMM that runs beside it can't read it
        return self._built["finished"]

    def _module_is_kernels(self) -> bool:
        """MODULE= is the kernel's half of lab 6; the VMM's half is then the solution's."""
        lab = LABS[self._lab]
        return self._choice.module is not None and lab.files[self._choice.replaced(self._lab)] == lab.kernel

    def _build(self, key: str, build: Callable[..., Path]) -> Path:
        if key not in self._built:
            choice = self._choice
            kernels = self._module_is_kernels()
            self._built[key] = build(self._lab, solution=choice.solution or kernels, source=choice.source,
                                     module=None if kernels else choice.module, sanitize=choice.sanitize,
                                     cc=choice.cc)
        return self._built[key]


def results_folder(lab: Lab, choice: Choice) -> Path:
    """The folder for results. Grading something else does not overwrite the learner's own results."""
    other = "-solution" if choice.solution else "-module" if choice.module else ""
    return choice.folder or BUILD / "grade" / f"lab{lab.number}{other}"


def grade(lab: Lab, choice: Choice, pick: Pick, programs: Programs | None = None,
          on_test: Callable[[Report], None] | None = None) -> Report:
    """Grades the chosen tests. `pick` picks the back end that they need; `programs`, if given, replaces the
    programs to build; `on_test` gets an intermediate report after each test. Raises CannotGrade."""
    start = time.monotonic()
    tests = choice.tests(lab)
    report = Report(lab, choice, results_folder(lab, choice))
    if not choice.wanted:
        shutil.rmtree(report.folder, ignore_errors=True)
    plans = _plan(tests, report, programs or BuiltPrograms(lab.number, choice, report.folder))
    if not report.build_error:
        needs = sorted({*lab.needs, *(need for test in tests for need in test.needs)})
        backend = pick(needs)
        runs = [planned.run for plan in plans for planned in plan.planned]
        on_result = _reporting(report, plans, on_test) if on_test else None
        solution = [_solution_run(run) for run in runs]
        strange = solution != runs
        budget = _budget(backend, solution, choice.jobs) if strange else None
        report.graded = _judged(plans, _run_apart(backend, runs, choice.jobs, on_result, budget))
        if not _all_pass(report) and not backend.works_still():     # KVM failed: no test may fail for that
            backend = pick(needs)
            report.graded = _judged(plans, run_patiently(backend, runs, choice.jobs, on_result))
        if strange:
            report.graded = _checked(backend, report.graded, choice.jobs)
    report.seconds = time.monotonic() - start
    return report


def _run_apart(backend: Backend, runs: Sequence[Run], jobs: int, on_result: OnResult | None,
               budget: Budget | None) -> list[Result]:
    """As run_patiently. But a stranger's program shares no lab VM with one of the kit's own, such as lab 6's
    finished VMM, which it could execute."""
    own = [place for place, run in enumerate(runs) if twin_of(run.argv[0]) == run.argv[0]]
    strange = [place for place in range(len(runs)) if place not in own]
    results: dict[int, Result] = {}
    for places in filter(None, (strange, own)):
        def take(number: int, result: Result, places: list[int] = places) -> None:
            if on_result:
                on_result(places[number], result)

        some = run_patiently(backend, [runs[place] for place in places], jobs, take, budget)
        results.update(zip(places, some))
    return [results[place] for place in range(len(runs))]


def _solution_run(run: Run) -> Run:
    """The run with the solution in the place of a stranger's programs."""
    return replace(run, argv=tuple(map(twin_of, run.argv)))


def _checked(backend: Backend, graded: Sequence[Graded], jobs: int) -> list[Graded]:
    """A stranger's program may end its run in a way that is the machine's fault with any other: it is that
    only if the solution's run also fails, here and now. All of these run together: one lab VM does for them,
    and they take no longer than the solution's grading."""
    blamed = {place: one.planned[one.verdict.failed] for place, one in enumerate(graded)
              if one.verdict.kind is Kind.CANNOT and one.verdict.failed is not None and one.verdict.mismatch}
    results = backend.run([_solution_run(planned.run) for planned in blamed.values()], jobs or 1)
    checked = list(graded)
    for (place, planned), result in zip(blamed.items(), results):
        verdict = graded[place].verdict
        if judge(verdict.test, [planned], [result]).kind is not Kind.CANNOT and verdict.mismatch:
            mismatch = Mismatch(f"{verdict.mismatch.text}; with the solution it works")
            hint = ("What does your code do to other processes, or to files and descriptors that it shares "
                    "with them?")
            checked[place] = replace(graded[place], verdict=replace(verdict, kind=Kind.FAILED, hint=hint,
                                                                    mismatch=mismatch))
    return checked


def _budget(backend: Backend, solution: Sequence[Run], jobs: int) -> Budget:
    """The budget for a stranger's programs, given the same runs with the solution."""
    def measure() -> float:
        account = Account()
        backend.run(solution, jobs or 1, account=account)
        return account.used

    return Budget(measure)


def _judged(plans: Sequence[Plan], results: Sequence[Result]) -> list[Graded]:
    """The verdicts on all runs, whose results are in the order of the plans."""
    graded, place = [], 0
    for plan in plans:
        mine = results[place:place + len(plan.planned)]
        place += len(plan.planned)
        graded.append(Graded(judge(plan.test, plan.planned, mine), plan.planned, mine))
    return graded


def _all_pass(report: Report) -> bool:
    return all(verdict.kind in (Kind.OK, Kind.TODO) for verdict in report.verdicts)


def _reporting(report: Report, plans: Sequence[Plan], on_test: Callable[[Report], None]) -> OnResult:
    """A callback for each run's result, which calls `on_test` when that completes a test."""
    results: dict[int, Result] = {}
    first = list(accumulate((len(plan.planned) for plan in plans), initial=0))
    graded = [Graded(Verdict(plan.test, Kind.FAILED, mismatch=Mismatch("not run: time was up")))
              for plan in plans]

    def take(place: int, result: Result) -> None:
        results[place] = result
        number = bisect_right(first, place) - 1
        places = range(first[number], first[number + 1])
        if all(other in results for other in places):
            graded[number], = _judged([plans[number]], [results[other] for other in places])
            on_test(replace(report, graded=[*graded]))

    return take


def _plan(tests: Sequence[Test], report: Report, programs: Programs) -> list[Plan]:
    """The plans of all tests. If the learner's module does not compile, every test has failed."""
    choice = report.choice
    write_constants()
    plans: list[Plan] = []
    try:
        for test in tests:
            plan = Plan(test, choice.seed, programs, choice.encrypted)
            test.body(plan)
            plans.append(plan)
    except BuildError as error:
        if error.program:
            raise CannotGrade(f"{error.program} does not compile:\n{error.text}",
                              "correct it, or move it out of os-1k/user/: the tests boot the 1K OS with it"
                              ) from error
        if not error.learner:
            raise CannotGrade(f"the kit's own part of lab {report.lab.number} does not build:\n{error.text}",
                              "compare common/, solutions/ and grader/ with a fresh clone; run make doctor"
                              ) from error
        report.build_error = errors_first(error.text)
        report.graded = [Graded(Verdict(test, Kind.FAILED, mismatch=Mismatch("your module does not compile")))
                         for test in tests]
    return plans


def run_patiently(backend: Backend, runs: Sequence[Run], jobs: int = 0,
                  on_result: OnResult | None = None, budget: Budget | None = None) -> list[Result]:
    """Executes all runs. If the machine is loaded, runs that hung are repeated one at a time with more time,
    because they may only have been starved. After two repeats without success, the rest counts as hung."""
    processors = os.cpu_count() or 1
    if backend.name == "vm":
        runs = [_with_more_time(run, spin=max(1.0, os.getloadavg()[0] / processors)) for run in runs]
    with counting(len(runs), on_result) as on_result:
        results = list(backend.run(runs, jobs=jobs or min(JOBS_MAX, processors), on_result=on_result,
                                   account=budget))
    hung = [place for place, result in enumerate(results) if result.ending in _HUNG]
    in_vain = 0
    for place in hung:
        if in_vain == IN_VAIN_MAX or os.getloadavg()[0] < LOADED * processors \
                or (budget and budget.is_used_up()):
            break
        [results[place]] = backend.run([_with_more_time(runs[place], PATIENCE, PATIENCE)], account=budget)
        in_vain += results[place].ending in _HUNG
    return results


def _with_more_time(run: Run, clock: float = 1.0, spin: float = 1.0) -> Run:
    """The run with its time limits multiplied: wall-clock limits by `clock`, the CPU limit by `spin`."""
    limits = run.limits
    return replace(run, limits=replace(limits, wall=limits.wall * clock, no_output=limits.no_output * clock,
                                       after_steps=limits.after_steps * clock, spin=limits.spin * spin))


def path_text(path: Union[Path, str]) -> str:
    """A path as seen from the kit's folder."""
    text = str(path)
    return text[len(str(ROOT)) + 1:] if text.startswith(f"{ROOT}/") else text
