"""One lab VM: QEMU's command line, its monitor (QMP), and the channel to the runner inside.

The channel is a virtio-serial port: it carries whole files in both directions at tens of megabytes per
second, compared with 0.2 for a serial line. Guest RAM is the snapshot's file, mapped privately: a restore
reads only the pages that it touches, and several VMs share them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grader.execution.labvm.confine import ENVIRONMENT, innermost
from grader.execution.worker import WorkerDied
from grader.execution.connection import Connection
from grader.execution.c_tools import SETUP, install_command
from grader.execution.runs import CannotGrade

QEMU = "qemu-system-x86_64"
RAM_MIB = 1024
HARDWARE = [
    "-accel", "tcg", "-cpu", "qemu64,+svm,+npt", "-machine", "pc,memory-backend=ram", "-m", str(RAM_MIB),
    "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
    "-device", "virtio-serial-pci,max_ports=3", "-device", "virtserialport,chardev=channel,nr=1",
    "-device", "virtserialport,chardev=debugger,nr=2",
]
DEBUGGER_PORT = "/dev/vport0p2"    # in the VM
# For a fast boot: no self-tests, no patching for other processors. Creating or closing a KVM VM waits for
# RCU, which takes several ticks unless it is expedited.
KERNEL_ARGUMENTS = ("console=ttyS0 quiet panic=-1 nokaslr cryptomgr.notests noreplace-smp mitigations=off "
                    "8250.nr_uarts=1 rcupdate.rcu_expedited=1")


def qemu_path() -> str:
    """The path of QEMU. If it is missing, it is installed, provided that needs no password."""
    path = shutil.which(QEMU)
    if not path and subprocess.run(["/bin/sh", str(SETUP), "--try", "vm"]).returncode == 0:
        path = shutil.which(QEMU)
    if not path:
        raise CannotGrade(f"{QEMU} is not installed", install_command("qemu-system-x86"))
    return path


def processor_wait(pid: int) -> float:
    """Seconds that a process has waited for a processor: the longest of its threads' waits. 0 if it has
    ended, or if the kernel does not count them (schedstat: Documentation/scheduler/sched-stats.rst)."""
    waits = [0]
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            waits.append(int(path.read_text().split()[1]))
    return max(waits) / 1e9


def processor_time(pid: int) -> float:
    """Seconds that a process's threads have run, all together; 0 if it has ended: stat in proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Machine:
    """A running QEMU. It is killed when the thread that started it ends."""

    def __init__(self, ram: str, extra: Sequence[str], before: Sequence[str], share: bool,
                 given: Sequence[int] = (), debugger: socket.socket | None = None) -> None:
        """Start QEMU with the file `ram` as RAM; `share` writes changes back to the file. `before`: the words
        before the command; `given`: its descriptors. Who connects to the listening socket `debugger` is
        connected with the second port."""
        self._closing = threading.Lock()
        self._messages: list[str] = []
        self._waited = self._ran = self._clock = 0.0
        self._own = time.monotonic()
        # In memory, because QEMU, which may be another user and see no files, opens it again.
        self._log = os.fdopen(os.memfd_create("log"), "r+b", buffering=0)
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)  # both QEMU and the VM's console write to it
        ours, theirs = socket.socketpair()
        descriptors = [*given, theirs.fileno(), *([debugger.fileno()] if debugger else [])]
        with theirs:
            argv = [qemu_path(), *HARDWARE, "-qmp", "stdio",
                    "-object", f"memory-backend-file,id=ram,size={RAM_MIB}M,mem-path={ram},"
                    f"share={'on' if share else 'off'}",
                    "-chardev", f"socket,id=channel,fd={theirs.fileno()}",
                    "-chardev", f"socket,id=debugger,fd={debugger.fileno()},server=on,wait=off" if debugger
                    else "null,id=debugger",
                    "-chardev", "file,id=console,path=/proc/self/fd/2,append=on",
                    "-serial", "chardev:console", *extra]
            try:
                self._process = subprocess.Popen(
                    [*before, *argv], env=ENVIRONMENT, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=self._log, pass_fds=descriptors,
                    start_new_session=True)
            except OSError as error:
                raise CannotGrade(f"can't start setpriv: {error}",
                                  install_command("util-linux")) from error
        self.channel = Connection(ours)

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Execute a QMP command and return its response."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                answer = json.loads(line)
                if "return" in answer:
                    return dict(answer)
                if "error" in answer:
                    raise WorkerDied(f"QEMU rejects {name}: {answer['error'].get('desc')}")
        except (OSError, ValueError) as error:
            raise WorkerDied(f"QEMU is gone: {error}") from error
        raise WorkerDied("QEMU ended")

    def prepare_migration(self) -> None:
        """Exclude the RAM from snapshot and restore: it is in its own file."""
        self.command("qmp_capabilities")
        self.command("migrate-set-capabilities",
                     capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def save(self, state: Path) -> None:
        """Stop the VM and write its state, except the RAM, to the file `state`."""
        self.prepare_migration()
        self.command("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
        while True:
            status = self.command("query-migrate")["return"]["status"]
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise WorkerDied("QEMU could not save its state")
            time.sleep(0.01)

    def load(self, state: int) -> None:
        """Resume a VM whose state comes from this descriptor of QEMU's. QEMU must have been started with
        "-incoming defer"."""
        self.prepare_migration()
        self.command("migrate-incoming", uri=f"fd:{state}")

    def qemu(self) -> int:
        """The process that is QEMU."""
        return innermost(self._process.pid)

    def own_time(self) -> float:
        """Seconds on a clock that stands still while the VM waits for a processor. It goes on at
        least with the processor time that the VM takes: of many threads one waits most of the time."""
        pid = self.qemu()
        self._waited = max(self._waited, processor_wait(pid))
        own, ran = time.monotonic() - self._waited, max(self._ran, processor_time(pid))
        self._clock += max(own - self._own, ran - self._ran)
        self._own, self._ran = own, ran
        return self._clock

    def console(self) -> list[str]:
        """The messages of QEMU and the kernel, for an error message."""
        with self._closing:
            if not self._log.closed:
                self._log.seek(0)
                self._messages = self._log.read().decode("utf-8", "replace").splitlines()
            return self._messages

    def last_messages(self, count: int) -> list[str]:
        """The last messages, and before them why QEMU stopped: it prints all registers after that."""
        messages = self.console()
        return [*(line for line in messages[:-count] if line.startswith("qemu")), *messages[-count:]]

    def close(self) -> None:
        """End QEMU. May be called twice, from any thread."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.qemu(), signal.SIGKILL)
        self.console()
        with self._closing:
            self._process.communicate()
            self._log.close()
