"""python3 -m grader.handouts update | consoles [WORD] | trace | render

update    regenerates the tables and figures that have changed
consoles  runs the console blocks of handouts whose name contains WORD, and reports the wrong ones
trace     records the run for the timeline
render    writes build/handouts/: the site and the PDF
"""

from __future__ import annotations

import subprocess
import sys

from grader.course import ROOT
from grader.execution.tool import run_command
from grader.handouts import checking, figures, site, tables, timeline
from grader.handouts.text import documents


def main(words: list[str]) -> int:
    """Executes the command line; returns the exit status."""
    if words == ["update"]:
        for document in documents():
            if tables.update(document.path):
                print(f"wrote handouts/{document.name}")
        for name in figures.update():
            print(f"wrote handouts/figures/{name}.svg")
        return 0
    if words == ["trace"]:
        run = subprocess.run(timeline.COMMAND, shell=True, cwd=ROOT, text=True, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        lines = [line for line in run.stderr.splitlines() if " vcpu" in line]
        timeline.TRACE.parent.mkdir(exist_ok=True)
        timeline.TRACE.write_text("\n".join(timeline.beginning(lines)) + "\n")
        return 0
    if words[:1] == ["consoles"]:
        wrong = list(checking.consoles(words[1] if len(words) > 1 else ""))
        print("\n\n".join(wrong) or "every console block is correct")
        return 1 if wrong else 0
    if words == ["render"]:
        return site.render()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
