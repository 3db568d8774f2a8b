"""Choosing the back end: BACKEND=auto|kvm|vm, and what the lab needs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from grader.execution.worker import Backend
from grader.execution.backends.kvm import KvmBackend
from grader.execution.backends.vm import VmBackend
from grader.execution.kvm_probe import KINDS, probe_kvm
from grader.execution.runs import CannotGrade


def pick_backend(name: str, needs: Sequence[str] = ()) -> Backend:
    """The back end for `name` ("auto", "kvm" or "vm") and guests of the kinds `needs` (of KINDS).

    auto picks the host's /dev/kvm if the probe saw it run all of these kinds, else the lab VM.
    """
    unknown = set(needs) - set(KINDS)
    if unknown:
        raise ValueError(f"no such kinds of guest: {', '.join(sorted(unknown))}")
    if name == "vm":
        return VmBackend("vm: chosen with BACKEND=vm")
    if name not in ("auto", "kvm", ""):
        raise CannotGrade(f"no such back end: {name!r}", "BACKEND=auto, BACKEND=kvm or BACKEND=vm")
    probe = probe_kvm()
    against = probe.reason_against(needs)
    if not against:
        seen = ", ".join(KINDS[kind] for kind in needs)
        why = "kvm: this machine's /dev/kvm" + (f" runs {seen}" if seen else "")
        return KvmBackend(why, needs)
    if name == "kvm":
        raise CannotGrade(against, "BACKEND=vm" + (f"; or: {probe.fix()}" if probe.fix() else ""))
    return VmBackend(f"vm: the lab VM; {against}", whole=False)


class Picker:
    """Picks back ends for one BACKEND= value, and prints the reason for each choice once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.printed: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, needs: Sequence[str]) -> Backend:
        with self._lock:
            backend = pick_backend(self.name, needs=tuple(needs))
            if backend.why not in self.printed:
                self.printed.append(backend.why)
                print(backend.why, flush=True)
        return backend
