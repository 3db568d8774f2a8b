"""The class's scores as CSV, and in numbers for the page."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from grader.classroom.record import GRADED, Record
from grader.core.readable import printable
from grader.core.whole_file import write_whole

# Where a spreadsheet would begin a formula, whatever separator it expects; a cell may be in quotes.
_FORMULA = re.compile(r"(^|[,;|])([\s\"']*)(?=[-=+@\uff1d\uff0b\uff0d\uff20])")


def write_csv(records: Sequence[Record], path: Path) -> None:
    """One line per submission: name, status, score, points of each test, reason."""
    tests = list(dict.fromkeys(test.name for record in records for test in record.tests))
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL)
    table.writerow(["name", "status", "score", "possible", "kit", "reason",
                    *(name.partition(":")[0] for name in tests)])
    for record in records:
        points = {test.name: test.score for test in record.tests}
        graded = record.status == GRADED
        table.writerow([_plain(record.name), record.status, record.score if graded else "",
                        record.possible if graded else "", _plain(record.kit), _plain(record.reason),
                        *(points.get(name, "") for name in tests)])
    # Excel wants the mark of UTF-8, and csv has written the ends of the lines.
    write_whole(path, text.getvalue(), encoding="utf-8-sig", newline="")


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula, nor several cells or lines."""
    return _FORMULA.sub(r"\1\2'", printable(text))


def most_failed(records: Sequence[Record]) -> list[tuple[str, int]]:
    """Each test that somebody failed, with how many of the graded did, the most failed first."""
    failed: dict[str, int] = {}
    for record in records:
        for test in record.tests:
            failed[test.name] = failed.get(test.name, 0) + (test.score < test.possible)
    return sorted(((name, count) for name, count in failed.items() if count), key=lambda pair: -pair[1])


def spread(records: Sequence[Record]) -> list[int]:
    """How many of the graded have 0 to 9 per cent, 10 to 19, ..., 90 to 99, 100."""
    counts = [0] * 11
    for record in records:
        if record.status == GRADED and record.possible:
            counts[int(10 * record.score / record.possible)] += 1
    return counts
