"""`make compile-commands`: writes build/compile_commands.json, the compiler flags of each C file for clangd.
clangd finds it there by itself."""

from __future__ import annotations

import json

from grader.core.building import make_text
from grader.core.whole_file import write_whole
from grader.course import BUILD, LABS, ROOT
from grader.execution import c_tools
from grader.execution.tool import run_command


def commands() -> list[dict[str, object]]:
    """An entry for each C file that is there."""
    words: dict[str, list[str]] = {}
    kernel = make_text("os-flags", {}).split()
    for path in (ROOT / "os-1k").rglob("*.c"):
        words[str(path)] = [*kernel, "-Ios-1k/user"]
    for path in [*(ROOT / "grader/execution").rglob("*.c")]:
        words[str(path)] = ["cc", *c_tools.FLAGS]
    for number, lab in LABS.items():
        flags = make_text("vmm-flags", {"LAB": str(number)}).split()
        for path in [*(ROOT / "common").rglob("*.c"), *lab.grading.rglob("*.c")]:
            words[str(path)] = [*flags, "-Igrader/labs"]
        for path in (*lab.learner_files(), *lab.solution_files()):
            words[str(path)] = kernel if path.name == lab.kernel else flags
    return [{"directory": str(ROOT), "file": path, "arguments": [*flags, "-c", path]}
            for path, flags in sorted(words.items())]


def main() -> None:
    path = BUILD / "compile_commands.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(commands(), indent=1) + "\n")
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    run_command(main)
