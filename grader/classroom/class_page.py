"""The page about a class: one HTML file that needs nothing else. What learners wrote is made printable, cut,
and escaped."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from grader.classroom.record import GRADED, MACHINE, REFUSED, Record
from grader.classroom.scores import most_failed, spread
from grader.core.readable import file_name, printable
from grader.core.version import kit_version
from grader.core.whole_file import write_whole
from grader.course import Lab

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3a7bd5; --bad: #c0392b; --good: #2e8b57 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { display: block; height: .8rem; background: var(--bar); min-width: 1px; border-radius: 2px }
.cells { letter-spacing: 1px; white-space: nowrap } .ok { color: var(--good) } .no { color: var(--bad) }
.wide { width: 50% } td span { white-space: pre-wrap } small { opacity: .75 }
"""


def write_page(lab: Lab, seed: int, records: Sequence[Record], path: Path, note: str = "") -> None:
    """Writes the page, whole or not at all. `note`: about the folder of submissions."""
    graded = [record for record in records if record.status == GRADED]
    title = f"Lab {lab.number}: {len(records)} submissions"
    parts = [
        "<!DOCTYPE html>", '<html lang="en">', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>", f"<p>{escape(_summary(records, graded))}<br>",
        *([f"{escape(note)}<br>"] if note else []),
        f"<small>Kit {escape(kit_version())}, seed {seed}, "
        f"{time.strftime('%Y-%m-%d %H:%M')}</small></p>",
        *_not_graded(records), *_spread(graded), *_tests(graded), *_table(graded), "</html>"]
    write_whole(path, "\n".join(parts) + "\n")


def _summary(records: Sequence[Record], graded: Sequence[Record]) -> str:
    scores = [record.score for record in graded]
    words = [f"{len(graded)} graded"]
    words += [f"{count} {what}" for status, what in ((REFUSED, "refused"), (MACHINE, "could not be graded"))
              if (count := sum(record.status == status for record in records))]
    if scores:
        words.append(f"median {statistics.median(scores):g}, mean {statistics.mean(scores):.1f}, "
                     f"lowest {min(scores):g}, highest {max(scores):g}")
    return "; ".join(words) + "."


def _link(record: Record) -> str:
    return f'<a href="reports/{quote(file_name(record.name))}/report.txt">{_text(record.name)}</a>'


def _text(text: str) -> str:
    """A stranger's text as HTML."""
    return f"<span>{escape(printable(text))}</span>"


def _not_graded(records: Sequence[Record]) -> list[str]:
    """Who has no score, and why: what the machine could not do first, as it asks for the instructor."""
    parts: list[str] = []
    for status, title in ((MACHINE, "Could not be graded: the machine's fault, not a score of 0"),
                          (REFUSED, "Refused: what was submitted can't be taken")):
        found = [record for record in records if record.status == status]
        if found:
            rows = [f"<tr><td>{_link(record)}<td>{_text(record.reason)}" for record in found]
            parts += [f"<h2>{title}</h2>", "<table><tr><th>Submission<th>Why", *rows, "</table>"]
    return parts


def _spread(graded: Sequence[Record]) -> list[str]:
    counts = spread(graded)
    names = [f"{10 * place}–{10 * place + 9} %" for place in range(10)] + ["100 %"]
    return ["<h2>Scores</h2>", "<table>",
            *(f'<tr><td class="n">{name}<td class="n">{count}<td class="wide">{_bar(count, max(counts))}'
              for name, count in zip(names, counts)), "</table>"]


def _tests(graded: Sequence[Record]) -> list[str]:
    failed = most_failed(graded)
    if not failed:
        return ["<h2>Tests most failed</h2>", "<p>Nobody failed a test.</p>"]
    return ["<h2>Tests most failed</h2>", "<table><tr><th>Test<th>Failed by<th>",
            *(f'<tr><td>{escape(name)}<td class="n">{count} of {len(graded)}'
              f'<td class="wide">{_bar(count, len(graded))}' for name, count in failed), "</table>"]


def _bar(count: int, most: int) -> str:
    return f'<span class="bar" style="width:{100 * count / most:.0f}%"></span>' if count else ""


def _table(graded: Sequence[Record]) -> list[str]:
    rows = [f'<tr><td>{_link(record)}<td class="n">{record.score:g} of {record.possible:g}'
            f'<td class="cells">{_cells(record)}<td>{_text(record.reason)}'
            for record in sorted(graded, key=lambda record: (-record.score, record.name))]
    return ["<h2>Submissions</h2>", "<table><tr><th>Submission<th>Score<th>Tests, in order<th>", *rows,
            "</table>"]


def _cells(record: Record) -> str:
    return "".join(f'<span class="{"ok" if passed else "no"}" title="{escape(test.name)}">'
                   f'{"●" if passed else "○"}</span>'
                   for test in record.tests for passed in [test.score >= test.possible])
