"""Tables of the handouts, generated from the kit's own data: TABLES[NAME] makes the text between
`<!-- table NAME -->` and `<!-- end table -->`. And the length of each exercise, below its heading."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from grader import labs
from grader.course import LABS, ROOT, Lab
from grader.handouts.mistakes import mistakes
from grader.handouts.truths import answer_lines, lab_exercises
from grader.execution.kvm_probe import KINDS
from grader.core.exercises import handout_title

# When the post-mortem prints a cause, by the function that decides it.
CONDITIONS = {"interrupted_without_handler": "after an interrupt was injected",
              "in_real_mode": "in real mode", "in_ring_3": "in ring 3", "NULL": ""}

_LENGTH = re.compile(r"^(### (\d)(\.\d) (?:(?!^#).)*?· about )\d+ lines? ·", re.M | re.S)
_PART = re.compile(r"(<!-- table ([\w .-]+) -->\n)(.*?)(<!-- end table -->)", re.S)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def facts_line(lab: Lab, exercise: str) -> list[str]:
    """The facts in the line below an exercise's heading: functions, difficulty, length, reading."""
    section = re.search(rf"^### {re.escape(exercise)} .*?(?=^### |\Z)", lab.handout.read_text(), re.M | re.S)
    line = re.search(r"^`.*?·.*$", section[0], re.M) if section else None
    return [part.strip() for part in line[0].split("·")] if line else []


def points(number: int) -> str:
    """The exercises of a lab and their points."""
    lab = LABS[number]
    tests = labs.load(number).tests if number in labs.NUMBERS else []
    rows = []
    for exercise in lab_exercises(lab):
        title = handout_title(lab, exercise)
        graded = [test for test in tests if test.exercise == exercise]
        facts = facts_line(lab, exercise)
        difficulty = facts[1] if len(facts) > 1 else ""
        rows.append([exercise, title, difficulty, str(answer_lines(lab, exercise)), str(len(graded)),
                     str(sum(test.points for test in graded))])
    total = str(sum(test.points for test in tests))
    rows.append(["", "**all**", "", str(sum(int(row[3]) for row in rows)), str(len(tests)), f"**{total}**"])
    return table(["exercise", "what", "difficulty", "lines in the solution", "tests", "points"], rows)


def course() -> str:
    """The labs at a glance."""
    rows = []
    for lab in LABS.values():
        if not lab.handout.exists():
            continue
        text = lab.handout.read_text()
        title = re.search(r"^# Lab \d: (.+)$", text, re.M)
        time = re.search(r"^\*\*Time\.?\*\*:? (.+?)\.?$", text, re.M)
        rows.append([f"[{lab.number}: {title[1] if title else lab.folder}]({lab.handout.name})",
                     ", ".join(f"`{name}`" for name in lab.files), str(len(lab_exercises(lab))),
                     str(sum(answer_lines(lab, number) for number in lab_exercises(lab))),
                     time[1] if time else ""])
    return table(["lab", "you write", "exercises", "lines in the solution", "time"], rows)


def needs() -> str:
    """The KVM features that each lab needs."""
    rows = [[f"{lab.number}: {lab.title}", ", ".join(KINDS[kind] for kind in lab.needs)]
            for lab in map(labs.load, labs.NUMBERS)]
    return table(["lab", "its guests need"], rows)


def options() -> str:
    """vmm --help, as a table."""
    text = re.search(r'static const char help\[\] =\n(.*?);\n', read("common/core/options.c"), re.S)
    assert text
    help_text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text[1])).replace("\\n", "\n")
    rows: list[list[str]] = []
    for line in help_text.splitlines():
        option = re.match(r"  (--[^ ,]+(?:, --\w+)?)(?: +(.*))?$", line)
        if option:
            rows.append([f"`{option[1]}`", option[2] or ""])
        elif rows and line.startswith("      "):
            rows[-1][1] = f"{rows[-1][1]} {line.strip()}".strip()
    rows[-1][1] = rows[-1][1] or "print the options; print the version"
    return table(["option", "what it does"], rows)


def defines(pattern: str, head: str, name: str = "common/contract/abi.h") -> str:
    """Constants of a header whose names match, with their comments."""
    rows = []
    line = r"^#define (\w+) +(\S+)(?: +/\* (.*?) \*/)?$"
    for constant, value, comment in re.findall(line, read(name), re.M):
        if re.fullmatch(pattern, constant):
            rows.append([f"`{constant}`", value, comment])
    return table([head, "value", "what it is"], rows)


def boot_info() -> str:
    """struct boot_info with its offsets."""
    header = read("common/contract/boot_info.h")
    fields = re.findall(r"^    uint32_t (\w+);\s*(?:/\* (.*?) \*/)?$", header, re.M)
    rows = [[str(4 * place), f"`{name}`", comment or "bytes of the archive"]
            for place, (name, comment) in enumerate(fields)]
    return table(["offset", "field", "what it is"], rows)


def causes() -> str:
    """The usual causes of a crash, as the post-mortem prints them."""
    text = re.search(r"\} causes\[\] = \{\n(.*?)^\};", read("common/debug/post_mortem.c"), re.M | re.S)
    assert text
    rows = []
    for reason, condition, words in re.findall(r"\{(KVM_\w+), (\w+),\s*((?:\"[^\"]*\"\s*)+)\}", text[1]):
        rows.append([f"`{reason}`", CONDITIONS[condition], "".join(re.findall(r'"([^"]*)"', words))])
    return table(["exit", "when", "usual cause"], rows)


def first_comments(pattern: str) -> str:
    """Files and their first sentences."""
    rows = []
    for path in sorted(ROOT.glob(pattern)):
        lines = " ".join(line.strip(" */;") for line in path.read_text().splitlines()[:8])
        match = re.search(rf"{re.escape(path.name.split('.')[0])}\S* - (.*?\.)(\s|$)", lines)
        rows.append([f"`{path.relative_to(ROOT)}`", match[1].rstrip(".") if match else ""])
    return table(["file", "what it is"], rows)


def outcomes() -> str:
    """What each lab's tests check, for the rubric."""
    rows = []
    for number in labs.NUMBERS:
        for exercise in lab_exercises(LABS[number]):
            tests = [test for test in labs.load(number).tests if test.exercise == exercise]
            rows.append([exercise, "; ".join(test.title for test in tests),
                         str(sum(test.points for test in tests))])
    return table(["exercise", "what its tests check", "points"], rows)


def common_mistakes(number: int) -> str:
    """Common mistakes of a lab, from the mutants."""
    rows = [[mistake.exercises, mistake.tests, mistake.what] for mistake in mistakes(number)]
    return table(["exercise", "a test that fails", "the mistake"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "course": course,
    "needs": needs,
    "options": options,
    "statuses": partial(defines, "STATUS_.*", "status"),
    "calls": partial(defines, "HYPERCALL_PORT|HC_.*|GETCHAR_.*|STRING_PORT", "name"),
    "vectors": partial(defines, ".*_VECTOR", "vector"),
    "memory": partial(defines, ".*_OFFSET|TABLES_END|LOAD_.*|.*_BYTES|HIGHER_HALF(_64)?|VCPUS_MAX", "name"),
    "selectors": partial(defines, "SELECTOR_.*", "selector"),
    "entry-bits": partial(defines, "PAGE_(PRESENT|WRITABLE|USER|LARGE)", "bit", "common/contract/x86.h"),
    "boot-info": boot_info,
    "causes": causes,
    "guests": partial(first_comments, "guests/*.asm"),
    "vmm-files": partial(first_comments, "common/[!t]*/*.[ch]"),
    "outcomes": outcomes,
    **{f"points {number}": partial(points, number) for number in LABS},
    **{f"mistakes {number}": partial(common_mistakes, number) for number in LABS},
}


def _length(match: re.Match[str]) -> str:
    count = answer_lines(LABS[int(match[2])], match[2] + match[3])
    return f"{match[1]}{count} line{'s' if count > 1 else ''} ·"


def updated(text: str, where: str) -> str:
    """A handout's text with regenerated tables and lengths."""
    def anew(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"{where}: no table {match[2]!r}; the tables are {', '.join(TABLES)}")
        return match[1] + TABLES[match[2]]() + match[4]
    if text.count("<!-- table ") != len(_PART.findall(text)):
        raise ValueError(f"{where}: a table mark without <!-- end table -->")
    return _LENGTH.sub(_length, _PART.sub(anew, text))


def update(path: Path) -> bool:
    """Regenerates a handout's tables; returns whether something changed."""
    text = path.read_text()
    new = updated(text, str(path.relative_to(ROOT)))
    if new != text:
        path.write_text(new)
    return new != text
