"""The handouts' Markdown: the files and their structure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from grader.course import LABS, ROOT

FOLDER = ROOT / "handouts"

# In reading order, which is also the order on the site.
ORDER = ["README.md", *(f"{lab.folder}.md" for lab in LABS.values()),
         "reference/commands.md", "reference/hypercalls.md", "reference/kvm-api.md",
         "reference/exit-reasons.md", "reference/x86.md", "reference/boot-information.md",
         "reference/linux-boot.md",
         "reference/debugging.md", "reference/glossary.md",
         "instructors.md", "mistakes.md", "CONTRIBUTING.md"]

_FENCE = re.compile(r"^( *)```(.*)$")
_HEADING = re.compile(r"^(#{1,6}) (.+?) *$")
_WORD = re.compile(r'(\w[\w-]*)(?:=("[^"]*"|\S+))?')


@dataclass(frozen=True)
class Fence:
    """A fenced block. `section` is the heading above it."""

    path: Path
    line: int
    kind: str
    words: dict[str, str]
    body: list[str]
    section: str
    others: list[Fence]  # the `or` blocks below it: alternative output

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def exercise(self) -> str:
        """The exercise of its section, or an empty text."""
        match = re.match(r"(\d\.\d) ", self.section)
        return match[1] if match else ""


@dataclass(frozen=True)
class Document:
    """A handout."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(FOLDER))

    @property
    def title(self) -> str:
        match = re.search(r"^# (.+)$", self.text, re.M)
        return match[1] if match else self.path.stem

    def fences(self) -> list[Fence]:
        """Its fenced blocks."""
        found: list[Fence] = []
        section, start, info, indent = "", 0, "", 0
        body: list[str] = []
        for number, line in enumerate(self.text.splitlines(), 1):
            mark = _FENCE.match(line)
            if start and mark and not mark[2]:
                kind, _, rest = info.partition(" ")
                words = {word: value.strip('"') for word, value in _WORD.findall(rest)}
                fence = Fence(self.path, start, kind, words, body, section, [])
                if "or" in words and found:
                    found[-1].others.append(fence)
                found.append(fence)
                start, body = 0, []
            elif start:
                body.append(line[indent:])
            elif mark:
                start, info, indent = number, mark[2].strip(), len(mark[1])
            elif heading := _HEADING.match(line):
                section = heading[2]
        return found

    def prose(self) -> str:
        """The text with the content of fences blanked, line by line."""
        lines, inside = [], False
        for line in self.text.splitlines():
            mark = bool(_FENCE.match(line))
            lines.append("" if inside or mark else line)
            inside ^= mark
        return "\n".join(lines)

    def headings(self) -> list[tuple[int, str]]:
        """(level, text) of each heading."""
        matches = (_HEADING.match(line) for line in self.prose().splitlines())
        return [(len(match[1]), match[2]) for match in matches if match]

    def anchors(self) -> set[str]:
        return {slug(text) for _, text in self.headings()}


def slug(heading: str) -> str:
    """The anchor of a heading, as on GitHub."""
    text = re.sub(r"[`*]", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def documents() -> list[Document]:
    """All handouts, in reading order."""
    paths = sorted(FOLDER.rglob("*.md"), key=lambda path: _rank(path))
    return [Document(path, path.read_text()) for path in paths]


def _rank(path: Path) -> tuple[int, str]:
    name = str(path.relative_to(FOLDER))
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)
