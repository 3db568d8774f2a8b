"""Every test of the kit: `make test`.

A test program is a Check program in common/tests/, named after the lab whose VMM it is linked with
(lab3_console.c), a unittest file in grader/quality/tests/, or one of the 1K OS's programs that os-1k/os.mk
builds. One program more than there are processors runs at a time, because they often wait; the last ones may
do several things at a time (grader/quality/spare.py). A program that
crashes, hangs or runs no test counts as a failed test. Problems of the suite itself, such as a full disk, are
reported separately, not as failures. The last line is `N passed, N failed`, with `, N skipped` if there are
any.

Exit status: 0 all passed; 1 a test failed; 3 none failed, but some could not be run; 128 + N by signal N.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from grader.core.building import BuildError, build_path, build_unit, clean_environment
from grader.course import BUILD, ROOT
from grader.execution.kvm_probe import KINDS, probe_kvm
from grader.execution.labvm import snapshot
from grader.execution.runs import CannotGrade
from grader.execution.tool import on_terminal, run_command
from grader.quality import spare

PASSED, FAILED, COULD_NOT_RUN = 0, 1, 3

HUNG = -1000     # instead of an exit status
SILENCE = 1800.0  # seconds after which a test program that has printed nothing counts as hung
FUZZ_SECONDS = 15
LOOK_SECONDS = 10.0  # between two looks for output
SHOWN_MAX = 80   # lines shown of a failed program's output; the rest is in build/tests/
SLOWEST = 10
REPEATED_MAX = 12     # lines of each failed program that are repeated at the end
REPEATED_WIDTH = 200  # characters of each
STOP_SECONDS = 5.0    # for programs to end when the suite is stopped
REDRAW_SECONDS = 1.0  # between updates of the progress line

# Tools that tests need, with the tests that are skipped without them.
TOOLS = {
    "clang": "builds with clang, and the fuzzers",
    "clang-format": "the style of C",
    "flake8": "the style of Python",
    "gdb": "make debug",
    "git": "the release, and checks that need the list of the kit's files",
    "mypy": "the types of Python",
    "pandoc": "the handouts' site and PDF",
    "patch": "mutants and alternatives",
    "shellcheck": "the style of shell scripts",
    "strace": "the handouts' console block that uses it",
    "weasyprint": "the handouts' site and PDF",
    "zstd": "a kernel whose modules are compressed with it",
}

# Not installed by setup.sh: more than 100 MB to download. Where they are missing, their tests are skipped.
OPTIONAL_TOOLS = {
    "chromium": "the timeline's page in a browser",
}

# Messages of a machine that can't run a test, which says nothing about the kit.
TROUBLE = re.compile("No space left on device|Disk quota exceeded|Read-only file system"
                     "|virtual memory exhausted|Killed signal terminated program")


@dataclass(frozen=True)
class Outcome:
    """The result of a test program."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    output: str = ""
    notes: list[str] = field(default_factory=list)  # why tests were skipped
    trouble: str = ""                               # why the suite could not run all of it
    processor: float = 0.0                          # seconds of processor time; 0: unknown


@dataclass(frozen=True)
class Program:
    """A test program."""

    name: str
    run: Callable[[], Outcome]


class Stopped(BaseException):
    """The suite is ending, so no other program is started."""


# The process groups of running programs, to stop them.
_groups: set[int] = set()
_starting = threading.Lock()
_stopping = False


# The pipe of free places, while programs run.
_places: tuple[int, ...] = ()


def started(command: list[str], environment: dict[str, str], output: IO[str]) -> subprocess.Popen[bytes]:
    """A program in a group of its own."""
    with _starting:
        if _stopping:
            raise Stopped
        process = subprocess.Popen(command, cwd=ROOT, env={**clean_environment(), **environment},
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True, pass_fds=_places)
        _groups.add(process.pid)
        return process


def execute(command: list[str], environment: dict[str, str], silence: float = SILENCE) -> tuple[int, str]:
    """Runs a command to its end, or until it has been silent for so long; kills the processes that it
    leaves. How long it takes depends on the machine, so only silence counts."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = started(command, environment, output)
        try:
            ended = wait(process, output, silence)
        finally:
            kill_group(process.pid, signal.SIGKILL)
            _groups.discard(process.pid)
        output.seek(0)
        said = output.read()
    if not ended:
        return HUNG, f"{said}\nstopped after {silence:.0f} seconds without output\n"
    return process.returncode, said


def wait(process: subprocess.Popen[bytes], output: IO[str], silence: float) -> bool:
    """Waits for a program's end; False: it has been silent, and was killed."""
    size, since = 0, time.monotonic()
    while True:
        try:
            process.wait(min(silence, LOOK_SECONDS))
            return True
        except subprocess.TimeoutExpired:
            now = os.fstat(output.fileno()).st_size
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > silence:
                kill_group(process.pid, signal.SIGKILL)
                process.wait()
                return False


def kill_group(group: int, number: int) -> bool:
    """Sends a signal to the rest of a process group; returns whether there was any process."""
    try:
        os.killpg(group, number)
        return True
    except ProcessLookupError:
        return False


def stop(number: int, frame: object) -> None:
    """Ctrl-C or SIGTERM: stops the programs, which have their own sessions."""
    global _stopping
    end = time.monotonic() + STOP_SECONDS
    with _starting:
        _stopping = True
        groups = list(_groups)
    while [group for group in groups if kill_group(group, signal.SIGTERM)] and time.monotonic() < end:
        time.sleep(0.05)  # make removes incomplete files
    for group in groups:
        kill_group(group, signal.SIGKILL)
    print(f"\nstopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    os._exit(128 + number)


def run_check(name: str, build: Callable[[], Path]) -> Outcome:
    """Runs a Check program. Its TAP log has the result of each test."""
    log = BUILD / "tests" / f"{file_name(name)}.tap"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        program = build()
    except BuildError as error:
        return unbuilt(error)
    status, output = execute([str(program)], {"CK_TAP_LOG_FILE_NAME": str(log)})
    tap = log.read_text(errors="replace") if log.exists() else ""
    passed = len(re.findall(r"^ok ", tap, re.M))
    failed = len(re.findall(r"^not ok ", tap, re.M))
    if (status == 0) != (failed == 0) or passed + failed == 0:
        return Outcome(passed, failed + 1, output=f"{output}the program ended with status {status}\n")
    return Outcome(passed, failed, output=output)


def unbuilt(error: BuildError) -> Outcome:
    """A program that does not build has failed, unless the machine is at fault."""
    found = TROUBLE.search(error.text)
    return Outcome(failed=0 if found else 1, output=error.text, trouble=found[0] if found else "")


def run_fuzzer(name: str) -> Outcome:
    """Runs a fuzzer of os-1k/tests/ as one test; it starts from the stored corpus and must find nothing."""
    if not shutil.which("clang"):
        return Outcome(skipped=1, notes=["clang is not installed"])
    found = BUILD / "tests" / name
    found.mkdir(parents=True, exist_ok=True)
    try:
        program = build_path(f"build/os-1k-tests/{name}")
    except BuildError as error:
        return unbuilt(error)
    corpus = ROOT / "os-1k/tests/corpus" / name.split("-")[1]
    status, output = execute([str(program), f"-max_total_time={FUZZ_SECONDS}", f"-artifact_prefix={found}/",
                              str(found), str(corpus)], {})
    return Outcome(passed=1) if status == 0 else Outcome(failed=1, output=output)


def run_unittests(module: str) -> Outcome:
    """Runs a unittest file in its own process, with this program's --module mode."""
    report = BUILD / "tests" / f"{module}-{os.getpid()}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grader.quality.suite", "--module", module, "--report", str(report),
               "--places", *map(str, _places)]
    status, output = execute(command, {})
    if not report.exists():
        if status == HUNG:
            return Outcome(failed=1, output=output)
        return Outcome(output=output, trouble=f"the program that runs these tests ended with status {status}")
    outcome = Outcome(**json.loads(report.read_text()), output=output)
    report.unlink()
    if not (outcome.passed or outcome.failed or outcome.skipped or outcome.trouble):
        return Outcome(failed=1, output=f"{output}it has no tests\n")
    return outcome


def run_module(module: str, report: Path) -> int:
    """--module: runs a file's tests and writes an Outcome's fields."""
    tests = unittest.defaultTestLoader.loadTestsFromName(module)
    count = tests.countTestCases()
    result = unittest.TextTestRunner(buffer=True, verbosity=1).run(tests)
    outcome: dict[str, object] = {**counted(count, result), "processor": processor_seconds()}
    report.write_text(json.dumps(outcome))
    return PASSED if not outcome["failed"] and not outcome["trouble"] else FAILED


def processor_seconds() -> float:
    """The processor time of this process and of all that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def counted(count: int, result: unittest.TestResult) -> dict[str, object]:
    """The counts of results of `count` tests. A test with several failed subtests is one failed test."""
    failed = {str(getattr(test, "test_case", test)) for test, text in result.failures + result.errors
              if not TROUBLE.search(text)}
    failed |= {str(test) for test in result.unexpectedSuccesses}
    troubles = {str(getattr(test, "test_case", test)): found[0]
                for test, text in result.failures + result.errors if (found := TROUBLE.search(text))}
    ran = {str(getattr(test, "test_case", test)) for test, _ in result.skipped
           if isinstance(getattr(test, "test_case", test), unittest.TestCase)}
    # If a class or a file is skipped as a whole, its tests were never started.
    never = count - result.testsRun if not result.errors else 0
    skipped = len(ran - failed - set(troubles)) + never
    lost = len(set(troubles) - failed)
    return {"passed": max(0, result.testsRun - len(failed) - lost - len(ran - failed - set(troubles))),
            "failed": len(failed), "skipped": skipped,
            "notes": sorted({reason for _, reason in result.skipped}),
            "trouble": "; ".join(sorted(set(troubles.values())))}


def file_name(name: str) -> str:
    """A program's name as a file name."""
    return re.sub(r"[^\w.-]+", "-", name)


def check_program(source: Path, sanitize: str) -> Program:
    """A Check program of common/tests/, plain or sanitized."""
    name = str(source.relative_to(ROOT)) + (f" ({sanitize})" if sanitize else "")
    lab = int(source.stem[3])
    return Program(name, lambda: run_check(
        name, lambda: build_unit(lab, source, solution=True, sanitize=sanitize)))


def os_programs() -> list[Program]:
    """The tests of the 1K OS's parts; os-1k/os.mk builds them."""
    parts = Program("os-1k/tests/parts.c", lambda: run_check(
        "os-1k/tests/parts.c", lambda: build_path("build/os-1k-tests/parts")))
    return [parts, *(Program(f"os-1k/tests/{name.replace('-', '_')}.c", partial(run_fuzzer, name))
                     for name in ("fuzz-archive", "fuzz-elf", "fuzz-elf64"))]


def unittest_program(path: Path) -> Program:
    """A unittest file."""
    name = str(path.relative_to(ROOT))
    return Program(name, lambda: run_unittests(name[:-len(".py")].replace("/", ".")))


# These take minutes, so they start first, and the others run at the same time.
SLOW = ("test_grades", "test_cheats", "test_handouts", "test_release", "test_variants", "test_jail",
        "test_frame", "test_labvm", "test_play", "test_class")


def programs() -> list[Program]:
    """All test programs, the slow ones first."""
    found = [unittest_program(path) for path in sorted((ROOT / "grader/quality/tests").glob("test_*.py"))]
    for source in sorted((ROOT / "common/tests").glob("lab?_*.c")):
        found += [check_program(source, sanitize) for sanitize in ("", "address,undefined", "thread")]
    ranks = {name: rank for rank, name in enumerate(SLOW)}
    return sorted(found + os_programs(), key=lambda program: ranks.get(Path(program.name).stem, len(SLOW)))


def machine() -> Iterator[str]:
    """What this machine provides for the tests, and what is skipped without it."""
    probe = probe_kvm()
    kinds = [text for kind, text in KINDS.items() if not probe.reason_against([kind])]
    if kinds:
        yield f"back end: this machine's /dev/kvm runs {', '.join(kinds)}"
    else:
        yield f"no back end: /dev/kvm ({probe.reason_against(['real'])})"
    try:
        snapshot.start().close()
        yield "back end: the lab VM runs all kinds of guests"
    except CannotGrade as error:
        yield f"no back end: the lab VM ({error.reason}). Skipped: its own tests, a class's grading" + (
            "" if len(kinds) == len(KINDS) else ", and every guest that /dev/kvm does not run")
    tools = {**TOOLS, **OPTIONAL_TOOLS}
    yield "tools: " + (", ".join(tool for tool in tools if shutil.which(tool)) or "none")
    for tool, what in tools.items():
        if not shutil.which(tool):
            yield f"no {tool}. Skipped: {what}"


@dataclass
class Run:
    """A test program of this run of the suite."""

    program: Program
    began: float = 0.0
    seconds: float = 0.0
    outcome: Outcome | None = None


class Display:
    """Prints a line for each ended program, and on a terminal a line with the running ones."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._live = on_terminal()
        self._over = threading.Event()

    def follow(self) -> None:
        """Redraws the progress line until close."""
        while self._live and not self._over.wait(REDRAW_SECONDS):
            with self._lock:
                print(f"\r\033[K{self._progress()}", end="", flush=True)

    def _progress(self) -> str:
        now = time.monotonic()
        done = sum(run.outcome is not None for run in self._runs)
        running = [f"{Path(run.program.name).stem} {now - run.began:.0f} s" for run in self._runs
                   if run.began and not run.outcome]
        width = shutil.get_terminal_size().columns - 1
        return f"[{done}/{len(self._runs)}] running: {', '.join(running)}"[:width]

    def close(self) -> None:
        self._over.set()

    def ended(self, run: Run) -> None:
        """Prints the line of an ended program, with its output if it failed."""
        with self._lock:
            if self._live:
                print("\r\033[K", end="")
            done = sum(other.outcome is not None for other in self._runs)
            print(f"[{done:{len(str(len(self._runs)))}}/{len(self._runs)}]", *lines_of(run), sep=" ",
                  flush=True)


def lines_of(run: Run) -> Iterator[str]:
    """The report on an ended program; the first part is one line."""
    outcome, name = run.outcome, run.program.name
    assert outcome
    words = [f"{outcome.passed:4} passed"]
    words += [f"{outcome.failed} failed"] if outcome.failed else []
    words += [f"{outcome.skipped} skipped"] if outcome.skipped else []
    word = "FAIL" if outcome.failed else "ERR" if outcome.trouble else "ok"
    yield f"{word:4} {name:55} {', '.join(words)}  {run.seconds:.1f} s"
    for note in outcome.notes:
        yield f"\n       skipped: {note}"
    if outcome.trouble:
        yield f"\n       could not run: {outcome.trouble}"
    if outcome.failed or outcome.trouble:
        lines = outcome.output.rstrip().splitlines()
        if len(lines) > SHOWN_MAX:
            yield f"\n     | (the last {SHOWN_MAX} of {len(lines)} lines; all are in build/tests/)"
        yield from (f"\n     | {line}" for line in lines[-SHOWN_MAX:])


# Lines of a failed program's output that name a failed test or say why it failed.
TELLING = re.compile(r"^(FAIL|ERROR): |^\w*(Error|Exception)\b|:[EF]:|^the program ended|^stopped after")


def reasons(output: str) -> list[str]:
    """The lines of a failed program's output to repeat at the end, where logs are often cut."""
    lines = output.rstrip().splitlines()
    telling = [line for line in lines if TELLING.search(line)] or lines[-1:]
    return [line[:REPEATED_WIDTH] for line in telling[:REPEATED_MAX]]


def carry_out(run: Run, display: Display) -> None:
    """Runs a program; always records an outcome."""
    run.began = time.monotonic()
    try:
        outcome = run.program.run()
        if outcome.failed or outcome.trouble:
            log = BUILD / "tests" / f"{file_name(run.program.name)}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(outcome.output)
    except Exception as error:  # in the suite itself: the other programs continue
        outcome = Outcome(trouble=f"{type(error).__name__}: {error}")
    run.seconds = time.monotonic() - run.began
    run.outcome = outcome
    display.ended(run)


def with_places(runs: list[Run], display: Display) -> None:
    """Runs the programs. A place for which none is left goes to those that still run."""
    global _places
    waiting = deque(runs)
    _places = os.pipe()

    def serve() -> None:
        for run in spare.take(waiting):
            carry_out(run, display)
        os.write(_places[1], b".")

    places = (os.cpu_count() or 1) + 1
    with ThreadPoolExecutor(places) as pool:
        for served in [pool.submit(serve) for _ in range(places)]:
            served.result()
    for end in _places:
        os.close(end)
    _places = ()


def run_all(chosen: list[Program]) -> int:
    """Runs the programs; prints each as it ends, the slowest, failures and totals; returns a status."""
    runs = [Run(program) for program in chosen]
    display = Display(runs)
    threading.Thread(target=display.follow, daemon=True).start()
    with_places(runs, display)
    display.close()
    outcomes = [run.outcome for run in runs if run.outcome]
    print(f"\nThe slowest of {len(runs)} programs:" if len(runs) > SLOWEST else "\nTime:")
    for run in sorted(runs, key=lambda run: run.seconds, reverse=True)[:SLOWEST]:
        used = run.outcome.processor if run.outcome else 0.0
        print(f"  {run.seconds:7.1f} s  {run.program.name}" + (f" (processor: {used:.0f} s)" if used else ""))
    for run in runs:
        if run.outcome and run.outcome.failed:
            print(f"failed: {run.program.name}", *reasons(run.outcome.output), sep="\n  ")
    troubles = [run for run in runs if run.outcome and run.outcome.trouble]
    for run in troubles:
        assert run.outcome
        print(f"could not run completely: {run.program.name}: {run.outcome.trouble}",
              *reasons(run.outcome.output), sep="\n  ")
    passed, failed, skipped = (sum(counts) for counts in zip(*(
        (outcome.passed, outcome.failed, outcome.skipped) for outcome in outcomes)))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    if failed or not (passed or troubles):
        return FAILED
    return COULD_NOT_RUN if troubles else PASSED


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test", description="Runs every test of the kit itself.")
    parser.add_argument("--module", help="run the tests of one module in this process")
    parser.add_argument("--report", type=Path, help="with --module: where to write the counts")
    parser.add_argument("--places", type=int, nargs="*", help="with --module: the pipe of free places")
    parser.add_argument("words", nargs="*", help="run only programs whose names contain one of these words")
    arguments = parser.parse_args()
    if arguments.places:
        spare.use(arguments.places)
    if arguments.module:
        return run_module(arguments.module, arguments.report)
    chosen = [program for program in programs()
              if not arguments.words or any(word in program.name for word in arguments.words)]
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if not chosen:
        print("no test program has a matching name", file=sys.stderr)
        return FAILED
    for line in machine():
        print(line, flush=True)
    return run_all(chosen)


if __name__ == "__main__":
    run_command(main)
