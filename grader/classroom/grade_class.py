"""`make grade-class LAB=3 SUBMISSIONS=folder`: grades every hand-in of a folder.

Each is compiled in a jail and run in the lab VM, never on this machine itself; several at once. All get the
same random values. What is done is kept: the same command goes on after an interruption, grades again what
has changed, and tries again what the machine could not grade.

    build/class/lab3/index.html     the class: scores, the tests most failed, who could not be graded and why
    build/class/lab3/scores.csv     a line a hand-in
    build/class/lab3/reports/NAME/  report.txt for the learner, and record.json

On many machines that share a folder, one hand-in a job (Slurm, GNU parallel): --only NAME grades that one
and leaves the page to a last run without it, which finds all done; --list prints the names.

Exit status: 0 every hand-in was graded or refused; 1 some could not be graded here; 2 wrong usage;
3 nothing can be graded on this machine; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Optional

from grader.execution.backends import pick_backend
from grader.classroom.class_page import write_page
from grader.classroom.compiling import check_jail
from grader.classroom.grade_one import Processes, Settings, finished, grade_one
from grader.classroom.record import GRADED, MACHINE, Record
from grader.classroom.scores import write_csv
from grader.classroom.submissions import Submission, find
from grader.classroom.tree import Tree
from grader.course import BUILD, LABS
from grader.execution.c_tools import locked
from grader.execution.runs import CannotGrade
from grader.core.values import new_seed
from grader.execution.tool import run_command

CANNOT_GRADE, INTERRUPTED = 3, 130


class Progress:
    """A line for each hand-in that is done, with the time that is left."""

    def __init__(self, total: int, jobs: int) -> None:
        self._total, self._jobs = total, jobs
        self._took: list[float] = []
        self._lock = threading.Lock()

    def tell(self, record: Record) -> None:
        with self._lock:
            self._took.append(record.seconds)
            left = (self._total - len(self._took)) * sum(self._took) / len(self._took) / self._jobs
            result = (f"{record.score:g}/{record.possible:g}" if record.status == GRADED else record.status)
            note = f"  {record.reason}" if record.reason else ""
            print(f"[{len(self._took):3}/{self._total}] {_span(left):>6} left  {record.name}: {result}{note}",
                  flush=True)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def class_seed(folder: Path, wanted: Optional[int]) -> int:
    """The seed of this class: as wanted, as at the first run, or new. Several first runs agree on one."""
    path = folder / "class.json"
    folder.mkdir(parents=True, exist_ok=True)
    if wanted is not None:
        path.write_text(json.dumps({"seed": wanted}) + "\n")
        return wanted
    with locked(folder / ".class.lock"):
        if not path.exists():
            partial = folder / "class.json.partial"
            partial.write_text(json.dumps({"seed": new_seed()}) + "\n")
            partial.replace(path)
    return int(json.loads(path.read_text())["seed"])


def grade_all(settings: Settings, submissions: list[Submission], jobs: int, trees: Path) -> None:
    """Grades these, `jobs` at a time. KeyboardInterrupt ends all that was started."""
    waiting: queue.SimpleQueue[Submission] = queue.SimpleQueue()
    for submission in submissions:
        waiting.put(submission)
    processes, progress = Processes(), Progress(len(submissions), jobs)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        tree = Tree(trees / f"{os.getpid()}-{number}", settings.lab)
        try:
            while not processes.stopped:
                record = grade_one(settings, waiting.get_nowait(), tree, processes)
                if not processes.stopped:
                    progress.tell(record)
        except queue.Empty:
            pass
        except BaseException as error:  # raised again below, in the main thread
            failures.append(error)
            processes.stop()
        finally:
            tree.remove()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(min(jobs, len(submissions)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        processes.stop()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]


def remove_stale(trees: Path) -> None:
    """Takes away the trees of gradings that were killed; a tree's name begins with its process's number."""
    for tree in trees.glob("*"):
        if not Path("/proc", tree.name.partition("-")[0]).exists():
            shutil.rmtree(tree, ignore_errors=True)


def grade_class(settings: Settings, submissions: list[Submission], jobs: int, out: Path) -> list[Record]:
    """Grades what is not done yet; the records of all."""
    done = {submission.name: finished(settings, submission) for submission in submissions}
    todo = [submission for submission in submissions if done[submission.name] is None]
    if len(todo) < len(submissions):
        print(f"{len(submissions) - len(todo)} of {len(submissions)} were done before")
    if todo:
        check_jail()
        pick_backend("vm")
        remove_stale(out / "trees")
        grade_all(settings, todo, jobs, out / "trees")
    records = [finished(settings, submission) or _left(settings, submission) for submission in submissions]
    return records


def _left(settings: Settings, submission: Submission) -> Record:
    """The record of one that the machine could not grade."""
    try:
        fields = json.loads((settings.folder(submission) / "record.json").read_text())
        return Record(submission.name, fields["key"], MACHINE, fields["reason"])
    except (OSError, ValueError, KeyError):
        return Record(submission.name, "", MACHINE, "it was not graded")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make grade-class", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=LABS, required=True)
    parser.add_argument("--submissions", type=Path, required=True, help="the folder of hand-ins")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="hand-ins at a time")
    parser.add_argument("--seed", type=int, help="of the random values; chosen and kept without it")
    parser.add_argument("--out", type=Path, help="where results go; build/class/labN without it")
    parser.add_argument("--only", metavar="NAME", help="grade one hand-in, and write no page")
    parser.add_argument("--list", action="store_true", help="print the hand-ins' names")
    arguments = parser.parse_args()
    if not arguments.submissions.is_dir() or str(arguments.submissions) == "":
        print("Say where the hand-ins are: make grade-class LAB=3 SUBMISSIONS=folder", file=sys.stderr)
        return 2
    submissions = find(arguments.submissions)
    if arguments.list:
        print("\n".join(submission.name for submission in submissions))
        return 0
    if arguments.only:
        submissions = [submission for submission in submissions if submission.name == arguments.only]
    if not submissions:
        print(f"There is no such hand-in in {arguments.submissions}", file=sys.stderr)
        return 2
    lab = LABS[arguments.lab]
    out = (arguments.out or BUILD / "class" / f"lab{lab.number}").absolute()
    settings = Settings(lab, class_seed(out, arguments.seed), out / "reports")
    began = time.monotonic()
    try:
        records = grade_class(settings, submissions, max(1, arguments.jobs), out)
    except CannotGrade as error:
        print(f"cannot grade: {error}", file=sys.stderr)
        return CANNOT_GRADE
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    if not arguments.only:
        write_csv(records, out / "scores.csv")
        write_page(lab, settings.seed, records, out / "index.html")
        print(f"{len(records)} hand-ins in {_span(time.monotonic() - began)}: "
              f"{os.path.relpath(out)}/index.html, scores.csv, reports/")
    return 1 if any(record.status == MACHINE for record in records) else 0


if __name__ == "__main__":
    run_command(main, lasting=True)
