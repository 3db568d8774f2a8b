"""`make release`: the kit as learners get it, a tarball that has passed its own check.

In the place of solutions/*.c stand their objects, so that a learner who is stuck in lab 2 can go on with
lab 3: `make` uses an object where there is no source. labs/ holds fresh skeletons, whatever lies there now.
Left out are mutants, cheats, the kit's own tests, the instructor's tools and text, and all history.

    build/release/mini-kvm-labs-VERSION.tar.gz

Exit status: 0 the tarball is good; 1 it failed its check and is not there; 2 it can't be made here.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from grader.core.building import build_os, make_text
from grader.classroom.release_check import check
from grader.core.version import blob_hash, git_refusal, kit_version, tracked_files
from grader.course import BUILD, LABS, ROOT
from grader.core.exercises import skeleton
from grader.execution.progress import Progress
from grader.execution.tool import run_command

# What a release is made of, by the beginning of a file's path; and what of that is not for learners.
FOR_LEARNERS = ("Makefile", "README.md", "LICENSE", ".clang-format", ".gitattributes",
                ".gitignore", ".devcontainer/", ".vscode/", "common/", "guests/", "os-1k/", "grader/",
                "handouts/")
NOT_FOR_LEARNERS = (
    "common/tests/", "os-1k/tests/",
    "grader/quality/", "grader/classroom/",
    "handouts/instructors.md", "handouts/mistakes.md",
)


def released_files() -> list[str]:
    """The tracked files that a release has as they are."""
    hidden = (*NOT_FOR_LEARNERS, *(f"grader/labs/{lab.folder}/{kind}/" for lab in LABS.values()
                                   for kind in ("mutants", "alternatives")))
    return [name for name in tracked_files()
            if name.startswith(FOR_LEARNERS) and not name.startswith(hidden)]


def without_dead_links(text: str, place: str, released: set[str]) -> str:
    """A text of the kit, its links to what a release lacks turned into plain words."""
    def link(match: re.Match[str]) -> str:
        target = match[2].partition("#")[0]
        path = os.path.normpath(os.path.join(os.path.dirname(place), target))
        inside = not target or "://" in target or path in released or path in folders
        return match[0] if inside else match[1]

    folders = {str(parent) for name in released for parent in Path(name).parents}
    return re.sub(r"(?<!!)\[([^]]+)\]\(([^)\s]+)\)", link, text)


def stage(folder: Path, version: str, last: int = max(LABS)) -> None:
    """Lays out the release in `folder`, with the objects of the solutions up to lab `last`."""
    with Progress("packing the kit") as progress:
        progress.step()
        _stage(folder, version, last, progress)


def _stage(folder: Path, version: str, last: int, progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    released = released_files()
    for name in released:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
        if name.endswith(".md"):
            target.write_text(without_dead_links(target.read_text(), name, set(released)))
    (folder / "grader" / "VERSION").write_text(f"{version}\n")
    (folder / "grader" / "HEADERS").write_text("".join(
        f"100644 {blob_hash((ROOT / name).read_bytes())} 0\t{name}\n"
        for name in released if name.endswith(".h")))
    for lab in LABS.values():
        progress.step(f"lab {lab.number}")
        for solution, target in zip(lab.solution_files(), lab.learner_files()):
            learner = folder / target.relative_to(ROOT)
            learner.parent.mkdir(parents=True, exist_ok=True)
            learner.write_text(skeleton(solution.read_text(), solution.name))
        if lab.number <= last:
            write_objects(lab.number, folder)


def write_objects(lab: int, folder: Path) -> None:
    """The objects of a lab's solution, without names or lines for a debugger."""
    words = make_text("vmm-flags", {"LAB": str(lab), "SOLUTION": "1"}).split()
    words.remove("-g")
    for solution in LABS[lab].solution_files():
        path = (folder / solution.relative_to(ROOT)).with_suffix(".o")
        path.parent.mkdir(parents=True, exist_ok=True)
        if solution.name == LABS[lab].kernel:
            out = BUILD / "release" / "os-1k"
            build_os(out=out)
            shutil.copy(out / "kernel" / path.name, path)
        else:
            _execute([*words, "-c", str(solution.relative_to(ROOT)), "-o", str(path)])
        _execute(["strip", "--strip-unneeded", "--remove-section=.comment", str(path)])


def _execute(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stdout}")


def pack_plain(folder: Path) -> bytes:
    """A tar of `folder` that depends on nothing but the files' names, content and rights."""
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as archive:
        archive.add(folder, folder.name, filter=plain)
    return unpacked.getvalue()


def make_release(labs: list[int], backend: str) -> Path:
    """The tarball, good or gone. Raises SystemExit where it is not good."""
    version = kit_version()
    name = f"mini-kvm-labs-{version}"
    folder = BUILD / "release" / name
    tarball = folder.with_name(f"{name}.tar.gz")
    unchecked = folder.with_name(f"{name}.unchecked")
    tarball.unlink(missing_ok=True)
    stage(folder, version)
    unchecked.write_bytes(gzip.compress(pack_plain(folder), mtime=0))
    shutil.rmtree(folder)
    found = check(unchecked, labs, backend)
    if found:
        unchecked.unlink()
        raise SystemExit("The release is not good:\n" + "\n".join(f"  {fault}" for fault in found))
    unchecked.rename(tarball)
    return tarball


def main() -> int:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labs", type=int, nargs="*", choices=LABS, default=list(LABS), metavar="N",
                        help="grade only these labs in the check")
    parser.add_argument("--backend", default="", help="where the check grades: auto, kvm or vm")
    arguments = parser.parse_args()
    if not tracked_files():
        print(git_refusal() or "A release is made from a clone with its history: git knows which files "
              "belong to the kit.", file=sys.stderr)
        return 2
    tarball = make_release(arguments.labs, arguments.backend)
    print(f"{tarball.relative_to(ROOT)}: {tarball.stat().st_size / 1024:.0f} KB, checked")
    return 0


if __name__ == "__main__":
    run_command(main)
