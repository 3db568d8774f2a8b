"""`make handin LAB=3`: packs a learner's submission.

    build/handin/lab3-NAME.tar.gz
        handin.json             name, lab, kit version, the grade on this machine, digests of the files
        lab3-multi-vcpu/vcpus.c the learner's files of that lab, and the learner's headers that they include

The grade is from this machine and for the learner; the instructor grades the files again.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from grader.core.readable import file_name, printable
from grader.core.version import blob_hash, kit_files, kit_version
from grader.course import BUILD, LABS, ROOT, Lab
from grader.core.exercises import todos
from grader.execution.tool import run_command

CANNOT_GRADE = 3  # of `make grade`
# Where the compiler looks for headers, after the folder of the file that includes them.
HEADER_FOLDERS = ("common/contract", "common", "os-1k/lib", "os-1k/kernel")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.M)


def grade(lab: int, backend: str) -> dict[str, Any] | None:
    """Grades the lab, prints the report, and returns results.json; None if this machine can't grade."""
    command = [sys.executable, "-m", "grader", "grade", "--lab", str(lab)]
    done = subprocess.run(command + (["--backend", backend] if backend else []), cwd=ROOT)
    results = BUILD / "grade" / f"lab{lab}" / "results.json"
    if done.returncode == CANNOT_GRADE or not results.exists():
        return None
    graded: dict[str, Any] = json.loads(results.read_text())
    return graded


def included(lab: Lab) -> dict[str, Path]:
    """The headers that a lab's files include with quotes, directly or indirectly, by name. They are searched
    next to the files and in the kit's header folders."""
    folders = [lab.learner_files()[0].parent, *(ROOT / folder for folder in HEADER_FOLDERS)]
    waiting, found = lab.learner_files(), {}
    while waiting:
        for name in _INCLUDE.findall(waiting.pop().read_text(errors="replace")):
            path = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if path and name not in found:
                found[name] = path
                waiting.append(path)
    return found


def own_headers(lab: Lab) -> tuple[dict[str, Path], list[str]]:
    """The learner's own headers among these, and a note on each that can't be packed or that differs from the
    kit's."""
    own: dict[str, Path] = {}
    notes: list[str] = []
    kit = kit_files()
    for name, path in sorted(included(lab).items()):
        place = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
        if place in kit:
            if kit[place] != blob_hash(path.read_bytes()):
                notes.append(f"{place} was changed here: your work is graded with the kit's version")
        elif "/" in name:
            notes.append(f"{place} is not packed: move it next to your file, and include it without a folder")
        else:
            own[name] = path
    return own, notes


def packed_files(lab: Lab) -> dict[str, Path]:
    """The files to pack, by their names in the lab's folder."""
    return {**{path.name: path for path in lab.learner_files()}, **own_headers(lab)[0]}


def about(lab: Lab, name: str, graded: dict[str, Any] | None) -> dict[str, Any]:
    """The content of handin.json."""
    return {
        "kit": kit_version(),
        "lab": lab.number,
        "name": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "score": graded["score"] if graded else None,
        "tests": {test["name"]: test["score"] for test in graded["tests"]} if graded else None,
        "seed": graded["extra_data"]["seed"] if graded else None,
        "files": {key: hashlib.sha256(path.read_bytes()).hexdigest()
                  for key, path in packed_files(lab).items()},
    }


def pack(lab: Lab, target: Path, description: dict[str, Any]) -> None:
    """Writes the archive."""
    contents = {"handin.json": json.dumps(description, indent=2).encode() + b"\n"}
    contents.update({f"{lab.folder}/{name}": path.read_bytes() for name, path in packed_files(lab).items()})
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            archive.addfile(entry, io.BytesIO(content))


def _user() -> str:
    """The user's name on this machine; in a container the user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.getuid()}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make handin", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=LABS, required=True)
    parser.add_argument("--name", default="", help="the learner's name; default: the user's name here")
    parser.add_argument("--backend", default="", help="where it is graded: auto, kvm or vm")
    arguments = parser.parse_args()
    lab = LABS[arguments.lab]
    missing = [str(path.relative_to(ROOT)) for path in lab.learner_files() if not path.is_file()]
    if missing:
        print(f"{' and '.join(missing)} is missing: nothing to submit", file=sys.stderr)
        return 2
    name = arguments.name or _user()
    graded = grade(lab.number, arguments.backend)
    target = BUILD / "handin" / f"lab{lab.number}-{file_name(name)}.tar.gz"
    description = about(lab, name, graded)
    pack(lab, target, description)
    left = sorted({todo.exercise for path in lab.learner_files() for todo in todos(path)})
    print(f"\n{target.relative_to(ROOT)} holds {', '.join(packed_files(lab))}")
    score = f"score {description['score']}" if graded else "not graded here"
    print(f"  kit {description['kit']}, {score}")
    for note in own_headers(lab)[1]:
        print(f"  {note}")
    if not arguments.name:
        print(f"  packed for {printable(name)}, the user name here; NAME=... sets your own")
    if left:
        print(f"  not written yet: exercise {', '.join(left)}")
    return 0


if __name__ == "__main__":
    run_command(main)
