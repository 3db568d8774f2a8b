"""Whether a release is fit to be handed out: unpacked in an empty folder, it is used as a learner would.

No answer is inside; every lab builds; each skeleton scores 0. And an autograder that is made of it scores the
solution 100: grader/classroom/adapters/.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from grader import labs as graded_labs
from grader.core.building import clean_environment
from grader.classroom.answers import leaks
from grader.core.version import tracked_files
from grader.course import LABS, ROOT, Lab
from grader.execution.progress import Progress

TIMEOUT = 3600.0  # seconds for one command; a machine may be slow
MAY_HAVE = {"Makefile", "README.md", "LICENSE", ".clang-format", ".gitattributes", ".gitignore",
            ".devcontainer", ".vscode", "labs",
            "solutions", "common", "guests", "os-1k", "grader", "handouts"}


def check(tarball: Path, labs: list[int], backend: str) -> list[str]:
    """What is wrong with the release, a sentence each; grades only `labs`."""
    with tempfile.TemporaryDirectory(prefix="mini-kvm-release-") as name:
        with tarfile.open(tarball) as archive:
            archive.extractall(name)  # our own archive, made a moment ago
        folders = list(Path(name).iterdir())
        if len(folders) != 1:
            return ["the tarball has more than one folder at its top"]
        with Progress("checking the release") as progress:
            progress.step("its files")
            return [*_content(folders[0]), *_work(folders[0], labs, backend, progress)]


def _content(folder: Path) -> Iterator[str]:
    """What must not be in it but is, and what must be but is not."""
    for path in sorted(folder.iterdir()):
        if path.name not in MAY_HAVE:
            yield f"{path.name} does not belong in a release"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink():
            yield f"{name} is a link"
        if name.parts[0] == "solutions" and path.is_file() and path.suffix != ".o":
            yield f"{name} is a solution's source"
        if path.name in (".git", "mutants", "cheats", "instructors.md", "mistakes.md"):
            yield f"{name} is not for learners"
    yield from leaks(folder)


def _work(folder: Path, labs: list[int], backend: str, progress: Progress) -> Iterator[str]:
    """What does not work for a learner."""
    for lab in LABS.values():
        progress.step(f"lab {lab.number} builds")
        done = _execute(folder, ["make", "vmm", f"LAB={lab.number}"])
        if done.returncode != 0 or done.stderr:
            yield f"make vmm LAB={lab.number}: {done.stderr.strip() or done.stdout.strip()}"
    graded = [number for number in labs if number in graded_labs.NUMBERS]
    for number in graded:
        command = ["grader", "grade", "--lab", str(number), *(["--backend", backend] if backend else [])]
        yield from _expect_score(folder, LABS[number], command, folder / "build" / "grade" / f"lab{number}",
                                 progress, "the skeleton", 0)
    add_autograder(folder)
    for number in graded:
        with tempfile.TemporaryDirectory(prefix="mini-kvm-release-") as name:
            submission, results = Path(name) / "submission", Path(name) / "results"
            for place in (submission, results):
                place.mkdir()
            for solution in LABS[number].solution_files():
                shutil.copy(solution, submission)
            command = ["grader.classroom.adapters.submission", "--lab", str(number),
                       "--submission", str(submission), "--results", str(results)]
            yield from _expect_score(folder, LABS[number], command, results, progress, "the solution", 100)


def add_autograder(folder: Path) -> None:
    """Adds to a release what grades the submissions of others."""
    for name in tracked_files():
        if name.startswith("grader/classroom/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def _expect_score(folder: Path, lab: Lab, command: Sequence[str], results: Path, progress: Progress,
                  what: str, score: int) -> Iterator[str]:
    """What is wrong with a grading, a module of Python with its arguments."""
    progress.step(f"lab {lab.number}, {what}")
    done = _execute(folder, [sys.executable, "-m", *command])
    try:
        got = json.loads((results / "results.json").read_text())["score"]
    except (OSError, ValueError, KeyError):
        yield (f"lab {lab.number}: {what} could not be graded:\n"
               + "\n".join((done.stdout + done.stderr).splitlines()[-20:]))
        return
    progress.clear()
    print(f"  lab {lab.number}: {what} scores {got}", flush=True)
    if got != score:
        yield f"lab {lab.number}: {what} scores {got}, not {score}"


def _execute(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=clean_environment(), text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=TIMEOUT)
