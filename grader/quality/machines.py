"""`make machines`: grades the solutions and runs `make test` on each kind of machine that the kit supports.
It takes hours, so it is not part of `make test`: run it before a release.

Each row uses a Debian root with the kit's packages, created with debootstrap from the mirror of this
machine's apt. enter.sh starts a temporary copy of it with a fresh clone of the kit, so only committed files
are tested. Each row prints one line; its complete output is in build/machines/. The roots are kept for a week
in the cache (~/.cache/mini-kvm-labs/machines/; `make clean-cache` removes them).
Exit status: 0 all rows are green; 1 some are not; 2 usage error, or this machine lacks something.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from grader.course import BUILD, LABS, ROOT
from grader.execution.c_tools import locked
from grader.execution.labvm.snapshot import cache_folder
from grader.execution.tool import run_command

ENTER = ROOT / "grader/quality/enter.sh"
LOGS = BUILD / "machines"
DAYS_KEPT = 7
USER = "learner"
LATIN_1 = "de_DE.ISO-8859-1"

# In its own namespaces, a command's mounts and processes end with it, and it ends with us.
NAMESPACES = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]

PACKAGES = "grader/setup.sh build grade vm test handouts"

# Prepares a Debian root for the kit: its packages, a user without sudo, a Latin-1 locale.
PREPARE = f"""
set -e
apt-get update -q
sh {PACKAGES}
useradd --create-home --shell /bin/bash {USER}
echo '{LATIN_1} ISO-8859-1' > /etc/locale.gen
locale-gen
apt-get clean
"""

# $1 the user, $2 their home, $3 the clone, $4 busy loops, $5 what to run there. With fresh lists of packages:
# the lab VM's kernel is downloaded. The kit may need a package that the root does not have yet.
RUN = f"""
cd "$3" && apt-get update -q=2 && sh {PACKAGES} || exit
chown -R "$1:" .
for _ in $(seq "$4"); do sh -c 'while :; do :; done' & done
setpriv --reuid="$1" --regid="$1" --init-groups env HOME="$2" USER="$1" LOGNAME="$1" bash -c "$5"
"""

EVERYTHING = "make grade SOLUTION=1; grades=$?; make test; tests=$?; [ $grades$tests = 00 ]"


@dataclass(frozen=True)
class Row:
    """A kind of machine."""

    what: str
    debian: str = "bookworm"
    user: str = "root"
    kvm: bool = False                # has this machine's /dev/kvm
    folder: str = "mini-kvm-labs"    # of the clone, in the user's home
    environment: dict[str, str] = field(default_factory=dict)
    busy: int = 0                    # busy processes at the same time

    @property
    def home(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"


ROWS = {
    "debian12": Row("Debian 12, root"),
    "debian12-user": Row("Debian 12, a user without sudo", user=USER),
    "debian13": Row("Debian 13, root", "trixie"),
    "debian13-user": Row("Debian 13, a user without sudo", "trixie", user=USER),
    "testing": Row("Debian testing, root", "testing"),
    "testing-user": Row("Debian testing, a user without sudo", "testing", user=USER),
    "kvm": Row("this machine's /dev/kvm", kvm=True),
    "path": Row("a path with spaces and non-ASCII letters", user=USER, folder="Übungen für Mini KVM"),
    "locale-c": Row("the C locale", user=USER,
                    environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "locale-latin1": Row("a Latin-1 locale", user=USER, environment={"LC_ALL": LATIN_1}),
    "busy": Row("two busy loops at the same time", busy=2),
}


class Missing(Exception):
    """This machine lacks something to run a row."""


def mirror() -> str:
    """The Debian mirror of this machine's apt."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    try:
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"apt does not name its mirror: {error}") from error
    if not found:
        raise Missing("apt has no package lists of a Debian mirror; try: apt-get update")
    return found[0]


def apt_options() -> str:
    """This machine's apt configuration for downloads (such as a proxy), in the format of apt.conf(5)."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, text=True, check=True)
    return "".join(f"{line}\n" for line in dump.stdout.splitlines()
                   if re.match(r'Acquire::(?!IndexTargets|Changelogs)\S+ ".+";$', line))


def enter(root: Path, command: Sequence[str], output: IO[bytes] | None = None, scratch: str = "",
          kvm: bool = False, folder: str = "") -> int:
    """Runs a command in a root (enter.sh); returns the exit status."""
    arguments = [str(root), scratch, "1" if kvm else "", str(ROOT) if folder else "", folder]
    with subprocess.Popen([*NAMESPACES, "sh", str(ENTER), *arguments, *command], stdout=output,
                          stderr=subprocess.STDOUT if output else None,
                          stdin=subprocess.DEVNULL if output else None) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


def root_of(debian: str) -> Path:
    """The root of a Debian release: the one in the cache, or a new one."""
    folder = cache_folder() / "machines"
    root, partial = folder / debian, folder / f"{debian}.partial"
    with locked(folder / f"{debian}.lock"):
        if root.exists() and time.time() - root.stat().st_mtime < DAYS_KEPT * 24 * 3600:
            return root
        print(f"creating the root of Debian {debian} (some minutes)", file=sys.stderr, flush=True)
        for old in (root, partial):
            shutil.rmtree(old, ignore_errors=True)
        log = LOGS / f"{debian}-root.log"
        with open(log, "wb") as output:
            debootstrap = ["debootstrap", "--variant=minbase", "--include=locales,make"]
            done = subprocess.run([*NAMESPACES, *debootstrap, debian, str(partial), mirror()], stdout=output,
                                  stderr=subprocess.STDOUT)
            if done.returncode == 0:
                (partial / "etc/apt/apt.conf.d/00-acquire").write_text(apt_options())
                (partial / "grader").mkdir()
                shutil.copy(ROOT / "grader/setup.sh", partial / "grader")
                done.returncode = enter(partial, ["sh", "-c", PREPARE], output)
        if done.returncode != 0:
            raise Missing(f"can't create the root of Debian {debian}: see {log.relative_to(ROOT)}")
        os.utime(partial)
        partial.rename(root)
        return root


def run(row: Row, command: str, output: IO[bytes] | None = None) -> int:
    """Runs a shell command as the row's user in a fresh clone on its machine; returns the exit status."""
    if row.kvm and not os.path.exists("/dev/kvm"):
        raise Missing("this machine has no /dev/kvm")
    scratch = cache_folder() / "machines/scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    environment = [f"{name}={value}" for name, value in row.environment.items()]
    clone = f"{row.home}/{row.folder}"
    return enter(root_of(row.debian), ["env", *environment, "sh", "-c", RUN, "sh", row.user, row.home, clone,
                                       str(row.busy), command], output, str(scratch), row.kvm, clone)


def summary(text: str) -> str:
    """A summary of EVERYTHING's output."""
    scores = re.findall(r"^Score: (\S+) of 100$", text, re.M)
    wrong = [score for score in scores if score != "100"]
    grades = f"{len(scores) - len(wrong)} of {len(LABS)} solutions have 100"
    totals = re.findall(r"^\d+ passed, \d+ failed.*", text, re.M)
    programs = re.findall(r"^\[ *\d+/\d+\] (?:FAIL|ERR) +(\S+)", text, re.M)
    tests = totals[-1] if totals else "make test did not end"
    return f"{grades}; {tests}" + (f" ({', '.join(programs)})" if programs else "")


def report(name: str) -> bool:
    """Runs everything on a row's machine and prints its line; returns whether it is green."""
    row, log, start = ROWS[name], LOGS / f"{name}.log", time.monotonic()
    try:
        with open(log, "wb") as output:
            green = run(row, EVERYTHING, output) == 0
        said = summary(log.read_text(errors="replace"))
    except Missing as missing:
        green, said = False, f"not run: {missing}"
    minutes = (time.monotonic() - start) / 60
    print(f"{'ok' if green else 'FAIL':4} {name:13} {said}; {minutes:.0f} min  [{row.what}]", flush=True)
    return green


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make machines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"{name:13} {row.what}" for name, row in ROWS.items()))
    parser.add_argument("--run", metavar="COMMAND", help="run this on the row's machine, and show its output")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="the rows to run; default: all")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.rows if name not in ROWS]
    if unknown:
        parser.error(f"unknown row {unknown[0]}; the rows are: {', '.join(ROWS)}")
    if os.geteuid() != 0:
        print("make machines mounts file systems: run it as root", file=sys.stderr)
        return 2
    if not shutil.which("debootstrap"):
        print("make machines makes its roots with debootstrap: apt-get install debootstrap", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    LOGS.mkdir(parents=True, exist_ok=True)
    chosen = parsed.rows or list(ROWS)
    try:
        if parsed.run:
            return max(run(ROWS[name], parsed.run) for name in chosen)
        return 0 if all([report(name) for name in chosen]) else 1
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    run_command(main)
