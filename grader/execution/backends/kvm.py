"""The kvm back end: executes runs on the host, in a runner that is our child."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence

from grader.course import ROOT
from grader.execution.budget import Account
from grader.execution.c_tools import c_tool
from grader.execution.connection import Connection
from grader.execution.kvm_probe import probe_kvm
from grader.execution.runs import CannotGrade, Result, Run
from grader.execution.worker import OnResult, WorkerDied, run_all

START_TIMEOUT = 60.0


class HostWorker:
    """A runner as a subprocess. It executes as `user`, if one is given."""

    used = 0.0       # not measured: strangers' programs run in the lab VM

    def __init__(self, user: int = 0) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            runner = c_tool("runner", ROOT / "grader/execution/runner")
            command = [str(runner), *([str(user)] if user else [])]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL,
                                             start_new_session=True)
        self._connection = Connection(ours)
        try:
            key, data = self._connection.receive(START_TIMEOUT)
        except WorkerDied as death:
            self.close()
            raise CannotGrade(f"the runner does not start: {death}", "run `make doctor`") from death
        self.isolation = data.decode() if key == "ready" else "unknown"

    def execute(self, run: Run) -> Result:
        """Execute one run."""
        return self._connection.execute(run)

    def close(self) -> None:
        """End the runner: when its host is gone, it kills what it started and exits."""
        self._connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class KvmBackend:
    """The host's /dev/kvm. Programs that boot no guest also run here without it."""

    name = "kvm"

    def __init__(self, why: str = "", needs: Sequence[str] | None = None) -> None:
        """`needs`: the kinds of guest that it was picked for; None: no guests at all."""
        self.why = why
        self._needs = needs

    def run(self, runs: Sequence[Run], jobs: int = 1, on_result: OnResult | None = None,
            account: Account | None = None) -> list[Result]:
        """As Backend.run."""
        return run_all(HostWorker, runs, jobs, on_result, account)

    def works_still(self) -> bool:
        """As Backend.works_still."""
        return self._needs is None or not probe_kvm(again=True).reason_against(self._needs)

    def command(self, argv: Sequence[str], output: str = "") -> list[str]:
        """As Backend.command: on the host the command line is unchanged."""
        return list(argv)

    def debug_command(self, argv: Sequence[str], socket_path: str) -> list[str]:
        """As Backend.debug_command."""
        return [argv[0], f"--gdb={socket_path}", *argv[1:]]
