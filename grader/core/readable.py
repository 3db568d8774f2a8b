"""Makes texts readable: shows invisible characters, puts expected next to got, limits the length."""

from __future__ import annotations

import hashlib
import os.path
import re
import unicodedata
from itertools import zip_longest
from typing import Union

LINES_MAX = 16
COLUMN_MAX = 56

_NAMES = {"\n": "⏎", "\t": "→", " ": "·", "\r": "␍", "\x1b": "␛", "\0": "␀"}


def visible(text: Union[str, bytes]) -> str:
    """Every character made visible; blanks inside a line are unchanged."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    body = text.rstrip(" \n")
    tail = text[len(body):]
    return "".join(_one(c) if c != " " else c for c in body) + "".join(_one(c) for c in tail)


def _one(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    return character if " " <= character <= "~" else f"\\x{ord(character):02x}"


# What a reader does not see although isprintable allows it: the rest of Unicode's property
# Default_Ignorable_Code_Point, the empty Braille pattern, and more marks than a letter has in any language.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
                     "\U000e0100-\U000e01ef]")
MARKS_MAX = 3


def printable(text: str, limit: int = 300) -> str:
    """Untrusted text on one line: control characters and invisible ones are escaped, and long text is cut."""
    more, marks, shown = len(text) - limit, 0, ""
    for character in text[:limit]:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        seen = character.isprintable() and not _UNSEEN.match(character) and marks <= MARKS_MAX
        shown += character if seen else _spelled(ord(character))
    return shown + (f"... ({more} more characters)" if more > 0 else "")


def _spelled(code: int) -> str:
    if 0xdc80 <= code <= 0xdcff:       # a byte of a name that is not UTF-8
        code -= 0xdc00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable_lines(text: str, count: int = 200) -> list[str]:
    """Untrusted text of several lines, each made printable, at most `count` of them."""
    lines = text.split("\n")
    more = len(lines) - count
    return [*(printable(line.rstrip("\r").expandtabs()) for line in lines[:count]),
            *([f"({more} more lines)"] if more > 0 else [])]


_DIGEST = re.compile(r"-[0-9a-f]{24}$")


def file_name(text: str) -> str:
    """Any text as a file name: different texts get different names. A valid name is unchanged."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip(".-")[:60]
    if plain and plain == text and not _DIGEST.search(plain):
        return plain
    return f"{plain or 'unnamed'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def beside(expected: str, got: str, colour: bool = False) -> list[str]:
    """Expected next to got, line by line, starting near the first difference; `!` marks lines that differ.
    In colour these are green and red, with the first difference highlighted."""
    left, right = expected.splitlines(keepends=True), got.splitlines(keepends=True)
    rows = list(zip_longest(left, right, fillvalue=""))
    first = next((i for i, (a, b) in enumerate(rows) if a != b), 0)
    start = max(0, first - 2)
    shown = rows[start:start + LINES_MAX]
    cells = [(_cell(a, b), _cell(b, a), a != b) for a, b in shown]
    width = max([len("expected")] + [len(a) for a, _, _ in cells])
    lines = [f"  {'expected':{width}} | got"]
    if start:
        lines.append(f"  ({start} equal lines)")
    for a, b, differs in cells:
        padding = " " * (width - len(a))
        if differs and colour:
            a, b = _painted(a, b, "32"), _painted(b, a, "31")
        lines.append(f"{'!' if differs else ' '} {a}{padding} | {b}")
    hidden = len(rows) - start - len(shown)
    if hidden:
        lines.append(f"  ({hidden} more lines)")
    return lines


def _painted(cell: str, other: str, colour: str) -> str:
    """The cell in colour, with its first difference from the other inverted."""
    same = len(os.path.commonprefix([cell, other]))
    return (f"\033[{colour}m{cell[:same]}\033[7m{cell[same:same + 1]}\033[27m{cell[same + 1:]}\033[0m")


def _cell(text: str, other: str) -> str:
    """A line made visible; a long one is cut around its first difference from `other`."""
    if not text:
        return "(nothing)"
    if len(text) <= COLUMN_MAX:
        return visible(text)
    differs = next((i for i, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other)))
    start = max(0, min(differs - COLUMN_MAX // 2, len(text) - COLUMN_MAX))
    piece = visible(text[start:start + COLUMN_MAX])
    return ("…" if start else "") + piece + ("…" if start + COLUMN_MAX < len(text) else "")


def both_ends(text: str, first: int = 10, last: int = 6) -> list[str]:
    """The start and the end of a text, at most a screen, with each line visible and cut if too long."""
    lines = text.splitlines()
    hidden = len(lines) - first - last
    if hidden > 1:
        lines[first:-last] = [f"({hidden} lines)"]
    return [visible(line)[:160] for line in lines]


_DIAGNOSTIC = re.compile(r"\S+:\d+:\d+: (?:fatal )?(?:error|warning): |.*: undefined reference to ")
_CONTEXT = re.compile(r"\S+: (?:In|At) |In file included from |(?=\S*: )\S*ld")
_ERROR = re.compile(r": (?:fatal )?error: |: undefined reference to |implicit declaration")


def errors_first(text: str) -> str:
    """A compiler's output with the errors before the warnings, each with its context and notes. A function
    that is not declared is only a warning, but it explains the linker's error. In linear time: a hostile
    source can make a compiler print anything."""
    blocks: list[list[str]] = [[]]
    begun = False                    # the last block has its diagnostic
    for line in text.splitlines():
        diagnostic = bool(_DIAGNOSTIC.match(line))
        if begun and (diagnostic or _CONTEXT.match(line)):
            blocks.append([])
            begun = False
        blocks[-1].append(line)
        begun = begun or diagnostic
    blocks.sort(key=lambda block: not any(_ERROR.search(line) for line in block))
    return "\n".join(line for block in blocks for line in block)


def first_lines(text: str, count: int = LINES_MAX) -> list[str]:
    """The start of a text, at most a screen."""
    lines = text.splitlines()
    cut = [f"({len(lines) - count} more lines)"] if len(lines) > count else []
    return [visible(line)[:160] for line in lines[:count]] + cut
