"""Grades and records everything: the results folder, the machine-readable files, the learner's progress.

Two gradings of the same lab at the same time, such as `make watch` and `make grade`, would overwrite each
other's guests, so one waits for the other.
"""

from __future__ import annotations

from grader.report import progress
from grader.core.framework import Lab
from grader.core.grading import Choice, Pick, Report, grade, path_text, results_folder
from grader.execution.c_tools import locked
from grader.report.files import write_files, write_results
from grader.report.text import save


def grade_and_keep(lab: Lab, choice: Choice, pick: Pick) -> Report:
    """Grades the chosen tests. Raises CannotGrade."""
    folder = results_folder(lab, choice)
    with locked(folder.with_name(f".{folder.name}.lock"),
                f"waiting: another command is grading lab {lab.number} in {path_text(folder)}/"):
        report = grade(lab, choice, pick, on_test=write_results if choice.live else None)
        save(report)
        progress.record(report)
        if not report.filtered and not report.cannot:
            write_files(report)
    return report
