"""`make status`: the progress of each lab from the latest gradings, and the next exercise."""

from __future__ import annotations


from grader import labs
from grader.course import LABS
from grader.core.framework import POINTS_OF_A_LAB
from grader.core.grading import path_text
from grader.execution.tool import in_colour, run_command
from grader.report.causes import next_lines
from grader.report.progress import Progress, read

_COLOURS = {"ok": "32", "FAILED": "31", "todo": "33", "-": "2"}


def status_lines(all_progress: list[Progress], colour: bool = False) -> list[str]:
    """One line per lab, notes on outdated gradings, and the next thing to do."""
    lines: list[str] = []
    notes: list[str] = []
    for progress in all_progress:
        number = progress.lab.number
        if not progress.kinds:
            lines.append(f"Lab {number}, {progress.lab.title}: not graded yet")
            continue
        mark = "*" if progress.changed else " "
        head = f"Lab {number}, {progress.lab.title}: {progress.points} of {POINTS_OF_A_LAB}{mark}"
        lines.append(head.rstrip())
        words = [(exercise, progress.exercise(exercise)) for exercise in progress.lab.exercises()]
        lines.append("   " + "   ".join(f"{exercise} {_painted(word, colour)}" for exercise, word in words))
        if progress.changed:
            notes.append(f"* lab {number}'s file has changed since it was graded: make grade LAB={number}")
    total = sum(progress.points for progress in all_progress)
    possible = len(all_progress) * POINTS_OF_A_LAB
    lines += [*notes, "", f"Total: {total} of {possible} points", *_next(all_progress)]
    return lines


def _painted(word: str, colour: bool) -> str:
    return f"\033[{_COLOURS[word]}m{word}\033[0m" if colour else word


def _next(all_progress: list[Progress]) -> list[str]:
    for progress in all_progress:
        test = progress.first_open()
        if not test:
            continue
        lab = LABS[progress.lab.number]
        if test.id not in progress.kinds:
            return [f"Next: make grade LAB={lab.number}; read {path_text(lab.handout)} first."]
        return [*next_lines(lab.number, progress.exercise_of(test)),
                f"make watch LAB={lab.number} grades at every save."]
    return ["All done. The challenges at the end of each handout go further."]


def main() -> int:
    """Prints the status."""
    print("\n".join(status_lines([read(labs.load(number)) for number in labs.NUMBERS], in_colour())))
    return 0


if __name__ == "__main__":
    run_command(main)
