"""The layers of the grader and their imports: for the test of their direction, and as a figure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from grader.course import ROOT
from grader.handouts.drawing import Drawing

# A room may import from itself and from rooms of lower rank, but not from others of the same rank.
RANKS = {
    "grader.course": 0,
    "grader.execution": 1,
    "grader.core": 2,
    "grader.labs": 3,
    "grader.report": 3,
    "grader.commands": 4,
    "grader.handouts": 4,
    "grader.classroom": 4,
    "grader.__main__": 4,
    "grader.quality": 5,
}
ABOUT = {
    "grader.course": "labs and their files",
    "grader.execution": "back ends, lab VM",
    "grader.core": "building, judging",
    "grader.labs": "each lab's tests",
    "grader.report": "text, files, progress",
    "grader.commands": "make's commands",
    "grader.handouts": "checks and renders",
    "grader.classroom": "release, class",
    "grader.__main__": "make grade",
    "grader.quality": "make test, mutants",
}


def room(module: str) -> str:
    """The room of a module: grader.core of grader.core.plan."""
    return ".".join(module.split(".")[:2])


def imports() -> Iterator[tuple[str, str]]:
    """Each module of the grader, and each module of the grader that it imports."""
    for path in sorted((ROOT / "grader").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names if alias.name.startswith("grader."))
            elif isinstance(node, ast.ImportFrom) and node.module == "grader":
                yield from ((name, f"grader.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("grader."):
                yield name, str(node.module)


def arrows() -> set[tuple[str, str]]:
    """Which room imports from which, without imports implied by others."""
    takes = {(room(module), room(imported)) for module, imported in imports()}
    takes = {(a, b) for a, b in takes if a != b and a in RANKS and b in RANKS}

    def reaches(a: str, b: str) -> bool:
        return any(x == a and (y == b or reaches(y, b)) for x, y in takes)

    return {(a, b) for a, b in takes
            if not any(x == a and y != b and reaches(y, b) for x, y in takes)}


def layers() -> Drawing:
    """The figure: rooms above those that they import from."""
    rows: dict[int, list[str]] = {}
    for name, rank in RANKS.items():
        rows.setdefault(rank, []).append(name)
    width, height, step = 160, 50, 84
    picture = Drawing(680, step * len(rows) + 6, "The layers of the grader: each imports from those below it")
    places: dict[str, tuple[float, float]] = {}
    for place, rank in enumerate(sorted(rows, reverse=True)):
        names = rows[rank]
        gap = (680 - width * len(names)) / (len(names) + 1)
        for column, name in enumerate(names):
            places[name] = (gap + column * (width + gap), 10 + step * place)
    for upper, lower in sorted(arrows()):
        (x0, y0), (x1, y1) = places[upper], places[lower]
        shift = (x1 - x0) / 12
        picture.line((x0 + width / 2 + shift, y0 + height), (x1 + width / 2 - shift, y1))
    for name, (x, y) in places.items():
        label = name.replace("grader.", "").replace("__main__", "grader")
        picture.box(x, y, width, height, label, "vmm" if RANKS[name] < 3 else "guest", "strong", ABOUT[name])
    return picture
