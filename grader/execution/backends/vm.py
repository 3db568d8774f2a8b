"""The vm back end: executes runs in the lab VM, with the runner inside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import ceil

from grader.execution.budget import Account
from grader.execution.labvm.session import PORT_FD
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import Result, Run
from grader.execution.worker import OnResult, run_all

# A VM takes as much processor time to start as about this many runs take. So it gets at least that many.
RUNS_EACH = 6


class VmBackend:
    """The lab VM."""

    name = "vm"

    def __init__(self, why: str = "") -> None:
        self.why = why

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        """As Backend.run. Each job has its own VM; there are fewer jobs for a few runs."""
        return run_all(VmWorker, runs, min(jobs, ceil(len(runs) / RUNS_EACH)), on_result, account)

    def works_still(self) -> bool:
        """As Backend.works_still: the lab VM has its own KVM."""
        return True

    def command(self, argv: Sequence[str], output: str = "") -> list[str]:
        """As Backend.command: this package's own module, which starts a VM for it."""
        options = [f"--output={output}"] if output else []
        return [sys.executable, "-m", "grader.execution.labvm", "run", *options, "--", *argv]

    def debug_command(self, argv: Sequence[str], socket_path: str) -> list[str]:
        """As Backend.debug_command: the VM passes the connection on to a descriptor of the VMM."""
        return [sys.executable, "-m", "grader.execution.labvm", "run", f"--debugger={socket_path}", "--",
                argv[0], f"--gdb=fd:{PORT_FD}", *argv[1:]]
