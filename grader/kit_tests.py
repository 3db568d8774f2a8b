"""Every test of the kit: `make test`.

A test program is a Check program in common/tests/, named after the lab whose VMM it is linked with
(lab3_console.c), a unittest file in grader/tests/, or one of the 1K OS's own that os-1k/os.mk builds. As
many run at a time as there are processors. A program that crashes, hangs or runs no test counts as a failed
test. The last line is `N passed, N failed`, with `, N skipped` if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from grader.build import BuildError, build_path, build_unit, clean_environment
from grader.course import BUILD, ROOT

TIMEOUT = 1800.0  # seconds for a test program; generous, machines are loaded
FUZZ_SECONDS = 15
SHOWN_MAX = 80   # lines of a failed program's output; all of it is in build/tests/


@dataclass(frozen=True)
class Outcome:
    """How a test program came out."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    output: str = ""
    notes: list[str] = field(default_factory=list)  # why tests were skipped


@dataclass(frozen=True)
class Program:
    """A test program."""

    name: str
    run: Callable[[], Outcome]


# The process groups of programs that run now, for an end before theirs.
_groups: set[int] = set()


def execute(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a command to its end or the time limit, and ends all that it leaves behind."""
    process = subprocess.Popen(command, cwd=ROOT, env={**clean_environment(), **environment}, text=True,
                               errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    _groups.add(process.pid)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        output, _ = process.communicate()
        return -signal.SIGKILL, f"{output}\nno end after {TIMEOUT:.0f} seconds\n"
    finally:
        kill_group(process.pid)
        _groups.discard(process.pid)


def kill_group(group: int) -> None:
    """Ends what is left of a process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop(number: int, frame: object) -> None:
    """Ctrl-C or SIGTERM: programs have sessions of their own and would go on."""
    for group in list(_groups):
        kill_group(group)
    print(f"\nstopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    os._exit(128 + number)


def run_check(name: str, build: Callable[[], Path]) -> Outcome:
    """A Check program. Its log in TAP says what became of each test."""
    log = BUILD / "tests" / f"{file_name(name)}.tap"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        program = build()
    except BuildError as error:
        return Outcome(failed=1, output=error.text)
    status, output = execute([str(program)], {"CK_TAP_LOG_FILE_NAME": str(log)})
    tap = log.read_text(errors="replace") if log.exists() else ""
    passed = len(re.findall(r"^ok ", tap, re.M))
    failed = len(re.findall(r"^not ok ", tap, re.M))
    if (status == 0) != (failed == 0) or passed + failed == 0:
        return Outcome(passed, failed + 1, output=f"{output}the program ended with status {status}\n")
    return Outcome(passed, failed, output=output)


def run_fuzzer(name: str) -> Outcome:
    """A fuzzer of os-1k/tests/: one test. It goes on from the kept corpus and must find nothing new."""
    found = BUILD / "tests" / name
    found.mkdir(parents=True, exist_ok=True)
    try:
        program = build_path(f"build/os-1k-tests/{name}")
    except BuildError as error:
        return Outcome(failed=1, output=error.text)
    corpus = ROOT / "os-1k/tests/corpus" / name.split("-")[1]
    status, output = execute([str(program), f"-max_total_time={FUZZ_SECONDS}", f"-artifact_prefix={found}/",
                              str(found), str(corpus)], {})
    return Outcome(passed=1) if status == 0 else Outcome(failed=1, output=output)


def run_unittests(module: str) -> Outcome:
    """A unittest file, run by this program's --module mode in a process of its own."""
    report = BUILD / "tests" / f"{module}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "grader.kit_tests", "--module", module, "--report", str(report)]
    status, output = execute(command, {})
    if not report.exists():
        return Outcome(failed=1, output=f"{output}the program ended with status {status}\n")
    counts = json.loads(report.read_text())
    if counts["passed"] + counts["failed"] + counts["skipped"] == 0:
        return Outcome(failed=1, output=f"{output}there is no test in it\n")
    return Outcome(counts["passed"], counts["failed"], counts["skipped"], output, counts["notes"])


def run_module(module: str, report: Path) -> int:
    """--module: runs a file's tests and writes their counts."""
    tests = unittest.defaultTestLoader.loadTestsFromName(module)
    result = unittest.TextTestRunner(buffer=True, verbosity=1).run(tests)
    # A test with several failed subtests is one failed test.
    failed = {str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    failed |= {str(test) for test in result.unexpectedSuccesses}
    skipped = {str(getattr(test, "test_case", test)) for test, _ in result.skipped} - failed
    counts = {"passed": max(0, result.testsRun - len(failed) - len(skipped)), "failed": len(failed),
              "skipped": len(skipped), "notes": sorted({reason for _, reason in result.skipped})}
    report.write_text(json.dumps(counts))
    return 0 if result.wasSuccessful() else 1


def file_name(name: str) -> str:
    """A program's name, fit for a file."""
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
                     for name in ("fuzz-archive", "fuzz-elf"))]


def unittest_program(path: Path) -> Program:
    """A unittest file."""
    name = str(path.relative_to(ROOT))
    return Program(name, lambda: run_unittests(name[:-len(".py")].replace("/", ".")))


def programs() -> list[Program]:
    """All test programs, the slow ones first."""
    found = [unittest_program(path) for path in sorted((ROOT / "grader/tests").glob("test_*.py"))]
    for source in sorted((ROOT / "common/tests").glob("lab?_*.c")):
        found += [check_program(source, sanitize) for sanitize in ("", "address,undefined", "thread")]
    return found + os_programs()


def show(program: Program, outcome: Outcome, seconds: float) -> None:
    """A line for the program; and what it said, if a test failed."""
    words = [f"{outcome.passed:4} passed"]
    words += [f"{outcome.failed} failed"] if outcome.failed else []
    words += [f"{outcome.skipped} skipped"] if outcome.skipped else []
    print(f"{'FAIL' if outcome.failed else 'ok':4} {program.name:55} {', '.join(words)}  {seconds:.1f} s")
    for note in outcome.notes:
        print(f"       skipped: {note}")
    if outcome.failed:
        log = BUILD / "tests" / f"{file_name(program.name)}.log"
        log.write_text(outcome.output)
        lines = outcome.output.rstrip().splitlines()
        if len(lines) > SHOWN_MAX:
            print(f"     | (the last {SHOWN_MAX} of {len(lines)} lines; all are in {log.relative_to(ROOT)})")
        print("\n".join(f"     | {line}" for line in lines[-SHOWN_MAX:]))
    sys.stdout.flush()


def run_all(chosen: list[Program]) -> int:
    """Runs the programs, shows each as it ends, and the totals; an exit status."""
    passed = failed = skipped = 0

    def timed(program: Program) -> tuple[Outcome, float]:
        began = time.monotonic()
        return program.run(), time.monotonic() - began

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = {pool.submit(timed, program): program for program in chosen}
        for done in as_completed(running):
            outcome, seconds = done.result()
            show(running[done], outcome, seconds)
            passed += outcome.passed
            failed += outcome.failed
            skipped += outcome.skipped
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test", description="Runs every test of the kit itself.")
    parser.add_argument("--module", help="run the tests of one module in this process")
    parser.add_argument("--report", type=Path, help="with --module: where to write the counts")
    parser.add_argument("words", nargs="*", help="run only programs whose name holds one of these words")
    arguments = parser.parse_args()
    if arguments.module:
        return run_module(arguments.module, arguments.report)
    chosen = [program for program in programs()
              if not arguments.words or any(word in program.name for word in arguments.words)]
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return run_all(chosen)


if __name__ == "__main__":
    sys.exit(main())
