"""Exits of the reference guests. Those without a device's interrupts are exact: the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Union

from grader.core.building import build_guests, build_os
from grader.execution.labvm.linux_guest import linux_initramfs, linux_kernel
from grader.execution.runs import Result, Run
from grader.quality.bench.cases import LIMITS

EXACT = {"minimal": 1, "hello": 23, "counter": 21}
OS = "1K OS, from the start to the prompt and out"
LINUX = "Linux, from the start to the prompt and out"


def runs(vmm: str) -> list[Run]:
    """The guests with --stats."""
    images = build_guests()
    kernel, archive = build_os()
    return [*(Run((vmm, "--stats=json", "--tick-ms=1000", str(images / f"{name}.bin")), limits=LIMITS)
              for name in EXACT),
            Run((vmm, "--stats=json", f"--initrd={archive}", str(kernel)), stdin=b"0\n", limits=LIMITS),
            Run((vmm, "--stats=json", f"--initrd={linux_initramfs()}", str(linux_kernel())),
                stdin=b"exit 0\n", limits=LIMITS)]


def exits(result: Result) -> Union[int, None]:
    """How many exits the guest had; None: the run failed."""
    for line in result.stderr.decode(errors="replace").splitlines():
        if line.startswith('{"vcpus"'):
            return int(json.loads(line)["vcpus"][0]["exits"])
    return None


def counted(results: Sequence[Result]) -> dict[str, Union[int, None]]:
    """The exits of each guest."""
    return dict(zip([*EXACT, OS, LINUX], map(exits, results)))
