"""`make doctor`: what of the kit works on this machine, and what to do about what doesn't.

Exit status 0 if guests of every kind can be run here, on one back end or the other.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Iterator, List

from grader.execution.worker import WorkerDied
from grader.execution.c_tools import compiler
from grader.execution.kvm_probe import KINDS, probe_kvm
from grader.execution.labvm import snapshot
from grader.execution.labvm.machine import QEMU
from grader.execution.runs import CannotGrade


@dataclass(frozen=True)
class Row:
    """One line of the table; `mend` is empty where nothing needs mending."""

    what: str
    found: str
    works: bool
    mend: str = ""


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else "present"


def _tool(what: str, program: str, package: str) -> Row:
    if shutil.which(program):
        return Row(what, _version(program), True)
    return Row(what, "missing", False, f"sudo apt-get install {package}")


def tool_rows() -> Iterator[Row]:
    """The programs that the kit calls."""
    try:
        yield Row("C compiler", _version(compiler(for_lab_vm=False)), True)
    except CannotGrade as error:
        yield Row("C compiler", "missing", False, error.mend)
    yield _tool("assembler", "nasm", "nasm")
    yield Row("Python", sys.version.split()[0], sys.version_info >= (3, 9), "Python 3.9 or later")
    pexpect = importlib.util.find_spec("pexpect") is not None
    yield Row("pexpect", "present" if pexpect else "missing", pexpect, "sudo apt-get install python3-pexpect")
    found = subprocess.run(["pkg-config", "--modversion", "check"], capture_output=True, text=True,
                           check=False) if shutil.which("pkg-config") else None
    yield Row("Check (unit tests)", found.stdout.strip() if found and found.returncode == 0 else "missing",
              bool(found and found.returncode == 0), "sudo apt-get install check pkg-config")
    yield _tool("QEMU (lab VM)", QEMU, "qemu-system-x86")
    yield _tool("strace", "strace", "strace")


def kvm_rows() -> Iterator[Row]:
    """The host's /dev/kvm: the device, then each kind of guest."""
    probe = probe_kvm()
    yield Row("/dev/kvm", {"ok": "present, permitted, API version 12"}.get(probe.device, probe.device),
              probe.device == "ok", probe.mend())
    for kind, words in KINDS.items():
        if probe.device == "ok":
            answer = probe.kinds.get(kind, "not tried")
            yield Row(f"  {words}", "runs" if answer == "ok" else answer, answer == "ok",
                      "labs that need it run in the lab VM")


def lab_vm_row() -> Row:
    """The lab VM, started for this (and made, at the first time)."""
    try:
        snapshot.start().close()  # the first one may have to be made
        started = time.monotonic()
        snapshot.start().close()
        return Row("lab VM", f"ready, restored in {time.monotonic() - started:.2f} s", True)
    except (CannotGrade, WorkerDied) as error:
        reason, mend = getattr(error, "reason", str(error)), getattr(error, "mend", "run it again")
        return Row("lab VM", str(reason), False, str(mend))


def table(rows: List[Row], colour: bool) -> str:
    """The rows as text; the mend stands below its row."""
    lines = []
    width = max(len(row.what) for row in rows)
    for row in rows:
        mark = "OK" if row.works else "--"
        if colour:
            mark = f"\033[{32 if row.works else 33}m{mark}\033[0m"
        lines.append(f"{mark}  {row.what:{width}}  {row.found}")
        if not row.works and row.mend:
            lines.append(f"    {'':{width}}  mend: {row.mend}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; the exit status."""
    try:
        tools, kvm = list(tool_rows()), list(kvm_rows())
    except CannotGrade as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 1
    lab_vm = lab_vm_row()
    print(table([*tools, *kvm, lab_vm], sys.stdout.isatty() and os.environ.get("TERM") != "dumb"))
    if all(row.works for row in kvm):
        print("BACKEND=auto runs every lab on /dev/kvm.")
    elif lab_vm.works:
        print("BACKEND=auto runs on /dev/kvm what that knows, and the rest in the lab VM.")
    else:
        print("Not every lab can run here: mend /dev/kvm or the lab VM.")
    return 0 if lab_vm.works or all(row.works for row in kvm) else 1


if __name__ == "__main__":
    sys.exit(main())
