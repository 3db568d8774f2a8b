"""The kit's texts are in plain technical English: wording.txt lists words and phrases that they avoid."""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from re import Pattern

from grader.course import ROOT

# The files and folders that follow wording.txt already.
DONE = ["README.md", "handouts", "common", "guests", "os-1k", "solutions", "labs", "Makefile", "grader"]

# Comments and string literals, by kind of file.
_STRINGS = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
_C = re.compile(rf"/\*.*?\*/|//[^\n]*|{_STRINGS}", re.S)
_PYTHON = re.compile(rf'""".*?"""|{_STRINGS}|#[^\n]*', re.S)
_SHELL = re.compile(rf'(?<!\S)#[^\n]*|{_STRINGS}', re.S)
_ASSEMBLY = re.compile(rf";[^\n]*|{_STRINGS}|`[^`\n]*`")
_PATCH = re.compile(r"^# what: [^\n]*", re.M)
TEXTS = {".c": _C, ".h": _C, ".S": _C, ".ld": _C, ".py": _PYTHON, ".sh": _SHELL, ".mk": _SHELL,
         ".asm": _ASSEMBLY, ".patch": _PATCH}

# Characters between the words of a comment or of adjacent literals that are not part of the text.
_LEADERS = re.compile(r'^[ \t]*(?:/\*+|\*/|\*|//|#:?|;)(?=\s|$)|/\*|\*/|\\[nt]|"', re.M)
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
_QUOTED = re.compile(r"`[^`\n]*(?:\n[^`\n]+)?`|\{[^{}\n]*\}")
_GAP = re.compile(r"\s*(?:rb|[frbu])?$")


@dataclass(frozen=True)
class Rule:
    """A row of wording.txt."""

    pattern: Pattern[str]
    instead: str
    reason: str
    example: str


def rules() -> list[Rule]:
    """The rows of wording.txt."""
    rows = (ROOT / "grader/quality/wording.txt").read_text().splitlines()
    found = []
    for row in rows:
        if row and not row.startswith("#"):
            pattern, instead, reason, example = row.rsplit(" | ", 3)
            found.append(Rule(re.compile(pattern, re.I), instead, reason, example))
    return found


def blank(text: str) -> str:
    """As many blanks, and the same lines."""
    return re.sub(r"[^\n]", " ", text)


def prose(text: str, suffix: str) -> str:
    """A file's prose, each character in its place; `\\0` replaces everything else."""
    if suffix == ".md":
        kept = _FENCED.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), text)
    else:
        kept, end = "", 0
        for match in TEXTS[suffix].finditer(text):
            between = text[end:match.start()]
            kept += blank(between) if end and _GAP.match(between) else re.sub(r"[^\n]", "\0", between)
            kept += match[0]
            end = match.end()
        kept = _LEADERS.sub(lambda match: blank(match[0]), kept + re.sub(r"[^\n]", "\0", text[end:]))
    return _QUOTED.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), kept)


def complaints(text: str, suffix: str) -> Iterator[str]:
    """The listed phrases in a text: each with its line and what to write instead."""
    words: list[str] = []
    lines: list[int] = []       # of each character of the joined words
    for number, line in enumerate(prose(text, suffix).split("\n"), 1):
        for word in line.split():
            words.append(word)
            lines += [number] * (len(word) + 1)
    joined = " ".join(words)
    for rule in rules():
        for match in rule.pattern.finditer(joined):
            yield f"{lines[match.start()]}: '{match[0]}': write {rule.instead} ({rule.reason})"


def files(place: str) -> Iterator[Path]:
    """The files with texts of a folder, or the file itself."""
    path = ROOT / place
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file != Path(__file__) and (kind(file) == ".md" or kind(file) in TEXTS):
            yield file


def kind(file: Path) -> str:
    return ".mk" if file.name == "Makefile" else file.suffix


class Wording(unittest.TestCase):
    maxDiff = None

    def test_no_text_uses_a_listed_phrase(self) -> None:
        found = [f"{file.relative_to(ROOT)}:{complaint}" for place in DONE for file in files(place)
                 for complaint in complaints(file.read_text(errors="replace"), kind(file))]
        self.assertEqual("\n".join(found), "")

    def test_each_pattern_finds_its_example(self) -> None:
        for rule in rules():
            self.assertTrue(rule.pattern.search(rule.example), f"{rule.pattern.pattern}: {rule.example}")

    def test_a_phrase_is_found_across_lines_and_literals(self) -> None:
        for suffix, text in ((".c", "/*\n * first byte be" "hind\n * RAM\n */\n"),
                             (".c", 'f("byte be" "hind "\n  "RAM");'.replace('" "', "")),
                             (".py", "x = 1  # byte be" "hind\n# RAM\n"),
                             (".py", '"""Byte be' 'hind\nRAM."""\n'),
                             (".asm", "        mov ax, 1 ; byte be" "hind RAM\n"),
                             (".mk", "# byte be" "hind\n# RAM\nall:\n"),
                             (".patch", "# what: byte be" "hind RAM\n--- a/x\n"),
                             (".md", "The byte be" "hind\nRAM.\n")):
            self.assertEqual(len(list(complaints(text, suffix))), 1, text)

    def test_code_and_quotations_are_not_texts(self) -> None:
        for suffix, text in ((".c", "int shall = be" "hind (x);\n/* `byte be" "hind RAM` */\n"),
                             (".py", "told = shall\n"),
                             (".md", "The `tells` flag.\n\n```console\n$ told\n```\n"),
                             (".patch", "# hint: told\n-/* shall */\n")):
            self.assertEqual(list(complaints(text, suffix)), [], text)


if __name__ == "__main__":
    unittest.main()
