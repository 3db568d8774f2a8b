"""`make debug`: runs guests under gdb, which debugs the guests and not the VMM."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from grader.commands import play
from grader.commands.guest_command import carry_out, parser_of
from grader.commands.debug.symbols import link_image
from grader.course import BUILD, ROOT
from grader.execution.tool import run_command

FOLDER = BUILD / "debug"
WINDOW_BYTES = 0x40000  # as in common/contract/abi.h
LOOK_SECONDS = 0.02     # between two looks whether the VMM waits for gdb
END_SECONDS = 2.0       # for a VMM to end after gdb has killed its guests

INIT = """# What gdb needs to know about these guests; make debug has written it.
set debuginfod enabled off
set osabi none
set architecture {architecture}
set disassembly-flavor intel
set remotetimeout {patience}
source {python}
{symbols}
"""
# Until the VMM in the lab VM has been started, it does not answer. gdb must not repeat its packet then: both
# would be answered. If the VMM ends, the connection does.
PATIENCE = 3600
CONNECT = "target remote {socket}\n"


def elf_bits(file: Path) -> int:
    """32 or 64 for an ELF file (elf(5)), 0 for a flat image."""
    with open(file, "rb") as image:
        start = image.read(5)
    if len(start) < 5 or start[:4] != b"\x7fELF":
        return 0
    return 64 if start[4] == 2 else 32


def architecture_of(file: Path, options: list[str]) -> str:
    """gdb's name for the mode in which the VMM starts this guest."""
    bits = elf_bits(file) or (32 if "--mode=paging" in options else 16)
    return {16: "i8086", 32: "i386", 64: "i386:x86-64"}[bits]


def symbol_file(file: Path) -> Path | None:
    """The ELF file with the symbols of a guest; None, with a message: there is none."""
    bits = elf_bits(file)
    elf = link_image(file, bits or 32, FOLDER) or (file if bits else None)
    if not elf:
        play.say(f"{file.name} has no symbols: {file.stem}.asm beside it is missing, or not its source.")
    return elf


def symbol_commands(elfs: list[Path | None], real: bool) -> list[str]:
    """gdb's commands that load the symbols of the guests."""
    commands: dict[tuple[str, int], str] = {}
    for number, elf in enumerate(elfs):
        if not elf:
            continue
        name, offset = os.path.relpath(elf, ROOT), number * WINDOW_BYTES if real else 0
        command = f"add-symbol-file {name} -o {offset:#x}" if commands or offset else f"file {name}"
        commands.setdefault((name, offset), command)
    return list(commands.values())


def write_init(files: list[Path], options: list[str], socket: str) -> Path:
    """The file with gdb's first commands; connect.gdb beside it also connects."""
    architecture = architecture_of(files[0], options)
    FOLDER.mkdir(parents=True, exist_ok=True)
    elfs = [symbol_file(file) for file in files]
    init = FOLDER / "init.gdb"
    init.write_text(INIT.format(
        architecture=architecture, patience=PATIENCE,
        python=os.path.relpath(Path(__file__).with_name("in_gdb.py"), ROOT),
        symbols="\n".join(symbol_commands(elfs, architecture == "i8086"))))
    connect = FOLDER / "connect.gdb"
    connect.write_text(f"source {os.path.relpath(init, ROOT)}\n{CONNECT.format(socket=socket)}")
    description = launch(elfs[0] or files[0], architecture, init, socket)
    (FOLDER / "launch.json").write_text(json.dumps(description, indent=4) + "\n")
    return connect


def launch(program: Path, architecture: str, init: Path, socket: str) -> dict[str, object]:
    """A launch file for VS Code's C/C++ extension, which connects to guests that wait."""
    return {"version": "0.2.0", "configurations": [{
        "name": "Debug the guest",
        "type": "cppdbg",
        "request": "launch",
        "program": str(program),
        "cwd": str(ROOT),
        "MIMode": "gdb",
        "targetArchitecture": "x64" if architecture == "i386:x86-64" else "x86",
        "setupCommands": [{"text": f"source {init}"}],
        "miDebuggerServerAddress": str(ROOT / socket),
        "stopAtConnect": True,
    }]}


class Vmm:
    """The VMM, in a session of its own: keys like Ctrl-C are for gdb."""

    def __init__(self, command: list[str], socket: Path) -> None:
        socket.unlink(missing_ok=True)
        self._socket = socket
        # Its messages come through us: it must not take gdb's terminal for its own.
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], cwd=ROOT,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, start_new_session=True)
        self._copier = threading.Thread(target=self._copy)
        self._copier.start()

    def _copy(self) -> None:
        assert self._process.stdout
        output = self._process.stdout.fileno()
        for data in iter(lambda: os.read(output, 1 << 16), b""):
            os.write(1, data)

    def wait_for_socket(self) -> bool:
        """Waits until gdb can connect; False: the VMM has ended instead."""
        while not self._socket.exists():
            if self._process.poll() is not None:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def wait(self, patience: float, words: str) -> int:
        """Waits for the end; after some seconds says `words`. Ctrl-C ends it. Returns the status."""
        try:
            try:
                return self._process.wait(patience)
            except subprocess.TimeoutExpired:
                play.say(words)
            return self._process.wait()
        except KeyboardInterrupt:
            self._process.terminate()
            return self._process.wait()

    def close(self) -> None:
        """Ends it if it still runs."""
        self._process.kill()
        self._process.wait()
        self._copier.join()
        self._socket.unlink(missing_ok=True)


def take_terminal() -> None:
    """In gdb's process before it is gdb: the terminal's keys, like Ctrl-C, are for its group alone."""
    os.setpgrp()
    if os.isatty(0):
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def run_gdb(init: Path) -> int:
    """Runs gdb on our terminal; its exit status. Ctrl-Z stops all of us, as any job of a shell."""
    command = ["gdb", "-q", "-x", os.path.relpath(init, ROOT)]
    gdb = subprocess.Popen(command, cwd=ROOT, preexec_fn=take_terminal)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    while True:
        _, status = os.waitpid(gdb.pid, os.WUNTRACED)
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpgrp())
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        os.killpg(0, signal.SIGTSTP)
        if os.isatty(0):
            os.tcsetpgrp(0, gdb.pid)
        os.killpg(gdb.pid, signal.SIGCONT)


def debug(arguments: argparse.Namespace) -> int:
    """Carries out the command; returns the exit status."""
    vmm = play.build(arguments.lab, arguments, arguments.solution)
    given, files = play.guests_of(arguments, "debug")
    backend = play.choose_backend(arguments.backend, arguments.lab)
    socket = FOLDER / "socket"
    name = os.path.relpath(socket, ROOT)
    init = write_init(files, arguments.options, name)
    guests = Vmm(backend.debug_command([str(vmm), *arguments.options, *given], name), socket)
    try:
        started = guests.wait_for_socket()
        if not started or arguments.wait:
            words = f"The guests wait for a debugger, like: gdb -x {os.path.relpath(init, ROOT)}"
            return guests.wait(0, words)
        status = run_gdb(init)
        guests.wait(END_SECONDS, "The guests run on without gdb. Ctrl-C ends them.")
        return status
    finally:
        guests.close()


def main() -> int:
    parser = parser_of("debug", __doc__)
    parser.add_argument("--wait", action="store_true", help="start no gdb, but wait for one")
    return carry_out(parser, debug)


if __name__ == "__main__":
    run_command(main)
