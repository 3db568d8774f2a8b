"""What this machine's /dev/kvm supports: the results of probe.c, cached until something changes."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from grader.course import ROOT
from grader.execution import place
from grader.execution.c_tools import BUILD, c_tool

SOURCE = ROOT / "grader/execution/probe.c"
CACHE = BUILD / "probe.json"
DEVICE = "/dev/kvm"

# The kinds of guest that a lab may need: the probe's name, and the name in messages.
KINDS: dict[str, str] = {
    "real": "real mode",
    "interrupts": "real-mode interrupts",
    "protected": "protected mode and its interrupts",
    "paging32": "32-bit paging",
    "longmode": "long mode",
}


_MODULES = ("load kvm_intel or kvm_amd (sudo modprobe), with virtualization (VT-x, AMD-V) enabled in the "
            "firmware")
_DENIED = ("sudo usermod -aG kvm $USER and log in again; or, for every user: "
           "echo 'KERNEL==\"kvm\", MODE=\"0666\"' | sudo tee /etc/udev/rules.d/99-kvm.rules "
           "&& sudo udevadm control --reload && sudo udevadm trigger --name-match=kvm")

# The reason and the fix, by the failed call and its errno.
_DEVICE_FAULTS: dict[str, tuple[str, str]] = {
    f"open {errno.ENOENT}": ("there is no /dev/kvm", f"{_MODULES}; or give the container --device /dev/kvm"),
    f"open {errno.EACCES}": ("no permission to open /dev/kvm", _DENIED),
    f"open {errno.EPERM}": ("this container has no permission to open /dev/kvm",
                            "give the container --device /dev/kvm: the node alone is not enough"),
    f"open {errno.EISDIR}": ("/dev/kvm is a folder",
                             "sudo rmdir /dev/kvm (a container that is started with -v /dev/kvm:/dev/kvm on "
                             "a host without KVM gets one: use --device /dev/kvm)"),
    f"open {errno.ENXIO}": ("/dev/kvm has no driver", _MODULES),
    f"open {errno.ENODEV}": ("/dev/kvm has no driver", _MODULES),
    f"ioctl {errno.ENOTTY}": ("/dev/kvm is not the KVM device but a file, a pipe or another device",
                              "sudo rm /dev/kvm, and load kvm_intel or kvm_amd again"),
}


@dataclass(frozen=True)
class Probe:
    """The probe's results: "ok", or what failed."""

    device: str
    kinds: dict[str, str]

    def reason_against(self, needs: Sequence[str]) -> str:
        """Why guests of the kinds `needs` can't run here; empty if they can."""
        if self.device != "ok":
            return self._device_fault()[0]
        failing = [KINDS[kind] for kind in needs if self.kinds.get(kind) != "ok"]
        return f"this machine's /dev/kvm does not run {' and '.join(failing)}" if failing else ""

    def fix(self) -> str:
        """How to fix the device; empty if nothing is needed."""
        if self.device == "ok":
            return _BUSY if any(os.strerror(errno.EBUSY) in answer for answer in self.kinds.values()) else ""
        return self._device_fault()[1]

    def _device_fault(self) -> tuple[str, str]:
        call, _, number = self.device.partition(" ")
        if call in ("open", "ioctl"):
            text = f"/dev/kvm is not usable ({call}: {os.strerror(int(number))})"
            return _DEVICE_FAULTS.get(self.device, (text, _MODULES))
        if call == "version":
            return f"/dev/kvm has API version {number}", "a kernel with KVM API version 12 (any since 2.6.22)"
        return f"/dev/kvm could not be probed ({self.device})", "see the other lines of `make doctor`"


_BUSY = "another hypervisor (VirtualBox, VMware, Xen) is using the processor's virtualization: stop it"


def _identity() -> list[object]:
    """What the results depend on: the kernel, the device node, the user, and the probe itself."""
    try:
        node = os.stat(DEVICE)
        device = [node.st_rdev, node.st_mode, node.st_uid, node.st_gid, node.st_ctime_ns]
    except OSError:
        device = []
    return [platform.release(), platform.version(), device, os.geteuid(), sorted(os.getgroups()),
            SOURCE.stat().st_mtime_ns]


def probe_kvm(again: bool = False) -> Probe:
    """Probe /dev/kvm, or return the cached results if nothing has changed; `again` always probes."""
    identity = _identity()
    if not again:
        try:
            kept = json.loads(CACHE.read_text())
            if kept["identity"] == identity:
                return Probe(kept["device"], kept["kinds"])
        except (OSError, ValueError, KeyError):
            pass  # not probed yet
    try:
        done = subprocess.run([str(c_tool("probe", SOURCE)), DEVICE], capture_output=True, text=True,
                              check=False)
    except OSError as error:
        fault = place.cause(error)
        return Probe(f"the probe can't be started: {fault.reason if fault else error.strerror}", {})
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    probe = Probe(answers.pop("device", "the probe failed"), answers)
    partial = CACHE.with_name(f"probe.{os.getpid()}")
    partial.write_text(json.dumps({"identity": identity, "device": probe.device, "kinds": probe.kinds}))
    os.replace(partial, CACHE)
    return probe
