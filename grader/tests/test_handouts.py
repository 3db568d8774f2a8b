"""What the handouts show on the console is what a learner sees who has come so far.

A block that begins with `$ make labN` or `$ make run LAB=N ...`, in the section of exercise N.M, is compared
with a run of the VMM in which all exercises up to N.M are answered, or up to the one before where the text
says "Before:". Every line of the block must come out, in this order; `...` stands for anything.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.build import build_guests, build_vmm
from grader.course import BUILD, LABS, ROOT, Lab
from grader.play import DEMONSTRATIONS
from grader.skeletons import exercises, skeleton


WITH_CONSOLES = [LABS[number] for number in DEMONSTRATIONS]


@dataclass(frozen=True)
class Block:
    """A console block of a handout."""

    exercise: str
    before: bool         # the exercise itself is not answered yet
    command: list[str]
    lines: list[str]


def blocks(lab: Lab) -> Iterator[Block]:
    """The console blocks of a lab's exercises."""
    for section in re.split(r"^### ", lab.handout.read_text(), flags=re.M)[1:]:
        for before, command, body in re.findall(r"(Before:\n\n)?^```\n\$ (make [^\n]*)\n(.*?)^```$", section,
                                                re.M | re.S):
            yield Block(section[:3], bool(before), shlex.split(command), body.splitlines())


def console(lab: Lab, block: Block) -> str:
    """What comes out at the block's state of the learner's file."""
    solution = lab.solution_files()[0]
    answered = [number for number in exercises(solution)
                if number < block.exercise or (number == block.exercise and not block.before)]
    module = BUILD / "tests" / "handouts" / f"lab{lab.number}-{len(answered)}" / solution.name
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(skeleton(solution.read_text(), solution.name, answered))
    vmm = build_vmm(lab.number, module=module)
    is_run = block.command[1] == "run"
    text = chosen(vmm, block.command[2:]) if is_run else demonstrated(lab, vmm)
    return (text.replace(str(module.relative_to(ROOT)), f"labs/{lab.folder}/{module.name}")
            .replace(str(vmm), f"build/vmm/lab{lab.number}/vmm"))


def demonstrated(lab: Lab, vmm: Path) -> str:
    """The output of `make labN`."""
    text = ""
    for shown in DEMONSTRATIONS[lab.number]:
        command = [str(vmm), *shown.options, *(f"build/guests/{name}.bin" for name in shown.guests)]
        done = subprocess.run(command, cwd=ROOT, input=shown.stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        text += f"{shown.title}\n$ {shlex.join(command)}\n{done.stdout.decode()}"
        if done.returncode != 0:
            break
    return text


def chosen(vmm: Path, words: list[str]) -> str:
    """The output of `make run`, when Enter is pressed after the first line has come out."""
    given = dict(word.split("=", 1) for word in words)
    command = [str(vmm), *given.get("ARGS", "").split(),
               *(f"build/guests/{name}.bin" for name in given["GUESTS"].split())]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        rest, _ = process.communicate(b"\n")
    return (first + rest).decode()


class Consoles(unittest.TestCase):
    maxDiff = None

    def test_every_console_is_true(self) -> None:
        build_guests()
        for lab in WITH_CONSOLES:
            for block in blocks(lab):
                with self.subTest(exercise=block.exercise, command=block.command):
                    pattern = ".*?".join(r"^" + re.escape(line).replace(r"\.\.\.", r"[^\n]*") + r"$"
                                         for line in block.lines)
                    text = console(lab, block)
                    self.assertTrue(re.search(pattern, text, re.M | re.S),
                                    "\n".join(["expected", *block.lines, "in", text]))

    def test_every_exercise_shows_a_console_or_says_why_not(self) -> None:
        for lab in WITH_CONSOLES:
            shown = {block.exercise for block in blocks(lab)}
            for section in re.split(r"^### ", lab.handout.read_text(), flags=re.M)[1:]:
                number = section[:3]
                self.assertTrue(number in shown or "You will now see the same" in section, number)
                self.assertIn(f"make grade LAB={lab.number} T={number}", section)


if __name__ == "__main__":
    unittest.main()
