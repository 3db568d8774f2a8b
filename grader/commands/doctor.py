"""`make doctor`: reports what works on this machine and how to fix the rest. It installs nothing.

A row is OK, WARN (the kit works without it) or FAIL. The exit status is 0 if nothing fails and every kind of
guest runs on one of the back ends.
"""

from __future__ import annotations

import importlib.util
import locale
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grader.core.version import git_refusal
from grader.execution import place
from grader.execution.c_tools import compiler, install_command
from grader.execution.kvm_probe import KINDS, probe_kvm
from grader.execution.labvm import snapshot
from grader.execution.labvm.machine import QEMU
from grader.execution.runs import CannotGrade
from grader.execution.tool import in_colour, run_command
from grader.execution.worker import WorkerDied

OK, WARN, FAIL = "OK", "WARN", "FAIL"
_COLOURS = {OK: 32, WARN: 33, FAIL: 31}


@dataclass(frozen=True)
class Row:
    """One line of the table; `fix` is shown unless it is OK."""

    what: str
    found: str
    status: str
    fix: str = ""


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace",
                          check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else "present"


def _tool(what: str, program: str, package: str, missing: str = FAIL) -> Row:
    if shutil.which(program):
        return Row(what, _version(program), OK)
    return Row(what, "missing", missing, install_command(package))


def tool_rows() -> Iterator[Row]:
    """The programs that the kit calls."""
    try:
        yield Row("C compiler", _version(compiler(for_lab_vm=False)), OK)
    except CannotGrade as error:
        yield Row("C compiler", "missing", FAIL, error.fix)
    headers = os.path.exists("/usr/include/stdio.h")
    yield Row("C library headers", "present" if headers else "missing", OK if headers else FAIL,
              install_command("libc6-dev"))
    yield _tool("assembler", "nasm", "nasm")
    yield Row("Python", sys.version.split()[0], OK if sys.version_info >= (3, 9) else FAIL,
              "install Python 3.9 or later")
    pexpect = importlib.util.find_spec("pexpect") is not None
    yield Row("pexpect", "present" if pexpect else "missing", OK if pexpect else FAIL,
              install_command("python3-pexpect"))
    yield _check_row()
    yield _tool("QEMU (lab VM)", QEMU, "qemu-system-x86", missing=WARN)
    yield _tool("strace", "strace", "strace", missing=WARN)


def _check_row() -> Row:
    if shutil.which("pkg-config"):
        found = subprocess.run(["pkg-config", "--modversion", "check"], capture_output=True, text=True,
                               check=False)
        if found.returncode == 0:
            return Row("Check (unit tests)", found.stdout.strip(), OK)
    return Row("Check (unit tests)", "missing", FAIL, install_command("check", "pkg-config"))


def place_rows() -> Iterator[Row]:
    """The kit's folder, git, and the locale."""
    for check in place.checks():
        fault = FAIL if check.stops else WARN
        yield Row(check.what, check.reason or "yes", fault if check.reason else OK, check.fix)
    refusal = git_refusal()
    yield Row("git on this clone", refusal.splitlines()[0] if refusal else "works", WARN if refusal else OK,
              refusal.splitlines()[-1].strip() if refusal else "")
    try:
        locale.setlocale(locale.LC_CTYPE, "")
        encoding = locale.nl_langinfo(locale.CODESET)
    except locale.Error:
        encoding = "unknown: the locale is not installed"
    utf_8 = encoding in ("UTF-8", "ANSI_X3.4-1968")     # the latter is the C locale's
    yield Row("locale", encoding, OK if utf_8 else WARN,
              "the kit reads and prints UTF-8; for a terminal that shows it: export LC_ALL=C.UTF-8")


def kvm_rows() -> Iterator[Row]:
    """The host's /dev/kvm, probed again: the device, then each kind of guest. The lab VM runs the rest."""
    try:
        probe = probe_kvm(again=True)
    except CannotGrade as error:
        yield Row("/dev/kvm", f"not probed: {error.reason}", WARN, error.fix)
        return
    if probe.device != "ok":
        yield Row("/dev/kvm", probe.reason_against(()), WARN, probe.fix())
        return
    yield Row("/dev/kvm", "present, accessible, API version 12", OK)
    for kind, words in KINDS.items():
        answer = probe.kinds.get(kind, "not probed")
        yield Row(f"  {words}", "runs" if answer == "ok" else answer, OK if answer == "ok" else WARN,
                  probe.fix() or "not needed: labs with such guests run in the lab VM")


def lab_vm_row() -> Row:
    """The lab VM, started to test it (and created, the first time)."""
    if not shutil.which(QEMU):
        return Row("lab VM", "not tested: it needs QEMU", WARN, install_command("qemu-system-x86"))
    try:
        snapshot.start().close()  # the first start may have to create it
        started = time.monotonic()
        snapshot.start().close()
        return Row("lab VM", f"ready, restored in {time.monotonic() - started:.2f} s", OK)
    except CannotGrade as error:
        return Row("lab VM", error.reason, WARN, error.fix)
    except WorkerDied as error:
        return Row("lab VM", str(error), WARN, "run `make doctor` again")


def table(rows: Sequence[Row], colour: bool) -> str:
    """The rows as text, each fix below its row."""
    lines = []
    width = max(len(row.what) for row in rows)
    for row in rows:
        mark = f"{row.status:4}"
        if colour:
            mark = f"\033[{_COLOURS[row.status]}m{mark}\033[0m"
        lines.append(f"{mark}  {row.what:{width}}  {row.found}")
        if row.status != OK and row.fix:
            lines.append(f"      {'':{width}}  fix: {row.fix}")
    return "\n".join(lines)


def main() -> int:
    """Prints the table; returns the exit status."""
    kvm = list(kvm_rows())
    lab_vm = lab_vm_row()
    tools = [*tool_rows(), *place_rows()]
    print(table([*tools, *kvm, lab_vm], in_colour()))
    failing = [row.what for row in tools if row.status == FAIL]
    kvm_works = all(row.status == OK for row in kvm)
    if failing:
        print(f"Fix first: {', '.join(failing)}.")
    elif kvm_works:
        print("BACKEND=auto runs every lab on /dev/kvm.")
    elif lab_vm.status == OK:
        print("BACKEND=auto uses /dev/kvm for the labs that it supports, and the lab VM for the rest.")
    else:
        print("Not every lab runs on this machine: fix /dev/kvm or the lab VM.")
    return 0 if not failing and (kvm_works or lab_vm.status == OK) else 1


if __name__ == "__main__":
    run_command(main)
