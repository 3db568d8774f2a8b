"""Generated modules that do nothing but return a constant, or report a failure with one status: a test of a
refusal must not pass because a module refuses everything. And solutions without the answers of one exercise:
its tests must not pass because of what the other exercises do."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from grader.core.exercises import exercises, skeleton
from grader.course import LABS, ROOT

_FUNCTION = re.compile(r"^(?P<static>static )?(?!static )(?P<type>\w[\w ]*?(?: \*|(?= )))"
                       r"(?P<rest> ?\w+\([^;{}]*\)\n\{\n)(?P<body>.*?)^\}", re.M | re.S)
_TODO = re.compile(r'TODO\("\d\.\d"\);')
# The message of each failure: every reason that a test may look for.
_REPORT = '"%s", "it fails: ' + "; ".join(map(os.strerror, sorted(errno.errorcode))) + '"'


def constant_modules(lab: int, file: str) -> dict[str, str]:
    """Generated texts of one of a lab's files, by name: for each constant, one in which every function of
    the contract does nothing else, and the skeleton with it as every answer."""
    path = next(path for path in LABS[lab].solution_files() if path.name == file)
    texts: dict[str, str] = {}
    empty = skeleton(path.read_text(), path.name)
    for constant in _constants(path):
        for name, whole in (("contract", True), ("answers", False)):
            text = _module(empty, constant, whole)
            if text not in texts.values():
                texts[f"{name}_{constant}"] = text
    return texts


def without_answers(lab: int, file: str) -> dict[str, str]:
    """Texts of one of a lab's files, by exercise: the solution, but it returns 0 before that exercise's
    answers in this file."""
    path = next(path for path in LABS[lab].solution_files() if path.name == file)
    texts: dict[str, str] = {}
    for exercise in exercises(path):
        mark, todo = f"/* answer {exercise} */\n", f'TODO("{exercise}");\n'
        text = skeleton(path.read_text().replace(mark, mark + todo), path.name, exercises(path))
        texts[exercise] = _module(text, "0", whole=False)
    return texts


def _constants(solution: Path) -> list[str]:
    """Besides three numbers, the words by which the functions of its contract report a failure."""
    included = re.search(r'^#include "(lab\d+\.h)"', solution.read_text(), re.M)
    header = (ROOT / "common/contract" / included[1]).read_text() if included else ""
    words = {word for word in re.findall(r"\b[A-Z]\w+\b", header)
             if word.startswith(("STATUS_", "GETCHAR_")) or word in errno.errorcode.values()}
    return ["0", "1", "-1", *sorted(words)]


def _module(text: str, constant: str, whole: bool) -> str:
    """The text with this constant returned: by all that it provides to the program, its functions that are
    not static; or in the place of each TODO."""
    def changed(function: re.Match[str]) -> str:
        returned = _returns(function["type"], constant)
        replaced = whole and not function["static"]
        body = f"    {returned}\n" if replaced else _TODO.sub(lambda _: returned, function["body"])
        return f"{function['static'] or ''}{function['type']}{function['rest']}{body}}}"

    return _FUNCTION.sub(changed, text)


def _returns(returned: str, constant: str) -> str:
    """The statement that returns it from a function of this type."""
    failure = constant[0].isalpha()
    if returned == "void":
        return "return;"
    if returned == "int" and failure:
        return f"return fail({constant}, {_REPORT});"
    if returned == "enum step" and failure:
        return f"return vcpu_crash(vcpu, {_REPORT});"
    if returned == "const char *" and constant != "0":
        return 'return "it fails";'
    if returned.endswith("*") or returned == "bool" and failure:
        return "return 0;"
    return f"return ({returned}){{{constant}}};"
