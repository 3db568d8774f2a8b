"""The report on the terminal: a table, the first failure with its hint, the next exercise, the score."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence

from grader.core.exercises import first_todo, todo_lines
from grader.core.framework import POINTS_OF_A_LAB
from grader.core.grading import Graded, Report, path_text
from grader.core.judge import Kind, Verdict
from grader.core.outcome import Outcome
from grader.core.readable import beside, both_ends, first_lines, printable_lines
from grader.course import LABS
from grader.execution.tool import in_colour
from grader.report import causes
from grader.report.causes import failures, first_open

WIDTH = 96
EXPLAINS = re.compile("^  the chain of events: make explain ", re.M)  # common/debug/post_mortem.c
_COLOURS = {Kind.OK: "32", Kind.FAILED: "31", Kind.TODO: "33", Kind.CANNOT: "35"}


def print_report(report: Report) -> None:
    """Prints the whole report on standard output."""
    print("\n".join(report_lines(report, in_colour())), flush=True)


def report_lines(report: Report, colour: bool = False) -> list[str]:
    """The lines of the report."""
    lines = [*_table(report, colour), ""]
    if report.build_error:
        lines += ["Your module does not compile:",
                  *("  " + line for line in first_lines(report.build_error, 30)), ""]
    else:
        cannot = [graded for graded in report.graded if graded.verdict.kind is Kind.CANNOT]
        for number, (first, *others) in enumerate([cannot[:1]] * bool(cannot) + failures(report.graded)):
            lines += [*failure_lines(report, first, number == 0, colour), *_others(others), ""]
    lines += next_lines(report)
    lines.append(_score(report))
    return lines


def _table(report: Report, colour: bool) -> Iterable[str]:
    yield f"Lab {report.lab.number}, {report.lab.title}: seed {report.choice.seed}"
    width = max(len(v.test.title) for v in report.verdicts)
    before = ""
    for verdict in report.verdicts:
        exercise = verdict.test.exercise if verdict.test.exercise != before else ""
        before = verdict.test.exercise
        word = f"waits for {waits_for(verdict)}" if waits_for(verdict) else verdict.kind.value
        if colour:
            word = f"\033[{_COLOURS[verdict.kind]}m{word}\033[0m"
        points = f"{verdict.points:3}/{verdict.test.points:<3}"
        yield f"  {exercise:4} {verdict.test.title:{width}}  {points} {word}"


def waits_for(verdict: Verdict) -> str:
    """The later exercise that stopped a test because it is not written yet; or nothing."""
    todo = verdict.todo
    return todo.exercise if todo and todo.exercise != verdict.test.exercise else ""


def failure_lines(report: Report, graded: Graded, details: bool, colour: bool = False) -> list[str]:
    """The report on a failed test: the hint first."""
    verdict = graded.verdict
    lines = [f"{verdict.test.id}: {verdict.test.title}: {verdict.kind.value}"]
    if verdict.hint:
        lines += textwrap.wrap(verdict.hint, WIDTH, initial_indent="  hint: ", subsequent_indent="        ")
    if verdict.mismatch:
        lines += ["  " + line for line in printable_lines(verdict.mismatch.text.rstrip("\n"))]
    if details:
        lines += ["    " + line for line in evidence(graded, colour)]
        if graded.planned:
            lines.append(f"  details: {path_text(report.folder / verdict.test.id)}/")
        lines.append(f"  rerun:   {report.choice.command(report.lab.number, verdict.test.id)}")
        lines += _explain(report, graded)
    return lines


def _explain(report: Report, graded: Graded) -> list[str]:
    """The command that explains a crash, with the run's input. The post-mortem has it as well, but who wrote
    the module can print there what they like, and a command of a report is typed by others."""
    number = graded.verdict.failed
    if number is None or report.choice.module or \
            not EXPLAINS.search(Outcome(graded.results[number]).words):
        return []
    run, folder = graded.planned[number].run, path_text(report.folder / graded.verdict.test.id)
    words = [path_text(word) for word in run.argv[1:]]
    values = {"GUESTS": [word for word in words if not word.startswith("-")],
              "ARGS": [word for word in words if word.startswith("-")]}
    given = [f'{name}="{" ".join(found)}"' for name, found in values.items() if found]
    stdin = [f"< {folder}/run{number + 1}.stdin"] if run.stdin else []
    made = ["make explain", f"LAB={report.lab.number}", *report.choice.variables()]
    return [f"  explain: {' '.join([*made, *given, *stdin])}"]


def _others(others: Sequence[Graded]) -> list[str]:
    """The tests that failed for the same reason."""
    names = ", ".join(graded.verdict.test.id for graded in others)
    return textwrap.wrap(names, WIDTH, initial_indent="  also:    ", subsequent_indent="           ",
                         break_on_hyphens=False)


def evidence(graded: Graded, colour: bool = False) -> list[str]:
    """Expected next to got, the program's messages, and what its processes did when it was stopped."""
    verdict = graded.verdict
    lines: list[str] = []
    if verdict.mismatch and verdict.mismatch.expected is not None:
        lines += beside(verdict.mismatch.expected, verdict.mismatch.got or "", colour)
    if verdict.failed is None:
        return lines
    result = graded.results[verdict.failed]
    words = Outcome(result).words
    if words.strip():
        lines += ["standard error:", *("  " + line for line in both_ends(words))]
    if result.diagnosis.strip():
        lines += ["when it was stopped:", *("  " + line for line in both_ends(result.diagnosis))]
    return lines


def next_lines(report: Report) -> list[str]:
    """The exercise to work on next; empty if all are done."""
    found = first_open(report.graded)
    if not found or report.build_error:
        return []
    graded, exercise = found
    todo = graded.verdict.todo
    if not todo:
        return causes.next_lines(report.lab.number, exercise)
    lab = LABS[report.lab.number]
    first = first_todo(lab) if todo.file in map(path_text, lab.learner_files()) else None
    if not first or first.exercise > exercise:
        return causes.next_lines(report.lab.number, exercise, f"{todo.file}, line {todo.line}")
    # In the learner's own files: all the TODOs of the first exercise. A chosen test may wait for a later one.
    return causes.next_lines(report.lab.number, first.exercise,
                             f"{path_text(first.path)}, {todo_lines(first.path, first.exercise)}")


def _score(report: Report) -> str:
    passed = sum(v.kind is Kind.OK for v in report.verdicts)
    if report.filtered:
        later = sorted({waits_for(v) for v in report.verdicts} - {""})
        return (f"{passed} of {len(report.verdicts)} chosen tests passed. (Only the whole lab has a score.)"
                + (f"\nSome tests wait for exercise {' and '.join(later)}: grade them again later."
                   if later else ""))
    if report.cannot:
        return "No score: this machine could not run all tests."
    share = f" (the file's share of the lab's {POINTS_OF_A_LAB})" if report.partial else ""
    return f"Score: {report.score} of {report.possible}{share}"


def total_line(reports: Sequence[Report]) -> str:
    """All labs in one line."""
    points = ", ".join(f"lab {r.lab.number}: {'cannot' if r.cannot else r.score}" for r in reports)
    return f"All labs: {points}"


def save(report: Report) -> None:
    """Saves each test in its folder: the output of its runs, the compared texts, the verdict."""
    for graded in report.graded:
        folder = report.folder / graded.verdict.test.id
        for number, (planned, result) in enumerate(zip(graded.planned, graded.results), 1):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"run{number}.command").write_text(
                shlex.join(path_text(word) for word in planned.run.argv) + "\n")
            (folder / f"run{number}.stdin").write_bytes(planned.run.stdin)
            (folder / f"run{number}.stdout").write_bytes(result.stdout)
            (folder / f"run{number}.stderr").write_bytes(result.stderr)
        _save_verdict(report, graded)


def _save_verdict(report: Report, graded: Graded) -> None:
    verdict: Verdict = graded.verdict
    folder = report.folder / verdict.test.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verdict").write_text("\n".join(failure_lines(report, graded, True)) + "\n")
    for name in ("expected", "got"):
        text = getattr(verdict.mismatch, name, None)
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(text.encode("latin-1", "replace"))
