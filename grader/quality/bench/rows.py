"""What is measured against what: the rows of `make bench`."""

from __future__ import annotations

import glob
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from grader.core.building import build_os, build_os_archive, build_vmm
from grader.core.guests import Define, assemble, write_constants
from grader.course import BUILD, LABS, ROOT
from grader.execution.c_tools import c_tool, compiler
from grader.execution.labvm.linux_guest import linux_initramfs, linux_kernel
from grader.quality.bench.cases import CYCLES, LATENCY, WALL_MS, Case, Command, Figure

FOLDER = BUILD / "bench"
HERE = ROOT / "grader/quality/bench"
LAB = max(LABS)                       # the VMM with everything in it
SECONDS = 0.05                        # about how long each run is to take

NOTHING, PUTCHAR, OUTSB, WRITE, GETCHAR, COMPUTE, LINES, TICKS, KEYS, KEYS_RUN = range(10)
QUIET = "--tick-ms=1000"              # no timer interrupts in between
LINE = 16                             # exits of a line of LINES
START = (Figure("to the guest's first output", "first_ns", "ms", 1e6),
         Figure("to the VMM's exit", "wall_ns", "ms", 1e6),
         Figure("memory", "resident_kib", "KiB"))
QEMU = "qemu-system-x86_64"
MICROVM = ("-M", "microvm,pic=off,pit=off,rtc=off", "-nodefaults", "-no-user-config", "-display", "none",
           "-m", "16", "-chardev", "stdio,id=out", "-device", "isa-debugcon,iobase=0x501,chardev=out",
           "-device", "isa-debug-exit,iobase=0xf4,iosize=1")
LINUX_MEGABYTES = 128
QEMU_STATUS = 33                      # of isa-debug-exit for a 16
QEMU_ROMS = ("/usr/share/seabios/bios-microvm.bin", "/usr/share/qemu/*boot_dma.bin",
             "/usr/share/qemu/pvh.bin")
QEMU_MODULES = "/usr/lib/*/qemu/accel-tcg-x86_64.so"    # if not built in


@dataclass(frozen=True)
class Speed:
    """What one command does in a second, to choose counts by."""

    exits: float
    rounds: float                     # of compute.inc
    processors: int = 1


@dataclass(frozen=True)
class Programs:
    """What the cases run."""

    vmm: str
    bare: str
    alternate: str
    older: tuple[Command, ...] = ()   # an older VMM to compare with, without its arguments
    scale: float = 1.0                # of all counts

    def compared(self, arguments: tuple[str, ...], *others: Command) -> tuple[Command, ...]:
        """The VMM with these arguments, the others, and the older VMM with the same arguments."""
        return (Command("VMM", (self.vmm, *arguments)), *others,
                *(Command(older.name, (*older.argv, *arguments)) for older in self.older))

    def limit(self, *arguments: str) -> Command:
        """The bare loop."""
        return Command(" ".join(["bare loop", *arguments[:-1]]), (self.bare, *arguments))


def programs(older: tuple[Command, ...] = (), scale: float = 1.0) -> Programs:
    """Builds what the cases run."""
    write_constants()
    return Programs(str(build_vmm(LAB, solution=True)), str(_compile("bare")),
                    str(c_tool("alternate", HERE / "alternate.c")), older, scale)


def _compile(name: str) -> Path:
    """A C program that is linked like the VMM, unlike a c_tool: else their memory could not be compared."""
    program = FOLDER / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler(False), "-std=c11", "-O2", "-pthread", "-o", str(program),
                    str(HERE / f"{name}.c")], check=True)
    return program


def guest(method: int, count: int = 1, **defines: Define) -> str:
    """guests/bench.asm, which does one thing `count` times."""
    text = "-".join(str(part) for pair in defines.items() for part in pair if part is not None)
    image = FOLDER / f"bench-{method}-{count}-{text}.bin"
    return str(assemble("bench", image, None, METHOD=method, COUNT=count, **defines))


def installed(*names: str) -> str | None:
    """The first of these programs that this machine has."""
    return next(filter(None, map(shutil.which, names)), None)


def native(count: int) -> str:
    """compute.inc as a program of its own."""
    program = FOLDER / f"native-{count}"
    unlinked = program.with_suffix(".o")
    for command in (["nasm", "-f", "elf64", f"-DCOUNT={count}", "-Iguests/", "-o", str(unlinked),
                     str(HERE / "native.asm")],
                    ["ld", "-o", str(program), str(unlinked)]):
        subprocess.run(command, cwd=ROOT, check=True)
    return str(program)


def calibration(using: Programs) -> list[Case]:
    """Short cases, to find out how fast this machine is."""
    return [Case("", "exits", (using.limit(guest(PUTCHAR, 1000)), using.limit(guest(NOTHING)))),
            Case("", "rounds", (using.limit(guest(COMPUTE, 100_000)), using.limit(guest(NOTHING))))]


def exit_row(using: Programs, speed: Speed) -> list[Case]:
    """The round trip of one exit."""
    def case(title: str, method: int, exits: float = 1, **defines: Define) -> Case:
        count = _count(speed.exits / exits, using)
        image = guest(method, count, **defines)
        return Case("exit", title, using.compared((QUIET, image), using.limit(image),
                                                  using.limit("get-regs", image)), count=count)
    return [case("PUTCHAR", PUTCHAR), case("GETCHAR (two exits)", GETCHAR, 2),
            case("WRITE of 1 byte", WRITE, LENGTH=1), case("WRITE of 100 bytes", WRITE, LENGTH=100),
            case("WRITE of 10,000 bytes", WRITE, 20, LENGTH=10000),
            case("rep outsb of 100 bytes", OUTSB, 100, LENGTH=100)]


def start_row(using: Programs, _speed: Speed) -> list[Case]:
    """From exec to the guest's first output, and to the end; memory."""
    image = guest(NOTHING)
    others, note = [using.limit(image)], []
    qemu = installed(QEMU)
    if qemu:
        rom = guest(NOTHING, LENGTH=1, QEMU=None)
        others.append(Command("QEMU microvm", (qemu, *MICROVM, "-accel", "kvm", "-bios", rom), QEMU_STATUS))
    else:
        note.append(f"{QEMU} is not installed")
    note.append("kvmtool needs a Unix socket, which the runner of the kit's programs does not allow"
                if installed("lkvm", "kvmtool") else "kvmtool is not installed")
    return [Case("start", "exec", using.compared((QUIET, image), *others), START, note="; ".join(note))]


def interrupt_row(using: Programs, _speed: Speed) -> list[Case]:
    """From a key to the first thing that its handler does; and a tick each millisecond."""
    keys = max(2, int(200 * using.scale))
    ticks = max(2, int(200 * using.scale))

    def case(title: str, method: int, count: int, option: str, figure: Figure, answers: int) -> Case:
        image, with_pic = guest(method, count), guest(method, count, PIC=None)
        return Case("interrupt", title,
                    using.compared((option, image), using.limit("irqchip", with_pic)), (figure,),
                    keys=answers)
    return [case("key to its handler, in a halted guest", KEYS, 1, QUIET, LATENCY, keys),
            case("key to its handler, in a running guest", KEYS_RUN, 1, QUIET, LATENCY, keys),
            case(f"{ticks} ticks of 1 ms, none lost", TICKS, ticks, "--tick-ms=1", WALL_MS, 0)]


def vcpus_row(using: Programs, speed: Speed) -> list[Case]:
    """Four vCPUs at once against one."""
    def case(title: str, image: str) -> Case:
        four, one = (QUIET, *[image] * 4), Command("one vCPU", (using.vmm, QUIET, image))
        return Case("vcpus", f"four vCPUs {title}", using.compared(four, one), (WALL_MS,),
                    ideal=max(1.0, 4 / speed.processors))
    return [case("printing lines", guest(LINES, _count(speed.exits / LINE, using))),
            case("computing", guest(COMPUTE, _count(speed.rounds, using)))]


def compute_row(using: Programs, speed: Speed) -> list[Case]:
    """A guest that computes, against the same source elsewhere."""
    count = _count(speed.rounds, using)
    image, note = guest(COMPUTE, count), ""
    others = [using.limit(image), Command("native code", (native(count),))]
    qemu = installed(QEMU)
    if qemu:
        rom = guest(COMPUTE, count, LENGTH=1, QEMU=None)
        others.append(Command("QEMU TCG", (qemu, *MICROVM, "-accel", "tcg", "-bios", rom), QEMU_STATUS))
    else:
        note = f"{QEMU} is not installed"
    return [Case("compute", "a round of xorshift", using.compared((QUIET, image), *others), (CYCLES,), count,
                 files=tuple(glob.glob(QEMU_MODULES)), note=note)]


def os_row(using: Programs, _speed: Speed) -> list[Case]:
    """The 1K OS against Linux, where the guests run."""
    scale = str(_compile("linux"))
    counts = dict(re.findall(r"#define (\w+)_COUNT +(\d+)", (HERE / "scale.h").read_text()))
    kernel, archive = map(str, build_os())
    measuring = str(build_os_archive(HERE / "os", FOLDER / "os"))

    def case(title: str, name: str, key: str) -> Case:
        commands = using.compared((f"--initrd={measuring}", kernel), Command("Linux", (scale,)))
        return Case("os", title, commands, (CYCLES,), int(counts[name]), until=">", send=key)
    return [Case("os", "exec to the shell's prompt", using.compared((f"--initrd={archive}", kernel)),
                 (Figure("", "first_ns", "ms", 1e6),), until="1k> ", send="0\n"),
            case("system call", "SYSTEM_CALL", "s"),
            case("switch to another process; Linux: by a pipe", "SWITCH", "w"),
            case("start and end of a program", "PROGRAM", "p")]


def linux_row(using: Programs, _speed: Speed) -> list[Case]:
    """A boot of Debian's kernel to its shell, against QEMU's smallest machine with the same two files."""
    kernel, initramfs = str(linux_kernel()), str(linux_initramfs())
    others, note = [], f"{QEMU} is not installed"
    qemu = installed(QEMU)
    if qemu:
        note = ""
        others.append(Command("QEMU microvm", (
            qemu, "-M", "microvm,rtc=on", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-accel", "kvm", "-m", str(LINUX_MEGABYTES), "-serial", "stdio", "-kernel", kernel,
            "-initrd", initramfs, "-append", "console=ttyS0 quiet reboot=t panic=-1")))
    return [Case("linux", "exec to the shell's prompt",
                 using.compared((f"--mem={LINUX_MEGABYTES}M", f"--initrd={initramfs}", kernel), *others),
                 (Figure("", "first_ns", "ms", 1e6),), until="/ # ", send="reboot\n", rounds=3,
                 files=tuple(path for pattern in QEMU_ROMS for path in glob.glob(pattern)), note=note)]


ROWS = {"exit": exit_row, "start": start_row, "interrupt": interrupt_row, "vcpus": vcpus_row,
        "compute": compute_row, "os": os_row, "linux": linux_row}


def _count(per_second: float, using: Programs) -> int:
    """How many things to do in a run."""
    return max(1, int(per_second * SECONDS * using.scale))
