"""The report for machines: Gradescope's results.json, JUnit's XML, Autolab's last line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from grader.core.grading import Graded, Report
from grader.core.judge import Kind
from grader.core.readable import printable, printable_lines
from grader.core.whole_file import write_whole
from grader.report.text import failure_lines

_GRADESCOPE_STATUS = {Kind.OK: "passed"}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def write_files(report: Report) -> None:
    """results.json and junit.xml into the report's folder."""
    write_results(report)
    (report.folder / "junit.xml").write_text(junit(report))


def write_results(report: Report) -> None:
    """Only results.json, replaced atomically."""
    report.folder.mkdir(parents=True, exist_ok=True)
    write_whole(report.folder / "results.json", json.dumps(gradescope(report), indent=2) + "\n")


def gradescope(report: Report) -> dict[str, object]:
    """Gradescope's "Autograder Output": gradescope-autograders.readthedocs.io, Specifications."""
    tests: list[dict[str, object]] = []
    for graded in report.graded:
        verdict = graded.verdict
        tests.append({
            "number": verdict.test.exercise,
            "name": f"{verdict.test.id}: {verdict.test.title}",
            "score": verdict.points,
            "max_score": verdict.test.points,
            "status": _GRADESCOPE_STATUS.get(verdict.kind, "failed"),
            "output": _output(report, graded),
            "output_format": "text",
            "visibility": "visible",
        })
    return {
        "score": report.score,
        "execution_time": round(report.seconds),
        "output": ("\n".join(printable_lines(report.build_error))
                   or f"Lab {report.lab.number}, {report.lab.title}"),
        "output_format": "text",
        "visibility": "visible",
        "tests": tests,
        "extra_data": {"lab": report.lab.number, "seed": report.choice.seed, "late": report.late,
                       "compiles": not report.build_error},
    }


def junit(report: Report) -> str:
    """JUnit's XML: one suite for the lab, one case per test."""
    suite = ElementTree.Element("testsuite", {
        "name": f"lab{report.lab.number}",
        "tests": str(len(report.graded)),
        "failures": str(sum(v.kind in (Kind.FAILED, Kind.TODO) for v in report.verdicts)),
        "errors": str(sum(v.kind is Kind.CANNOT for v in report.verdicts)),
        "skipped": "0",
        "time": f"{report.seconds:.3f}",
    })
    for graded in report.graded:
        verdict = graded.verdict
        case = ElementTree.SubElement(suite, "testcase", {
            "classname": f"lab{report.lab.number}.{verdict.test.exercise}",
            "name": verdict.test.id,
            "time": f"{sum(result.wall for result in graded.results):.3f}",
        })
        if verdict.kind is not Kind.OK:
            tag = "error" if verdict.kind is Kind.CANNOT else "failure"
            found = printable(verdict.mismatch.text) if verdict.mismatch else verdict.kind.value
            message = verdict.hint or found
            ElementTree.SubElement(case, tag, {"message": _xml(message), "type": verdict.kind.value}
                                   ).text = _xml(_output(report, graded))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def autolab(reports: Sequence[Report]) -> str:
    """The last line that Autolab reads the scores from."""
    return json.dumps({"scores": {f"lab{report.lab.number}": report.score for report in reports}})


def _output(report: Report, graded: Graded) -> str:
    """What a learner reads about one test."""
    verdict = graded.verdict
    if verdict.kind is Kind.OK:
        return ""
    if verdict.todo:
        todo = verdict.todo
        return f"Exercise {todo.exercise} is not written yet: {todo.file}, line {todo.line}"
    return "\n".join(failure_lines(report, graded, details=True))


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("?", text)
