"""What this machine's /dev/kvm really does: the answers of probe.c, kept until something changes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from typing import Dict, List, Sequence

from grader.course import ROOT
from grader.execution.c_tools import BUILD, c_tool

SOURCE = ROOT / "grader/execution/probe.c"
CACHE = BUILD / "probe.json"
DEVICE = "/dev/kvm"

# The kinds of guest that a lab may need, in the probe's words, and in a person's.
KINDS: Dict[str, str] = {
    "real": "real mode",
    "interrupts": "real-mode interrupts",
    "protected": "protected mode and its interrupts",
    "paging32": "32-bit paging",
    "longmode": "long mode",
}


@dataclass(frozen=True)
class Probe:
    """The probe's answers: "ok", or what went wrong."""

    device: str
    kinds: Dict[str, str]

    def reason_against(self, needs: Sequence[str]) -> str:
        """Why guests of the kinds `needs` can't run here; empty if they can."""
        if self.device != "ok":
            return {"missing": "there is no /dev/kvm", "denied": "/dev/kvm may not be opened"}.get(
                self.device, f"/dev/kvm is not usable ({self.device})")
        failing = [KINDS[kind] for kind in needs if self.kinds.get(kind) != "ok"]
        return f"this machine's /dev/kvm does not run {' and '.join(failing)}" if failing else ""

    def mend(self) -> str:
        """What to do about the device; empty if nothing is needed."""
        if self.device == "ok":
            return ""
        if self.device == "missing":
            return ("switch virtualisation (VT-x, AMD-V) on in the firmware and load kvm_intel or kvm_amd, "
                    "or give the container --device /dev/kvm")
        if self.device == "denied":
            return ("sudo usermod -aG kvm $USER and log in again; or, for every user: "
                    "echo 'KERNEL==\"kvm\", MODE=\"0666\"' | sudo tee /etc/udev/rules.d/99-kvm.rules "
                    "&& sudo udevadm control --reload && sudo udevadm trigger --name-match=kvm")
        return "a kernel with KVM API version 12 (any since 2.6.22)"


def _identity() -> List[object]:
    """What the answers depend on: kernel, device node, who we are, and the probe itself."""
    try:
        node = os.stat(DEVICE)
        device = [node.st_rdev, node.st_mode, node.st_uid, node.st_gid, node.st_ctime_ns]
    except OSError:
        device = []
    return [platform.release(), platform.version(), device, os.geteuid(), sorted(os.getgroups()),
            SOURCE.stat().st_mtime_ns]


def probe_kvm() -> Probe:
    """Probe /dev/kvm, or remember the answers of the last time if nothing has changed since."""
    identity = _identity()
    try:
        kept = json.loads(CACHE.read_text())
        if kept["identity"] == identity:
            return Probe(kept["device"], kept["kinds"])
    except (OSError, ValueError, KeyError):
        pass  # not probed yet
    done = subprocess.run([str(c_tool("probe", SOURCE))], capture_output=True, text=True, check=False)
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    probe = Probe(answers.pop("device", "the probe failed"), answers)
    partial = CACHE.with_name(f"probe.{os.getpid()}")
    partial.write_text(json.dumps({"identity": identity, "device": probe.device, "kinds": probe.kinds}))
    os.replace(partial, CACHE)
    return probe
