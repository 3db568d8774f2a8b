"""`make flakes N=100`: grades each solution N times, every other time at the lowest priority with all
processors busy. Each test must give the same result every time; a difference is a bug in the grader.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from grader import labs
from grader.core.building import clean_environment
from grader.execution.progress import Progress
from grader.course import BUILD, ROOT
from grader.execution.tool import run_command

SAME, DIFFERENT = 0, 1
CANNOT_GRADE = 3                     # exit status of the grader


# Keeps a processor busy until its parent has ended for any reason.
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


@contextmanager
def busy_processors() -> Iterator[None]:
    """Keeps all processors busy."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]))
            stack.callback(process.kill)
        yield


def failed_tests(lab: int, loaded: bool, backend: str, progress: Progress) -> list[str]:
    """One grading of the solution: the tests that did not pass, or why it could not be graded."""
    folder = BUILD / "flakes" / f"lab{lab}"
    command = [sys.executable, "-m", "grader", "grade", "--lab", str(lab), "--solution", "--backend", backend,
               "--results", str(folder)]
    with ExitStack() as stack:
        if loaded:
            stack.enter_context(busy_processors())
            command = ["nice", "-n", "19", *command]
        (folder / "results.json").unlink(missing_ok=True)
        done = subprocess.run(command, cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == CANNOT_GRADE or not (folder / "results.json").exists():
        return ["cannot grade: " + done.stdout.strip().splitlines()[-1]]
    tests = json.loads((folder / "results.json").read_text())["tests"]
    wrong = [test for test in tests if test["score"] != test["max_score"]]
    progress.clear()
    for test in wrong:
        print(f"  {test['name']}\n    " + test["output"].replace("\n", "\n    "), flush=True)
    return [test["name"].partition(":")[0] for test in wrong]


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="grader.quality.flakes", description=str(__doc__))
    parser.add_argument("--lab", type=int, choices=labs.NUMBERS, help="the lab to grade; default: all")
    parser.add_argument("--count", type=int, default=10, help="gradings of each solution")
    parser.add_argument("--backend", default="auto", help="auto, kvm or vm: where the VMM runs")
    parsed = parser.parse_args(arguments)
    found: Counter[str] = Counter()
    for lab in [parsed.lab] if parsed.lab else labs.NUMBERS:
        start = time.monotonic()
        wrong: Counter[str] = Counter()
        with Progress(f"grading lab {lab}") as progress:
            for turn in range(parsed.count):
                loaded = turn % 2 == 1
                progress.step(f"{turn + 1} of {parsed.count}")
                wrong.update(f"{name} ({'loaded' if loaded else 'quiet'})"
                             for name in failed_tests(lab, loaded, parsed.backend, progress))
        names = ", ".join(f"{name}: {count}" for name, count in wrong.items()) or "all points each time"
        print(f"lab {lab}: {parsed.count} gradings in {time.monotonic() - start:.0f} s: {names}", flush=True)
        found += wrong
    return DIFFERENT if found else SAME


if __name__ == "__main__":
    run_command(main)
