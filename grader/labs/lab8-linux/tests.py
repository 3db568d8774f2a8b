"""Lab 8, Linux: a bus, the devices of a small PC, and an unmodified kernel on it."""

from __future__ import annotations

import struct

from grader.core.expectations import Condition, Mismatch
from grader.core.framework import Demonstration, Lab
from grader.core.outcome import STATUS_CRASHED, STATUS_GUEST_FILE, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.labvm.linux_guest import linux_initramfs, linux_kernel
from grader.execution.runs import Limits, Step

lab = Lab(8, "Linux", needs=("real", "paging32", "protected", "longmode"))

# A boot takes a minute in the lab VM of a loaded machine, and most of it prints nothing.
BOOT = Limits(wall=300, no_output=200, deadlock=0, spin=250)
PROMPT = b"/ # "
HEADER = 0x1f1                  # of a bzImage


def _linux(plan: Plan, *steps: Step) -> Planned:
    """The kit's Linux guest, and what is typed."""
    return plan.boot(linux_kernel(), args=[f"--initrd={linux_initramfs()}"], steps=steps, limits=BOOT)


def _shows(text: str) -> Condition:
    """Standard output has this text."""
    def condition(outcome: Outcome) -> Mismatch | None:
        return None if text in outcome.stdout else Mismatch("it is not in the output", text, outcome.stdout)
    return condition


@lab.test("8.4", "rejects files that are not a complete 64-bit bzImage", points=30,
          hint="Which fields of the header say that a kernel can be started here? Compare section 8.4 of the "
               "handout; every size counts from the start of the file.")
def rejects(plan: Plan) -> None:
    kernel = linux_kernel().read_bytes()[:0x1000]
    changes = {"no-flag": (0x1fe, "H", 0), "old": (0x206, "H", 0x20b), "32-bit": (0x236, "H", 0),
               "truncated": (0x201, "B", kernel[0x201])}
    for name, (offset, size, value) in changes.items():
        file = bytearray(kernel)
        struct.pack_into(f"<{size}", file, offset, value)
        run = plan.boot(plan.file(f"{name}.bin", bytes(file)))
        run.exits(STATUS_GUEST_FILE)
        run.says(rf"{name}\.bin", what="the name of the file that can't be loaded")


@lab.test("8.6", "boots Debian's kernel to a shell, and ends with the shell's status", points=40,
          hint="How far does it come? With ARGS=--cmdline=\"console=ttyS0\" Linux prints all of its log.")
def shell(plan: Plan) -> None:
    first, second = plan.values.randint(1000, 9999), plan.values.randint(1000, 9999)
    status = plan.values.randint(1, 60)
    run = _linux(plan, Step(after=PROMPT, send=f"echo =$(({first} * {second}))=\n".encode()),
                 Step(after=b"=\r\n", send=f"exit {status}\n".encode()))
    run.must(_shows(f"={first * second}="))
    run.exits(status)


@lab.test("8.6", "reports a panic with its last lines", points=30,
          hint="How does a panic differ from a reboot, if both reset the PC? In what Linux printed before.")
def panic(plan: Plan) -> None:
    run = _linux(plan, Step(after=PROMPT, send=b"echo c > /proc/sysrq-trigger\n"))
    run.exits(STATUS_CRASHED)
    run.says("Kernel panic - not syncing: sysrq triggered crash", what="the line of the panic")


lab.demonstrations = [
    Demonstration("Linux, which powers off", ("linux",), stdin=b"uname -a\npoweroff\n"),
]
