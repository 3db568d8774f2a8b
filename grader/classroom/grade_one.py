"""Grading one hand-in: read, compiled in a jail, put on a clean tree whose grader runs it in the lab VM."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from grader import labs
from grader.core.building import clean_environment
from grader.classroom.compiling import CompileError, compile_file
from grader.classroom.record import GRADED, MACHINE, REFUSED, Record, TestScore, folder_name, key_of, load
from grader.classroom.submissions import HandIn, Refused, Submission, read
from grader.classroom.tree import Tree
from grader.core.version import kit_version
from grader.course import Lab
from grader.execution.runs import CannotGrade

TIMEOUT = 3600.0    # seconds for all tests of a lab: each run has far narrower limits of its own
OVERLOAD = 3.0      # runnable processes a processor, from which on the lack of time is no fault of a hand-in
FULL_SCORE, LESS = 0, 1


@dataclass(frozen=True)
class Settings:
    """What is the same for a whole class."""

    lab: Lab
    seed: int
    reports: Path        # a folder a hand-in goes here
    jail: bool = True    # for the compiler; only a container that is thrown away can do without
    results: Path | None = None      # where the grader writes results.json after each test

    def folder(self, submission: Submission) -> Path:
        return self.reports / folder_name(submission.name)

    def key(self, files: dict[str, bytes]) -> str:
        return key_of(files, self.lab.number, self.seed, kit_version())


class Processes:
    """The graders at work, so that an interruption can end them all."""

    def __init__(self) -> None:
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: list[str], folder: Path, output: Path) -> int:
        """Runs a command to its end and ends all that it leaves behind; its exit status."""
        with open(output, "wb") as report:
            process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL,
                                       stdout=report, stderr=subprocess.STDOUT, start_new_session=True)
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
    if record is None or record.status == MACHINE:
        return None
    try:
        key = settings.key(read(submission, settings.lab).files)
    except Refused as error:
        return record if record.status == REFUSED and record.reason == str(error) else None
    return record if record.status == GRADED and record.key == key else None


def grade_one(settings: Settings, submission: Submission, tree: Tree, processes: Processes) -> Record:
    """Grades a hand-in; its report and record are then in its folder."""
    began = time.monotonic()
    folder = settings.folder(submission)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        hand_in = read(submission, settings.lab)
    except Refused as error:
        (folder / "report.txt").write_text(f"This hand-in was not graded: {error}\n")
        record = Record(submission.name, "", REFUSED, str(error))
    else:
        record = _graded(settings, submission, hand_in, tree, processes)
    record = dataclasses.replace(record, seconds=round(time.monotonic() - began, 1))
    if not processes.stopped:
        record.save(folder)
    return record


def _graded(settings: Settings, submission: Submission, hand_in: HandIn, tree: Tree,
            processes: Processes) -> Record:
    key, report = settings.key(hand_in.files), settings.folder(submission) / "report.txt"
    try:
        tree.put({name: compile_file(settings.lab.number, name, content, settings.jail)
                  for name, content in hand_in.files.items()})
    except CompileError as error:
        report.write_text(f"It does not compile, so no test could pass:\n\n{error}\n")
        tests = [TestScore(f"{test.id}: {test.title}", 0, test.points)
                 for test in labs.load(settings.lab.number).tests]
        return Record(submission.name, key, GRADED, "does not compile", 0, sum(t.possible for t in tests),
                      tests, hand_in.kit)
    except CannotGrade as error:
        report.write_text(f"{error}\n")
        return Record(submission.name, key, MACHINE, error.reason, kit=hand_in.kit)
    results = settings.results or tree.folder / "results"
    (results / "results.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "grader", "grade", "--lab", str(settings.lab.number), "--backend", "vm",
               "--sealed", "--jobs", "1", "--seed", str(settings.seed), "--results", str(results)]
    command += ["--live"] if settings.results else []
    status = processes.run(command, tree.folder, report)
    if status not in (FULL_SCORE, LESS):
        return Record(submission.name, key, MACHINE, _last_words(report, status), kit=hand_in.kit)
    return _from_results(submission, key, results / "results.json", hand_in.kit)


def _overloaded() -> bool:
    """Whether this machine had so much to do that a right program may have run out of time."""
    return os.getloadavg()[0] > OVERLOAD * (os.cpu_count() or 1)


def _from_results(submission: Submission, key: str, path: Path, kit: str) -> Record:
    """The record from the grader's results.json."""
    try:
        results = json.loads(path.read_text())
        tests = [TestScore(test["name"], test["score"], test["max_score"]) for test in results["tests"]]
        late = results["extra_data"]["late"]
    except (OSError, ValueError, KeyError) as error:
        return Record(submission.name, key, MACHINE, f"the grader left no results: {error}", kit=kit)
    if late and _overloaded():
        return Record(submission.name, key, MACHINE, f"{late} runs were stopped for time on an overloaded "
                      "machine: grade again with fewer JOBS", kit=kit)
    return Record(submission.name, key, GRADED, "", results["score"], sum(test.possible for test in tests),
                  tests, kit)


def _last_words(report: Path, status: int) -> str:
    """Why the grader could not grade, from the end of what it said."""
    lines = [line.strip() for line in report.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "cannot grade" in line] or lines[-1:]
    return (told[-1] if told else "the grader said nothing")[:300] + f" (exit status {status})"
