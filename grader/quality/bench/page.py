"""The results of `make bench` as one HTML page, with a plot for each row."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any

from grader.quality.bench.cases import Measured
from grader.quality.bench.report import TITLES, count_lines, number, ratio, remarks

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right}svg text{font:13px system-ui,sans-serif;fill:currentColor}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}}"""
LABEL, PLOT, HEIGHT = 420, 400, 22        # pixels: names, plot, one bar


def _bars(measured: Sequence[Measured]) -> list[tuple[str, float, float, float]]:
    return [(f"{figure.title} / {other.name}", other.ratio.median, other.ratio.low, other.ratio.high)
            for figure in measured for other in figure.against]


def plot(measured: Sequence[Measured]) -> str:
    """Each ratio as a bar from 1, on a logarithmic scale, with a line over the middle half."""
    bars = _bars(measured)
    if not bars:
        return ""
    low = min(0.5, *(bar[2] for bar in bars))
    high = max(2.0, *(bar[3] for bar in bars))

    def x(value: float) -> float:
        return LABEL + PLOT * (log10(value) - log10(low)) / (log10(high) - log10(low))
    parts = []
    for at, (name, median, smallest, largest) in enumerate(bars):
        y = at * HEIGHT + 4
        left, right = sorted((x(1), x(median)))
        colour = "#c2410c" if median > 1 else "#15803d"
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{max(1, right - left):.1f}" height="14" fill="{colour}"/>'
            f'<path d="M{x(smallest):.1f} {y + 7}H{x(largest):.1f}" stroke="currentColor"/>'
            f'<text x="{LABEL + PLOT + 8}" y="{y + 12}">{median:.2f}</text>')
    height = len(bars) * HEIGHT + 4
    parts.append(f'<path d="M{x(1):.1f} 0V{height}" stroke="currentColor" stroke-dasharray="3"/>')
    return (f'<svg viewBox="0 0 {LABEL + PLOT + 60} {height}" width="100%" role="img" '
            f'aria-label="ratios to what is compared with">{"".join(parts)}</svg>')


def table(measured: Sequence[Measured]) -> str:
    """The figures of a row."""
    rows = ["<tr><th>what<th>VMM<th>compared with<th>its figure<th>ratio, middle half"]
    for figure in measured:
        title = escape(figure.title)
        if figure.value is None:
            rows.append(f"<tr><td>{title}<td colspan=4>{escape(figure.note)}")
            continue
        ours = f"{number(figure.value.median)} {figure.unit}"
        for at, other in enumerate(figure.against):
            ideal = f", ideal {figure.ideal:.2g}" if figure.ideal is not None and at == 0 else ""
            rows.append(f"<tr><td>{title}<td class=n>{ours}<td>{escape(other.name)}"
                        f"<td class=n>{number(other.value.median)} {figure.unit}"
                        f"<td>{ratio(other.ratio)}{ideal}")
        if figure.note:
            rows.append(f"<tr><td>{title}<td colspan=4>{escape(figure.note)}")
    return "<table>" + "\n".join(rows) + "</table>"


def page(about: dict[str, Any], measured: Sequence[Measured], counts: "dict[str, int | None]") -> str:
    """The whole page."""
    parts = [f"<p>{escape(about['processor'])}, {about['processors']} processors, Linux "
             f"{escape(about['kernel'])}; {escape(about['back_end'])}; {about['date']}.</p>",
             "<p>Ratios are medians of the rounds' own: what both sides of a round suffered cancels out. "
             "Below 1 the VMM needs less.</p>",
             *(f"<p>{escape(remark)}</p>" for remark in remarks(about))]
    for row, title in TITLES.items():
        figures = [figure for figure in measured if figure.row == row]
        if figures:
            parts += [f"<h2>{escape(title)}</h2>", plot(figures), table(figures)]
    if counts:
        parts += ["<h2>counts: exits of the reference guests</h2>",
                  f"<pre>{escape(chr(10).join(count_lines(counts)))}</pre>"]
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Mini-KVM Labs: bench</title>'
            f"<style>{STYLE}</style><h1>make bench</h1>{''.join(parts)}</html>\n")
