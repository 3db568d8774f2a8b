"""Modules made from a solution and a patch: mutants/NAME.patch in a lab's folder makes a wrong one,
alternatives/NAME.patch a correct one in another style. The lines before the patch describe it:

    # what: the API version is not checked
    --- a/solutions/lab1-real-mode/vm.c
    ...

`python3 -m grader.quality.variants mutants` makes each module, grades it and reports errors in the grading,
with one grading per processor at a time. Exit status: 0 all are graded as expected; 1 some are not; 3 cannot
grade on this machine.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from grader import labs
from grader.execution.tool import run_command
from grader.quality import alternatives
from grader.quality import mutants
from grader.execution.backends import Picker
from grader.course import BUILD, LABS, ROOT
from grader.core.grading import Choice, Pick, Report
from grader.report.recording import grade_and_keep
from grader.execution.runs import CannotGrade
from grader.core.values import new_seed

# Errors in the grading of a variant, checked against its fields.
Check = Callable[[Mapping[str, str], Report], "list[str]"]
CHECKS: dict[str, Check] = {"mutants": mutants.complaints, "alternatives": alternatives.complaints}

RIGHT, WRONG, CANNOT_GRADE, INTERRUPTED = 0, 1, 3, 130


@dataclass(frozen=True)
class Variant:
    """A patched solution."""

    kind: str                        # "mutants" or "alternatives"
    lab: int
    name: str
    patch: Path
    source: Path                     # the solution's file that the patch changes
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def what(self) -> str:
        return self.fields["what"]

    @property
    def folder(self) -> Path:
        """The folder for everything made from it."""
        return BUILD / self.kind / f"lab{self.lab}" / self.name


def read_variants(kind: str, lab: int) -> list[Variant]:
    """The variants of a lab, sorted by name."""
    paths = sorted((LABS[lab].grading / kind).glob("*.patch"))
    return [_read(kind, lab, path) for path in paths]


def _read(kind: str, lab: int, path: Path) -> Variant:
    text = path.read_text()
    fields = dict(re.findall(r"^# (\w+): (.+)$", text, re.M))
    source = re.search(r"^\+\+\+ b/(solutions/\S+)$", text, re.M)
    if not source or "what" not in fields:
        raise ValueError(f"{path} has no '# what:' line or is not a patch of a solution")
    return Variant(kind, lab, path.stem, path, ROOT / source[1], fields)


def make_module(variant: Variant) -> Path:
    """The patched module, in build/."""
    module = variant.folder / variant.source.name
    module.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["patch", "--silent", "--no-backup-if-mismatch", f"--output={module}",
                           str(variant.source), str(variant.patch)], cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise CannotGrade(f"{variant.patch.relative_to(ROOT)} no longer fits {variant.source.name}:\n"
                          f"{done.stdout}", "recreate the patch from the current solution")
    return module


def grade_variant(variant: Variant, seed: int, backend: str, pick: Pick) -> Report:
    """Grades the lab with this module instead of the solution's."""
    choice = Choice(seed, module=make_module(variant), backend=backend, folder=variant.folder / "results")
    return grade_and_keep(labs.load(variant.lab), choice, pick)


def check_all(variants: Sequence[Variant], seed: int, backend: str, pick: Pick) -> bool:
    """Grades and reports each one; returns whether all are graded as expected."""
    passed, jobs = 0, os.cpu_count() or 1
    print(f"modules to grade: {len(variants)}, {jobs} at a time", flush=True)

    def checked(variant: Variant) -> tuple[list[str], float]:
        start = time.monotonic()
        wrong = CHECKS[variant.kind](variant.fields, grade_variant(variant, seed, backend, pick))
        return wrong, time.monotonic() - start

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for variant, (wrong, seconds) in zip(variants, pool.map(checked, variants)):
                passed += not wrong
                verdict = "FAILED" if wrong else "ok"
                print(f"lab {variant.lab} {variant.name}: {variant.what}: {verdict} ({seconds:.0f} s)",
                      *("    " + complaint for complaint in wrong), sep="\n", flush=True)
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)    # a normal exit would wait for the running gradings
    kind = variants[0].kind if variants else "variants"
    print(f"{passed} of {len(variants)} {kind} graded as expected (seed {seed})")
    return passed == len(variants)


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="grader.quality.variants", description=str(__doc__).splitlines()[0])
    parser.add_argument("kind", choices=list(CHECKS))
    parser.add_argument("--lab", type=int, choices=labs.NUMBERS, help="the lab; default: all")
    parser.add_argument("--only", default="", metavar="NAME", help="just this one")
    parser.add_argument("--seed", type=int, default=new_seed(), help="seed of the random values")
    parser.add_argument("--backend", default="auto", help="auto, kvm or vm: where the VMM runs")
    parsed = parser.parse_args(arguments)
    chosen = [variant for number in ([parsed.lab] if parsed.lab else labs.NUMBERS)
              for variant in read_variants(parsed.kind, number) if parsed.only in ("", variant.name)]
    try:
        right = check_all(chosen, parsed.seed, parsed.backend, Picker(parsed.backend))
    except CannotGrade as error:
        print(f"cannot grade: {error}", file=sys.stderr)
        return CANNOT_GRADE
    return RIGHT if right and chosen else WRONG


if __name__ == "__main__":
    run_command(main)
