"""Grading one submission: read, and put in a clean tree; its grader compiles it in a jail and runs it
in the lab VM."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from grader.core.building import clean_environment
from grader.classroom.archives import Refused
from grader.classroom.record import GRADED, MACHINE, REFUSED, Record, TestScore, key_of, load
from grader.classroom.submissions import Contents, Submission, read
from grader.classroom.tree import Tree
from grader.core.readable import file_name, printable
from grader.core.version import kit_version
from grader.course import Lab
from grader.execution.runs import CannotGrade

# Seconds for all tests of a lab: the last resort, because it gives no score. What a submission can use up is
# its budget (grader/execution/budget.py); where that takes longer, the solution takes over 20 minutes.
TIMEOUT = 4 * 3600.0
OVERLOAD = 3.0      # runnable processes per processor: from there on a lack of time is the machine's fault
FULL_SCORE, LESS = 0, 1


@dataclass(frozen=True)
class Settings:
    """What is the same for a whole class."""

    lab: Lab
    seed: int
    reports: Path        # each submission has a folder here
    results: Path | None = None      # where the grader writes results.json after each test

    def folder(self, submission: Submission) -> Path:
        return self.reports / file_name(submission.name)

    def key(self, contents: Contents) -> str:
        return key_of({**contents.files, **contents.headers}, self.lab.number, self.seed, kit_version(),
                      os.environ.get("CC", ""))


class Processes:
    """The graders at work, so that an interruption can end them all."""

    def __init__(self) -> None:
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: list[str], folder: Path, output: Path) -> int:
        """Runs a command to its end and ends all that it leaves behind; its exit status."""
        with open(output, "wb") as report:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], cwd=folder,
                                       env=clean_environment(), stdin=subprocess.DEVNULL, stdout=report,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        self._running.add(process)
        if self.stopped:
            _kill(process)
        try:
            return process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            _kill(process)
            self._running.discard(process)

    def stop(self) -> None:
        """Ends all; nothing starts any more."""
        self.stopped = True
        for process in list(self._running):
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def finished(settings: Settings, submission: Submission) -> Record | None:
    """The record of an earlier time, if it is of the same files and settings and no machine was at fault."""
    record = load(settings.folder(submission))
    if record is None or record.status == MACHINE or record.name != submission.name:
        return None
    try:
        key = settings.key(read(submission, settings.lab))
    except Refused as error:
        return record if record.status == REFUSED and record.reason == str(error) else None
    except Exception:  # it is tried again, and what is wrong becomes its record
        return None
    return record if record.status == GRADED and record.key == key else None


def grade_one(settings: Settings, submission: Submission, tree: Tree, processes: Processes) -> Record:
    """Grades a submission; its report and record are then in its folder. Whatever goes wrong with one is said
    in its record: the others are graded."""
    began = time.monotonic()
    folder = settings.folder(submission)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.txt").unlink(missing_ok=True)
        record = _read_and_graded(settings, submission, tree, processes)
        record = dataclasses.replace(record, seconds=round(time.monotonic() - began, 1))
        if not processes.stopped:
            record.save(folder)
    except CannotGrade as error:
        record = not_graded(submission, error.reason)
    except Exception as error:
        record = not_graded(submission, f"{type(error).__name__}: {error}")
    if record.status == MACHINE and not (folder / "report.txt").exists():
        with contextlib.suppress(OSError):
            (folder / "report.txt").write_text(f"This submission {printable(record.reason, 2000)}\n")
    return record


def not_graded(submission: Submission, reason: str) -> Record:
    """The record of one that this machine could not grade. It is kept nowhere: the next run tries again."""
    return Record(submission.name, "", MACHINE, f"could not be graded: {reason}")


def _read_and_graded(settings: Settings, submission: Submission, tree: Tree, processes: Processes) -> Record:
    report = settings.folder(submission) / "report.txt"
    try:
        contents = read(submission, settings.lab)
    except Refused as error:
        report.write_text(f"This submission was not graded: {printable(str(error), 2000)}\n")
        return Record(submission.name, "", REFUSED, str(error))
    tree.put({**contents.files, **contents.headers})
    return _graded(settings, submission, contents, tree, processes)


def _graded(settings: Settings, submission: Submission, contents: Contents, tree: Tree,
            processes: Processes) -> Record:
    """Runs the grader in the tree. Raises CannotGrade."""
    report = settings.folder(submission) / "report.txt"
    results = settings.results or tree.folder / "results"
    (results / "results.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "grader", "grade", "--lab", str(settings.lab.number), "--backend", "vm",
               "--encrypted", "--jailed", "--jobs", "1", "--seed", str(settings.seed),
               "--results", str(results)]
    command += ["--live"] if settings.results else []
    status = processes.run(command, tree.folder, report)
    if status not in (FULL_SCORE, LESS):
        raise CannotGrade(_last_words(report, status), "")
    if not tree.is_ours():
        raise CannotGrade("another machine took this one for dead and removed its files", "")
    try:
        found = json.loads((results / "results.json").read_text())
        tests = [TestScore(test["name"], test["score"], test["max_score"]) for test in found["tests"]]
        late, compiles = found["extra_data"]["late"], found["extra_data"]["compiles"]
    except (OSError, ValueError, KeyError) as error:
        raise CannotGrade(f"the grader left no results: {error}", "") from error
    if late and _overloaded():
        raise CannotGrade(f"{late} runs were stopped for time on an overloaded machine: grade again with "
                          "fewer JOBS", "")
    return Record(submission.name, settings.key(contents), GRADED, "" if compiles else "does not compile",
                  found["score"], sum(test.possible for test in tests), tests, contents.kit)


def _overloaded() -> bool:
    """Whether this machine had so much to do that a right program may have run out of time."""
    return os.getloadavg()[0] > OVERLOAD * (os.cpu_count() or 1)


def _last_words(report: Path, status: int) -> str:
    """Why the grader could not grade, from the end of what it said. What a submission printed is indented."""
    lines = [line.rstrip() for line in report.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("cannot grade: ")] or lines[-1:]
    return (told[-1].strip() if told else "the grader said nothing")[:300] + f" (exit status {status})"
