"""The vm back end: runs in the lab VM, on the runner inside."""

from __future__ import annotations

import sys
from typing import List, Optional, Sequence

from grader.execution.labvm.worker import VmWorker
from grader.execution.runs import Result, Run
from grader.execution.worker import OnResult, Worker, run_all


class VmBackend:
    """The lab VM."""

    name = "vm"

    def __init__(self, why: str = "") -> None:
        self.why = why

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: Optional[OnResult] = None) -> List[Result]:
        """As Backend.run. Each of the jobs has a VM of its own."""
        def start(fresh: bool) -> Worker:
            return VmWorker(fresh)
        return run_all(start, runs, jobs, on_result)

    def works_still(self) -> bool:
        """As Backend.works_still: it brings its own KVM."""
        return True

    def command(self, argv: Sequence[str]) -> List[str]:
        """As Backend.command: our own module, which starts a VM for it."""
        return [sys.executable, "-m", "grader.execution.labvm", "run", "--", *argv]
