"""The vm back end: executes runs in the lab VM, with the runner inside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import ceil

from grader.execution.backends.kvm import HostWorker
from grader.execution.budget import Account
from grader.execution.c_tools import is_x86_64
from grader.execution.labvm.session import PORT_FD
from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import Result, Run
from grader.execution.worker import OnResult, StartWorker, run_all

# A VM takes as much processor time to start as about this many runs take. So it gets at least that many.
RUNS_EACH = 6


class VmBackend:
    """The lab VM, and the host for what needs no KVM."""

    name = "vm"

    def __init__(self, why: str = "", whole: bool = True) -> None:
        """`whole`: all runs are for the lab VM, as it must be for a stranger's programs."""
        self.why = why
        self._whole = whole or not is_x86_64()

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        """As Backend.run. Each job has its own VM; there are fewer jobs for a few runs. What may run on the
        host, where it takes a fraction of the time, comes first."""
        in_vm = [place for place, run in enumerate(runs) if self._whole or run.kvm]
        on_host = [place for place, run in enumerate(runs) if not (self._whole or run.kvm)]
        results: dict[int, Result] = {}

        def execute(start_worker: StartWorker, places: Sequence[int], at_once: int) -> None:
            def take(number: int, result: Result) -> None:
                if on_result:
                    on_result(places[number], result)

            some = run_all(start_worker, [runs[place] for place in places], at_once, take, account)
            results.update(zip(places, some))

        execute(HostWorker, on_host, jobs)
        execute(VmWorker, in_vm, min(jobs, ceil(len(in_vm) / RUNS_EACH)))
        return [results[place] for place in range(len(runs))]

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
