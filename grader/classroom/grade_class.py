"""`make grade-class LAB=3 SUBMISSIONS=folder`: grades every submission in a folder.

Each is compiled in a jail and run in the lab VM, never on this machine itself; several at once. All get the
same random values. What is done is kept: the same command goes on after an interruption, grades again what
has changed, and tries again what the machine could not grade.

    build/class/lab3/index.html     the class: scores, the tests most failed, who could not be graded and why
    build/class/lab3/scores.csv     one line per submission
    build/class/lab3/reports/NAME/  report.txt for the learner, and record.json

On many machines that share a folder, one submission per job (Slurm, GNU parallel): --only NAME grades one
and leaves the page to a last run without it, which finds all done; --list prints the names for --only. What
another process is grading is left to it.

Exit status: 0 every submission was graded or refused; 1 some could not be graded here; 2 wrong usage;
3 nothing can be graded on this machine; 130 interrupted, 128 + N ended by signal N.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grader.core.building import NO_SANITIZERS
from grader.execution.backends import pick_backend
from grader.classroom.class_page import write_page
from grader.classroom.claims import Claims
from grader.classroom.grade_one import Processes, Settings, finished, grade_one, not_graded
from grader.classroom.record import GRADED, MACHINE, Record
from grader.classroom.scores import write_csv
from grader.classroom.submissions import Submission, find, left_out
from grader.classroom.tree import Tree, remove_stale
from grader.core.readable import file_name, printable
from grader.course import BUILD, LABS
from grader.execution.runs import CannotGrade
from grader.core.values import new_seed_for_strangers
from grader.execution.tool import run_command

CANNOT_GRADE = 3
END_SECONDS = 10.0     # for its children to end, after a signal to end
SEED_SECONDS = 5.0     # for another process to write the seed that it has chosen


class Ended(BaseException):
    """A signal, Ctrl-C's or another, ends this process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Events:
    """What the main thread waits for: a worker that has ended, or a signal. An exception in a handler
    could break what it interrupts: it is raised only while nothing is at work."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._workers = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)      # once is enough
        if not self._workers:
            raise Ended(number)
        self._queue.put(number)

    def run(self, work: Callable[[], None], workers: int, stop: Callable[[], None]) -> None:
        """Runs `work` in so many threads. A signal calls `stop`, lets them end, and raises Ended."""
        def work_and_say_so() -> None:
            try:
                work()
            finally:
                self._queue.put(0)

        self._workers, number, end = workers, 0, float("inf")
        for _ in range(workers):
            threading.Thread(target=work_and_say_so, daemon=True).start()
        while self._workers and time.monotonic() < end:
            try:
                event = self._queue.get(timeout=END_SECONDS)
            except queue.Empty:
                continue
            if event:
                number, end = event, time.monotonic() + END_SECONDS
                stop()
            else:
                self._workers -= 1
        self._workers = 0
        if number:
            raise Ended(number)


class Progress:
    """A line for each submission that is done, with the time that is left."""

    def __init__(self, total: int, jobs: int) -> None:
        self._total, self._jobs = total, jobs
        self._took: list[float] = []
        self._lock = threading.Lock()

    def tell(self, record: Record) -> None:
        with self._lock:
            self._took.append(record.seconds)
            left = (self._total - len(self._took)) * sum(self._took) / len(self._took) / self._jobs
            result = (f"{record.score:g}/{record.possible:g}" if record.status == GRADED else record.status)
            note = f"  {printable(record.reason)}" if record.reason else ""
            print(f"[{len(self._took):3}/{self._total}] {_span(left):>6} left  "
                  f"{printable(record.name)}: {result}{note}", flush=True)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def class_seed(folder: Path, wanted: int | None) -> int:
    """The seed of this class: as wanted, as at the first run, or new. Several first runs agree on one."""
    path = folder / "class.json"
    folder.mkdir(parents=True, exist_ok=True)
    if wanted is not None:
        path.write_text(json.dumps({"seed": wanted}) + "\n")
        return wanted
    try:
        with open(path, "x") as file:
            file.write(json.dumps({"seed": new_seed_for_strangers()}) + "\n")
    except FileExistsError:
        pass
    end = time.monotonic() + SEED_SECONDS
    while True:
        try:
            return int(json.loads(path.read_text())["seed"])
        except (ValueError, KeyError, TypeError) as error:
            if time.monotonic() > end:
                raise CannotGrade(f"{path} has no seed", "remove it; or say which: SEED=N") from error
        time.sleep(0.1)


def grade_all(settings: Settings, submissions: list[Submission], jobs: int, out: Path,
              events: Events) -> dict[str, Record]:
    """Grades these, `jobs` at a time; their records by name. A signal ends all that was started."""
    waiting: queue.SimpleQueue[Submission] = queue.SimpleQueue()
    for submission in submissions:
        waiting.put(submission)
    processes, progress = Processes(), Progress(len(submissions), jobs)
    trees, claims = Claims(out / "trees"), Claims(out / "claims")
    remove_stale(trees)
    records: dict[str, Record] = {}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            tree = Tree(trees, settings.lab)
            try:
                while not processes.stopped:
                    record = _claimed(settings, waiting.get_nowait(), tree, processes, claims)
                    if not processes.stopped:
                        records[record.name] = record
                        progress.tell(record)
            finally:
                tree.remove()
        except queue.Empty:
            pass
        except BaseException as error:  # raised again below, in the main thread
            failures.append(error)
            processes.stop()

    try:
        events.run(work, min(jobs, len(submissions)), processes.stop)
    finally:
        trees.close()
        claims.close()
    if failures:
        raise failures[0]
    return records


def _claimed(settings: Settings, submission: Submission, tree: Tree, processes: Processes,
             claims: Claims) -> Record:
    """Grades a submission unless another process does, or has done meanwhile."""
    name = file_name(submission.name)
    if not claims.take(name):
        return not_graded(submission, f"{claims.holder(name)} is grading it")
    try:
        return finished(settings, submission) or grade_one(settings, submission, tree, processes)
    finally:
        claims.release(name)


def grade_class(settings: Settings, submissions: list[Submission], jobs: int, out: Path,
                events: Events) -> list[Record]:
    """Grades what is not done yet; the records of all."""
    done = {submission.name: finished(settings, submission) for submission in submissions}
    todo = [submission for submission in submissions if done[submission.name] is None]
    if len(todo) < len(submissions):
        print(f"{len(submissions) - len(todo)} of {len(submissions)} were done before")
    if todo:
        print(f"submissions to grade: {len(todo)}, {min(jobs, len(todo))} at a time", flush=True)
        pick_backend("vm")
        done.update(grade_all(settings, todo, jobs, out, events))
    for submission in submissions:
        record = done[submission.name]
        if record is None or record.status == MACHINE:     # another process may have graded it meanwhile
            done[submission.name] = finished(settings, submission) or record
    return [done[submission.name] or not_graded(submission, "it had no turn") for submission in submissions]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make grade-class", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=LABS, required=True)
    parser.add_argument("--submissions", type=Path, required=True, help="the folder of submissions")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="submissions at a time")
    parser.add_argument("--seed", type=int, help="of the random values; chosen and kept without it")
    parser.add_argument("--out", type=Path, help="where results go; build/class/labN without it")
    parser.add_argument("--only", metavar="NAME", help="grade one submission, and write no page")
    parser.add_argument("--list", action="store_true", help="print the submissions' names")
    arguments = parser.parse_args()
    if not arguments.submissions.is_dir() or str(arguments.submissions) == "":
        print("Say where the submissions are: make grade-class LAB=3 SUBMISSIONS=folder", file=sys.stderr)
        return 2
    if os.environ.get("SANITIZE"):
        parser.error(NO_SANITIZERS)
    submissions = find(arguments.submissions)
    if arguments.list:
        print("\n".join(file_name(submission.name) for submission in submissions))
        return 0
    note = left_out(arguments.submissions)
    if note and not arguments.only:
        print(note)
    if arguments.only:
        submissions = [submission for submission in submissions
                       if arguments.only in (submission.name, file_name(submission.name))]
    if not submissions:
        print(f"There is no such submission in {arguments.submissions}", file=sys.stderr)
        return 2
    lab = LABS[arguments.lab]
    out = (arguments.out or BUILD / "class" / f"lab{lab.number}").absolute()
    settings = Settings(lab, class_seed(out, arguments.seed), out / "reports")
    began = time.monotonic()
    try:
        records = grade_class(settings, submissions, max(1, arguments.jobs), out, Events())
    except CannotGrade as error:
        print(f"cannot grade: {error}", file=sys.stderr)
        return CANNOT_GRADE
    except Ended as ended:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 128 + ended.number
    if not arguments.only:
        write_csv(records, out / "scores.csv")
        write_page(lab, settings.seed, records, out / "index.html", note)
        print(f"{len(records)} submissions in {_span(time.monotonic() - began)}: "
              f"{os.path.relpath(out)}/index.html, scores.csv, reports/")
    return 1 if any(record.status == MACHINE for record in records) else 0


if __name__ == "__main__":
    run_command(main, lasting=True)
