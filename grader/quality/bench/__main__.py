"""The command line of `make bench`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from grader.core.building import clean_environment
from grader.course import ROOT
from grader.execution.backends import Backend, pick_backend
from grader.execution.runs import CannotGrade, Result
from grader.execution.tool import run_command
from grader.quality.bench import counts, grading, report
from grader.quality.bench.cases import Case, Command, Measured, judge, samples
from grader.quality.bench.page import page
from grader.quality.bench.rows import FOLDER, LAB, ROWS, Programs, Speed, calibration, programs

DEFAULT = [*ROWS, "counts"]
ALL = [*DEFAULT, *grading.LONG]
ROUNDS = 11

# The kinds of guest of the rows: those with an operating system, and the others.
OS_ROWS = {"os", "linux", "counts"}
OS_NEEDS = ("real", "interrupts", "protected", "paging32", "longmode")
NEEDS = ("real", "interrupts")


def older_kit(revision: str) -> Path:
    """Another revision of the kit, in a folder of its own."""
    folder = FOLDER / "older" / revision.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    tree = subprocess.run(["git", "archive", revision], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if tree.returncode != 0:
        raise CannotGrade(f"OLDER={revision}: {tree.stderr.decode(errors='replace').strip()}",
                          "give a revision of this repository, like a release's tag")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=tree.stdout, check=True)
    return folder


def older_vmm(revision: str, folder: Path) -> Command:
    """That revision's finished VMM."""
    done = subprocess.run(["make", "-s", "vmm", f"LAB={LAB}", "SOLUTION=1"], cwd=folder, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment())
    if done.returncode != 0:
        raise CannotGrade(f"OLDER={revision} does not build:\n{done.stdout}", "give a later revision")
    return Command(f"VMM of {revision}", (str(folder / done.stdout.splitlines()[-1]),))


def calibrate(backend: Backend, using: Programs) -> Speed:
    """How fast this machine is."""
    cases = calibration(using)
    results = backend.run([case.run(using.alternate, 2) for case in cases])
    seconds = []
    for case, result in zip(cases, results):
        (work,), (nothing,) = samples(case, result)[0]
        seconds.append(max(work["wall_ns"] - nothing["wall_ns"], 1e5) / 1e9)
    processors = 1 if backend.name == "vm" else len(os.sched_getaffinity(0))
    return Speed(1000 / seconds[0], 100_000 / seconds[1], processors)


def measure(backend: Backend, using: Programs, rows: Sequence[str], rounds: int) -> list[Measured]:
    """Runs the rows' cases one after the other, and prints each one's figures when they are there."""
    measured: list[Measured] = []
    if not set(rows) & set(ROWS):
        return measured
    speed = calibrate(backend, using)
    cases: list[Case] = [case for row in rows if row in ROWS for case in ROWS[row](using, speed)]
    printed = ""

    def take(number: int, result: Result) -> None:
        nonlocal printed
        figures = judge(cases[number], result)
        if cases[number].row != printed:
            printed = cases[number].row
            print(report.TITLES[printed])
        print(*report.lines(figures), sep="\n", flush=True)
        measured.extend(figures)
    backend.run([case.run(using.alternate, rounds) for case in cases], on_result=take)
    return measured


def main(arguments: Sequence[str]) -> int:
    """Measures the chosen rows; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="Ratios to the limit, and to alternatives.")
    parser.add_argument("--backend", default=os.environ.get("BACKEND") or "auto")
    parser.add_argument("--rows", default=" ".join(DEFAULT), help="of: " + " ".join(ALL))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each case; the first warms up")
    parser.add_argument("--older", default="", help="a revision whose VMM is compared as well")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts, for tests")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    rows = options.rows.split()
    unknown = [row for row in rows if row not in ALL]
    if unknown:
        parser.error(f"no such row: {' '.join(unknown)}; there are {' '.join(ALL)}")
    backend = pick_backend(options.backend, needs=NEEDS)
    for_os = pick_backend(options.backend, needs=OS_NEEDS) if OS_ROWS & set(rows) else backend
    about = report.machine(backend.why, backend.name == "kvm")
    if for_os.name != backend.name:
        about["back_end"] += f"; {' and '.join(sorted(OS_ROWS & set(rows)))}: {for_os.why}"
    print(f"{about['back_end']}\n{about['processor']}, {about['processors']} processors; "
          f"median of {options.rounds - 1} rounds' ratios (and their middle half)")
    print(*report.remarks(about), sep="\n", flush=True)
    older = older_kit(options.older) if options.older else None
    vmms = (older_vmm(options.older, older),) if older and set(rows) & set(ROWS) else ()
    using = programs(vmms, options.scale)
    measured = measure(backend, using, [row for row in rows if row not in OS_ROWS], options.rounds)
    measured += measure(for_os, using, [row for row in rows if row in OS_ROWS], options.rounds)
    for row in [row for row in rows if row in grading.LONG]:
        print(report.TITLES[row])
        for figure in grading.measure(row, (options.older, older) if older else None):
            measured.append(figure)
            print(*report.lines([figure]), sep="\n", flush=True)
    exits = counts.counted(for_os.run(counts.runs(using.vmm))) if "counts" in rows else {}
    if exits:
        print("counts: exits of the reference guests", *report.count_lines(exits), sep="\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(report.as_json(about, measured, exits))
    (options.out / "bench.html").write_text(page(about, measured, exits))
    print(f"{options.out}/bench.html, bench.json")
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
