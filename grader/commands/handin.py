"""`make handin LAB=3`: packs what a learner hands in.

    build/handin/lab3-NAME.tar.gz
        handin.json             who, which lab and kit, the grade on this machine, digests of the files
        lab3-multi-vcpu/vcpus.c the learner's files of that lab, nothing else

The grade is this machine's word, for the learner's own peace; the instructor grades the files anew.
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
from typing import Any, Optional

from grader.core.version import kit_version
from grader.course import BUILD, LABS, ROOT, Lab
from grader.core.exercises import todos
from grader.execution.tool import run_command

CANNOT_GRADE = 3  # of `make grade`


def grade(lab: int, backend: str) -> Optional[dict[str, Any]]:
    """Grades the lab, shows it, and gives what results.json says; None where this machine can't."""
    command = [sys.executable, "-m", "grader", "grade", "--lab", str(lab)]
    done = subprocess.run(command + (["--backend", backend] if backend else []), cwd=ROOT)
    results = BUILD / "grade" / f"lab{lab}" / "results.json"
    if done.returncode == CANNOT_GRADE or not results.exists():
        return None
    graded: dict[str, Any] = json.loads(results.read_text())
    return graded


def about(lab: Lab, name: str, graded: Optional[dict[str, Any]]) -> dict[str, Any]:
    """handin.json."""
    return {
        "kit": kit_version(),
        "lab": lab.number,
        "name": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "score": graded["score"] if graded else None,
        "tests": {test["name"]: test["score"] for test in graded["tests"]} if graded else None,
        "seed": graded["extra_data"]["seed"] if graded else None,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in lab.learner_files()},
    }


def pack(lab: Lab, target: Path, description: dict[str, Any]) -> None:
    """Writes the archive."""
    contents = {"handin.json": json.dumps(description, indent=2).encode() + b"\n"}
    contents.update({f"{lab.folder}/{path.name}": path.read_bytes() for path in lab.learner_files()})
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            archive.addfile(entry, io.BytesIO(content))


def _user() -> str:
    """The user's name on this machine; a container may have a user without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.getuid()}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make handin", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=LABS, required=True)
    parser.add_argument("--name", default="", help="whose it is; the user's name on this machine without it")
    parser.add_argument("--backend", default="", help="where it is graded: auto, kvm or vm")
    arguments = parser.parse_args()
    lab = LABS[arguments.lab]
    missing = [str(path.relative_to(ROOT)) for path in lab.learner_files() if not path.is_file()]
    if missing:
        print(f"{' and '.join(missing)} is not there: nothing to hand in", file=sys.stderr)
        return 2
    name = arguments.name or _user()
    graded = grade(lab.number, arguments.backend)
    target = BUILD / "handin" / f"lab{lab.number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.tar.gz"
    description = about(lab, name, graded)
    pack(lab, target, description)
    left = sorted({todo.exercise for path in lab.learner_files() for todo in todos(path)})
    held = " and ".join(lab.files)
    print(f"\n{target.relative_to(ROOT)} holds {held}")
    score = f"score {description['score']}" if graded else "not graded here"
    print(f"  kit {description['kit']}, {score}")
    if left:
        print(f"  not yet written: exercise {', '.join(left)}")
    return 0


if __name__ == "__main__":
    run_command(main)
