"""Diagrams of boxes, arrows and text, as SVG that is readable on light and dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape

# `kind`s of boxes: plain, guest, vmm, kvm, free, accent. Colours are defined only here.
STYLE = """\
.f text{font-family:"DejaVu Sans",Verdana,sans-serif;font-size:14px;fill:#1c2430}
.f .mono{font-family:"DejaVu Sans Mono",Menlo,Consolas,monospace;font-size:13px}
.f .small{font-size:12px;fill:#56606e}
.f .strong{font-weight:bold}
.f rect{stroke:#6b7685;stroke-width:1.2;fill:#fff}
.f .guest{fill:#dcebfb}.f .vmm{fill:#fdebcf}.f .kvm{fill:#e2f2dc}.f .free{fill:#f0f1f3}
.f .accent{fill:#f9dadb}.f .none{fill:none;stroke-dasharray:5 4}
.f path,.f line{stroke:#3c4656;stroke-width:1.5;fill:none}
.f .dash{stroke-dasharray:5 4}
.f .head{fill:#3c4656;stroke:none}
"""
DARK = """\
.f text{fill:#e4e8ee}
.f .small{fill:#a3adba}
.f rect{stroke:#8b96a5;fill:#1d232c}
.f .guest{fill:#1f3a57}.f .vmm{fill:#4d3a17}.f .kvm{fill:#26421d}.f .free{fill:#2a313b}
.f .accent{fill:#5a2527}.f .none{fill:none}
.f path,.f line{stroke:#b9c2ce}
.f .head{fill:#b9c2ce;stroke:none}
"""


class Drawing:
    """A picture; its methods add to it. `about` describes it for readers who can't see it."""

    def __init__(self, width: int, height: int, about: str) -> None:
        self.width, self.height, self.about = width, height, about
        self._parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, label: str = "", kind: str = "plain",
            words: str = "", below: str = "") -> None:
        """A rectangle with a centred label and, smaller, a line below the label."""
        self._parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3"/>')
        if label:
            self.text(x + w / 2, y + h / 2 + (-3 if below else 5), label, words, "middle")
        if below:
            self.text(x + w / 2, y + h / 2 + 15, below, "small", "middle")

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """A line of text; `anchor` is its position relative to x."""
        self._parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
                           f"{escape(words)}</text>")

    def line(self, *points: tuple[float, float], arrow: bool = True, dash: bool = False) -> None:
        """A line through points, with an arrowhead at its end."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path class="{"dash" if dash else ""}" d="{path}"/>')
        if arrow:
            self._head(points[-2], points[-1])

    def _head(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        (x0, y0), (x, y) = start, end
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5 or 1
        ux, uy = (x - x0) / length, (y - y0) / length
        bx, by = x - 9 * ux, y - 9 * uy
        self._parts.append(f'<path class="head" d="M{x:.1f} {y:.1f} L{bx - 4 * uy:.1f} {by + 4 * ux:.1f} '
                           f'L{bx + 4 * uy:.1f} {by - 4 * ux:.1f}z"/>')

    def svg(self) -> str:
        """The file's text."""
        body = "\n".join(self._parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="f" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img">\n'
                f"<title>{escape(self.about)}</title>\n"
                f"<style>\n{STYLE}@media (prefers-color-scheme: dark) {{\n{DARK}}}\n</style>\n"
                f"{body}\n</svg>\n")
