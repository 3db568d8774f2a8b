"""`make adapters LAB=3`: what to upload to the autograders that schools have.

    build/adapters/gradescope-lab3.zip     Gradescope: Configure Autograder, Zip file upload
    build/adapters/autolab-lab3/           Autolab: autograde-Makefile and autograde.tar
    build/adapters/classroom50-lab3/       Classroom 50: CLASSROOM/autograders/ASSIGNMENT/ in the classroom50
                                           repository, whose pages are public: so is the object of
                                           this lab's solution, which is in the kit
    build/adapters/github-lab3.yml         GitHub Actions: .github/workflows/ of a template with the kit
    grader/classroom/adapters/slurm/       Slurm and GNU parallel need no bundle: `make grade-class`

The first three hold the kit as a release has it, solutions as objects only, and what grades a submission.
The workflow runs in the learner's own repository, where it can be changed: look at its history, or grade the
final state with `make grade-class`.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import zipfile
from pathlib import Path

from grader import labs
from grader.classroom.release import pack_plain, stage
from grader.classroom.release_check import add_autograder
from grader.core.version import kit_version, tracked_files
from grader.course import BUILD, LABS, ROOT
from grader.execution.tool import run_command

FOLDER = Path(__file__).resolve().parent


def stage_kit(folder: Path, lab: int) -> None:
    """The kit that an autograder's container gets: no solution of a later lab, as students may read it."""
    stage(folder, kit_version(), lab)
    add_autograder(folder)


def gradescope(lab: int, kit: Path, target: Path) -> Path:
    """The zip: setup.sh and run_autograder at its top, the kit beside them."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("setup.sh", "run_autograder"):
            archive.write(FOLDER / "gradescope" / name, name)
        archive.writestr("lab", f"{lab}\n")
        for path in sorted(path for path in kit.rglob("*") if path.is_file()):
            archive.write(path, f"kit/{path.relative_to(kit)}")
    return target


def autolab(lab: int, kit: Path, target: Path) -> Path:
    """The folder with Autolab's two files."""
    target.mkdir(parents=True, exist_ok=True)
    text = (FOLDER / "autolab" / "Makefile").read_text()
    (target / "autograde-Makefile").write_text(text.replace("@LAB@", str(lab)))
    (target / "autograde.tar").write_bytes(pack_plain(kit))
    return target


def classroom50(lab: int, kit: Path, target: Path) -> Path:
    """The folder with autograder.py and what it needs beside it."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "classroom50" / "autograder.py", target / "autograder.py")
    (target / "lab").write_text(f"{lab}\n")
    (target / "kit.tar.gz").write_bytes(gzip.compress(pack_plain(kit), mtime=0))
    return target


def github(lab: int, target: Path) -> Path:
    """The workflow."""
    target.write_text((FOLDER / "github" / "grade.yml").read_text().replace("@LAB@", str(lab)))
    return target


def main() -> int:
    parser = argparse.ArgumentParser(prog="make adapters", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=int, choices=labs.NUMBERS, required=True)
    parser.add_argument("--out", type=Path, default=BUILD / "adapters", help="where they go")
    arguments = parser.parse_args()
    lab, out = arguments.lab, arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if not tracked_files():
        print("The bundles are made from a clone with its history.", file=sys.stderr)
        return 2
    kit = out / "kit"
    stage_kit(kit, lab)
    made = [gradescope(lab, kit, out / f"gradescope-lab{lab}.zip"),
            autolab(lab, kit, out / f"autolab-lab{lab}"),
            classroom50(lab, kit, out / f"classroom50-lab{lab}"),
            github(lab, out / f"github-lab{lab}.yml")]
    shutil.rmtree(kit)
    for path in made:
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    print(f"what learners submit: {', '.join(LABS[lab].files)}, alone or as packed by `make handin`")
    return 0


if __name__ == "__main__":
    run_command(main)
