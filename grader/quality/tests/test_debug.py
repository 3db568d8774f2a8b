"""`make debug`: gdb itself, on guests of each kind, on each back end that runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore

from grader.commands.debug import __main__ as command
from grader.core.building import build_guests, build_vmm, clean_environment
from grader.core.guests import write_constants
from grader.course import BUILD, LABS, ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade

FOLDER = BUILD / "tests/debug"
PROMPT = "(gdb) "
PATIENCE = 300.0  # seconds; a loaded machine takes long

# Every kind of instruction that a step has to treat in its own way.
STEPS = """%include "abi.inc"
bits 16
org 0
    mov word [0x8000 + 4 * 0x30], handle
    mov word [0x8000 + 4 * 0x30 + 2], cs
    mov eax, cs
    shl eax, 4
    add eax, 0x8000
    mov [table + 2], eax
    lidt [table]
flags:
    pushf
    pop bx
call_it:
    int 0x30
after:
    mov dx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
read_answer:
    in eax, dx
string:
    mov si, text
    mov cx, 3
    mov dx, STRING_PORT
    rep outsb
finish:
    mov bl, 7
    mov eax, HC_EXIT
    mov dx, HYPERCALL_PORT
    out dx, eax
handle:
    nop
    iret
table:
    dw 0x3ff
    dd 0
text: db "abc"
"""


# Counts timer interrupts, and does nothing else.
TICKER = """%include "abi.inc"
bits 16
org 0
    mov ax, on_tick
    mov bx, ignore
    call install_vectors
    sti
forever:
    inc esi
    jmp forever
on_tick:
    inc dword [ticks]
    iret
%include "console.inc"
%include "vectors.inc"
ticks: dd 0
"""


def assemble(name: str, source: str) -> Path:
    """The image of a guest, with its source beside it."""
    write_constants()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.asm").write_text(source)
    subprocess.run(["nasm", "-f", "bin", f"-I{BUILD}/", "-Iguests/", str(FOLDER / f"{name}.asm"), "-o",
                    str(FOLDER / f"{name}.bin")], check=True, cwd=ROOT)
    return FOLDER / f"{name}.bin"


def back_ends(kind: str) -> Iterator[str]:
    """Those that run this kind of guest."""
    for name in ("kvm", "vm"):
        try:
            yield pick_backend(name, needs=(kind,)).name
        except CannotGrade:
            continue


class Debugged(unittest.TestCase):
    """`make debug` on a terminal."""

    gdb: pexpect.spawn
    printed: io.StringIO

    def setUp(self) -> None:
        if not shutil.which("gdb"):
            self.skipTest("gdb is not installed")

    def start(self, lab: int, backend: str, *words: str) -> None:
        """Starts it, up to gdb's first prompt."""
        arguments = ["debug", f"LAB={lab}", f"BACKEND={backend}", "SOLUTION=1", *words]
        self.gdb = pexpect.spawn("make", arguments, cwd=str(ROOT), encoding="utf-8", timeout=PATIENCE,
                                 dimensions=(500, 200), env={**clean_environment(), "TERM": "dumb"})
        self.addCleanup(self.gdb.close, True)
        self.gdb.logfile_read = self.printed = io.StringIO()
        self.gdb.delaybeforesend = None
        self.prompt()
        self.do("set confirm off")

    def prompt(self) -> str:
        """What gdb prints up to its next prompt."""
        self.gdb.expect_exact(PROMPT)
        return str(self.gdb.before).replace("\r", "")

    def do(self, line: str) -> str:
        """A command's output."""
        self.gdb.sendline(line)
        return self.prompt()

    def interrupt(self) -> None:
        """Continues, and presses Ctrl-C; gdb itself may get it before the guests run."""
        while True:
            self.gdb.sendline("continue")
            self.gdb.expect_exact("Continuing.")
            self.gdb.sendintr()
            if "SIGINT" in self.prompt():
                return

    def value(self, expression: str) -> int:
        """The value of an expression."""
        found = re.search(r"\$\d+ = (0x[0-9a-f]+)", self.do(f"print/x {expression}"))
        assert found, self.gdb.before
        return int(found[1], 16)

    def all(self) -> str:
        """All that was printed."""
        return self.printed.getvalue().replace("\r", "")

    def end(self) -> None:
        """Waits for the end of the command; nothing of it is left."""
        self.gdb.expect(pexpect.EOF)
        self.gdb.close()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.assertNotIn(str(command.FOLDER.relative_to(ROOT) / "socket").encode(), path.read_bytes())
            except OSError:
                continue


class RealMode(Debugged):
    def test_source_breakpoints_and_calls(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=hello")
                self.assertEqual(self.value("$eip"), 0)
                self.assertIn("mov    si,", self.do("x/i $pc"))
                self.assertIn("call print_string", self.do("next"))
                self.do("break print_char")
                self.assertIn("Breakpoint 1, print_char", self.do("continue"))
                self.assertRegex(self.do("backtrace"),
                                 r"(?s)#0 .*print_char.*#1 .*print_string.*#2 .*image_start")
                self.assertIn("#1", self.do("up"))
                self.do("delete")
                self.do("frame 0")
                self.assertRegex(self.do("finish"), r"(?s)H.*print_string")
                self.do("tbreak exit")
                self.assertIn("ello from the guest!", self.do("continue"))
                self.assertIn("exited normally", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_next_steps_over_a_call(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=hello")
                self.do("next")
                self.assertRegex(self.do("next"), r"(?s)Hello from the guest!.*mov bl, STATUS")
                self.gdb.sendline("quit")
                self.end()

    def test_steps_of_each_kind(self) -> None:
        image = assemble("steps", STEPS)
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, f"GUESTS={image}")
                self.do("tbreak flags")
                self.do("continue")
                self.do("stepi")
                self.assertEqual(self.value("*(unsigned short *)$esp") & 0x100, 0, "TF was pushed")
                self.do("stepi")
                self.assertIn("call_it", self.do("info symbol $pc"))
                self.assertIn("handle", self.do("stepi"))
                self.assertEqual(self.value("*(unsigned short *)($esp + 4)") & 0x100, 0, "TF was pushed")
                self.do("stepi")
                self.do("stepi")
                self.assertIn("after", self.do("info symbol $pc"))
                self.do("tbreak read_answer")
                self.do("continue")
                self.do("stepi")
                self.assertIn("string", self.do("info symbol $pc"))
                self.assertEqual(self.value("$eax"), 0xffffffff)  # GETCHAR_NOTHING
                self.assertRegex(self.do("stepi 3"), "rep outsb")
                self.assertIn("a", self.do("stepi"))
                self.assertIn("rep outs", self.do("x/i $pc"))
                self.assertEqual(self.value("$ecx"), 2)
                self.do("tbreak finish")
                self.assertIn("bc", self.do("continue"))
                self.do("set $ebx = 0x123")
                self.do("set $pc = $pc + 2")  # over `mov bl, 7`
                self.do("set *(char *)0x9000 = 0x55")
                self.assertRegex(self.do("monitor memory 0x9000"), "00009000: 55")
                self.assertIn("exited with code 043", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_watchpoint_and_interrupts(self) -> None:
        image = assemble("ticker", TICKER)
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(4, backend, f"GUESTS={image}")
                self.do("watch *(int *)&ticks")
                text = self.do("continue")
                self.assertRegex(text, r"(?s)Old value = 0.*New value = 1")
                self.assertIn("iret", self.do("x/i $pc"))
                self.do("delete")
                # Ticks are pending by now, but a step is not the place for an interrupt.
                self.assertIn("forever", self.do("stepi"))
                self.assertNotIn("on_tick", "".join(self.do("stepi") for _ in range(8)))
                self.do("break on_tick")
                self.assertIn("Breakpoint 2, on_tick", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_interrupt_detach_and_kill(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(1, backend, "GUESTS=endless")
                self.do("set $pc = 6")  # lab 1 has no hypercalls: the guest would crash at one
                self.interrupt()
                self.assertEqual(self.value("$eip"), 6)
                self.assertIn("killed", self.do("kill"))
                self.gdb.sendline("quit")
                self.end()
                self.start(2, backend, "GUESTS=hello")
                self.do("break print_char")
                self.do("continue")
                self.do("stepi")
                self.assertIn("detached", self.do("detach"))
                self.gdb.sendline("quit")
                self.end()
                # It is printed while gdb prints.
                self.assertRegex(self.all(), "(?s)detach.*" + ".*".join("o from the guest!"))

    def test_input(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=echo")
                self.do("monitor type hello there")
                self.do("monitor end")
                self.assertRegex(self.do("continue"), r"(?s)hello there\n.*exited normally")
                self.gdb.sendline("quit")
                self.end()

    def test_crash(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(1, backend, "GUESTS=triple-fault")
                self.assertIn("SIGSEGV", self.do("continue"))
                self.assertEqual(self.value("$ebx"), 0)
                self.assertIn("exited with code 0106", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()
                self.assertIn("crashed: shutdown", self.all())

    def test_gdb_is_killed(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=hello")
                gdb = subprocess.run(["pgrep", "-f", "gdb -q -x build/debug/connect.gdb"], text=True,
                                     stdout=subprocess.PIPE, check=True).stdout.split()
                os.kill(int(gdb[-1]), 9)
                self.end()
                self.assertIn("gdb has left", self.all())


class Threads(Debugged):
    def test_vcpus_are_threads(self) -> None:
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(3, backend, "GUESTS=endless counter")
                self.assertRegex(self.do("info threads"), r"(?s)1 .*endless.bin.*2 .*counter.bin")
                self.do("break counter.asm:count")
                self.assertIn("Thread 2 hit Breakpoint 1", self.do("continue"))
                self.assertEqual(self.value("$eip") & ~0xfff, 0x40000)
                self.do("thread 1")
                self.assertLess(self.value("$eip"), 0x1000)
                self.do("thread 2")
                self.do("set scheduler-locking on")
                self.assertIn("print_number", self.do("next"))
                self.assertRegex(self.do("next"), r"vcpu1: 0|print_newline")
                self.do("delete")
                self.gdb.sendline("continue")  # vCPU 2 alone
                self.gdb.expect_exact("vcpu1: 9")
                self.assertIn("No unwaited-for children left", self.prompt())
                self.do("thread 1")
                self.do("set scheduler-locking off")
                self.do("tbreak *6")
                self.assertIn("Temporary breakpoint", self.do("continue"))
                self.assertIn("looping", self.all())
                self.interrupt()
                self.assertEqual(self.value("$eip"), 6)
                self.gdb.sendline("quit")
                self.end()


class Paging(Debugged):
    def test_virtual_addresses(self) -> None:
        for backend in back_ends("paging32"):
            with self.subTest(backend):
                self.start(5, backend, "GUESTS=pages", "ARGS=--mode=paging --map=0x200000:0x201000:w "
                           "--map=0x201000:0x200000:w")
                self.assertEqual(self.value("$eip"), 0x80100000)
                self.do("break next")
                self.assertIn("Breakpoint 1, next", self.do("continue"))
                self.assertEqual(self.value("*(int *)0x80200000"), 1)
                self.assertEqual(self.value("*(int *)0x201000"), 1)
                self.assertIn("physical address 0x201000", self.do("monitor walk 0x200000"))
                self.assertIn("Cannot access memory", self.do("print *(int *)0x70000000"))
                self.do("delete")
                self.do("awatch *(int *)0x200000")  # another address of the watched memory is used
                self.assertRegex(self.do("continue"), r"(?s)Value = 2")
                self.assertIn("exited normally", self.do("delete") + self.do("continue"))
                self.gdb.sendline("quit")
                self.end()


class System(Debugged):
    """The 1K OS."""

    def test_kernel_and_program(self) -> None:
        for backend in back_ends("paging32"):
            with self.subTest(backend):
                self.start(6, backend)
                self.do("break process_create")
                self.assertIn('"shell"', self.do("continue"))
                self.assertRegex(self.do("backtrace"), r"(?s)process_create.*kernel_main.*kernel_entry")
                self.do("delete")
                self.do("watch current")
                self.assertRegex(self.do("continue"), r"(?s)New value = .*processes\+")
                self.assertIn("context_switch", self.do("backtrace"))
                self.do("delete")
                self.assertIn("start ()", self.do("program shell"))
                self.assertEqual(self.value("$cs"), 0x1b)
                self.do("break main")
                self.assertIn("Welcome", self.do("continue"))
                self.assertEqual(self.value("$cs"), 0x1b)
                self.into_a_system_call("shell")
                self.do("delete")
                self.gdb.sendline("continue")
                self.gdb.expect_exact("1k> ")
                self.gdb.sendintr()
                self.assertIn("SIGINT", self.prompt())
                self.do("monitor type 2")
                self.assertIn("start ()", self.do("program counter"))
                self.assertIn('"counter', self.do("print current->name"))
                self.do("monitor type exit")
                self.assertIn("exited normally", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def into_a_system_call(self, program: str) -> None:
        """Steps into int 0x80 and out of it by iret."""
        listing = subprocess.run(["objdump", "-d", str(BUILD / f"os-1k/user/{program}.elf")], text=True,
                                 stdout=subprocess.PIPE, check=True).stdout
        for address in re.findall(r"(\w+):\tcd 80", listing):
            self.do(f"tbreak *0x{address}")
        self.do("continue")
        call = self.value("$pc")
        self.assertIn("trap_entries", self.do("stepi"))
        self.assertEqual(self.value("$cs"), 8)
        self.assertEqual(self.value("*(int *)$esp"), call + 2)
        self.assertEqual(self.value("((int *)$esp)[2]") & 0x100, 0, "TF was pushed")
        self.do("tbreak trap_return")
        self.do("continue")
        self.do("stepi 6")
        self.assertIn("iret", self.do("x/i $pc"))
        self.do("stepi")
        self.assertEqual(self.value("$pc"), call + 2)
        self.assertEqual(self.value("$cs"), 0x1b)


class Unfinished(Debugged):
    def test_a_skeleton_says_what_is_missing(self) -> None:
        target = LABS[2].learner_files()[0]
        if "TODO" not in target.read_text():
            self.skipTest(f"{target.name} is not a skeleton any more")
        for backend in back_ends("real"):
            with self.subTest(backend):
                self.start(2, backend, "SOLUTION=", "GUESTS=hello")
                self.assertIn("Breakpoint 1, print_char", self.do("break print_char") + self.do("continue"))
                self.assertIn("exited with code 0115", self.do("delete") + self.do("continue"))
                self.gdb.sendline("quit")
                self.end()
                self.assertIn("exercise 2.1 is not written yet", self.all())


class Editor(unittest.TestCase):
    def test_an_editor_connects_to_guests_that_wait(self) -> None:
        if not shutil.which("gdb"):
            self.skipTest("gdb is not installed")
        for backend in back_ends("real"):
            with self.subTest(backend), subprocess.Popen(
                    ["make", "debug", "LAB=2", f"BACKEND={backend}", "SOLUTION=1", "GUESTS=hello", "WAIT=1"],
                    cwd=ROOT, env=clean_environment(), text=True, stdout=subprocess.PIPE) as waiting:
                assert waiting.stdout
                while "The guests wait for a debugger" not in waiting.stdout.readline():
                    self.assertIsNone(waiting.poll())
                launch = json.loads((command.FOLDER / "launch.json").read_text())["configurations"][0]
                lines = [f'-interpreter-exec console "{launch["setupCommands"][0]["text"]}"',
                         f'-target-select remote {launch["miDebuggerServerAddress"]}', "-gdb-exit"]
                gdb = subprocess.run(["gdb", "-q", "-i=mi", launch["program"]], input="\n".join(lines) + "\n",
                                     cwd=launch["cwd"], text=True, stdout=subprocess.PIPE)
                self.assertRegex(gdb.stdout, r'(?s)\*stopped,frame=.*line="13".*\^connected')
                waiting.communicate()


class Refused(unittest.TestCase):
    def test_a_guest_of_64_bits(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "wide.elf").write_bytes(b"\x7fELF\x02\x01\x01")
        words = ["make", "debug", "LAB=2", "SOLUTION=1", f"GUESTS={FOLDER / 'wide.elf'}"]
        done = subprocess.run(words, cwd=ROOT, env=clean_environment(), text=True, stdout=subprocess.PIPE)
        self.assertIn("make debug knows guests of 16 and 32 bits, and wide.elf has 64.", done.stdout)


class Packets(unittest.TestCase):
    """Even a program that is not gdb may connect."""

    SENT = ("g", "p8", "P8=", "m0,ffffffffffffffff", "M0,4:00", "Z2,0,7fffffffffffffff", "Z1,,", "z9,0,0",
            "X", "Hg", "T9", "qXfer:features:read:target.xml:fffff,fff", "qThreadExtraInfo,7", "qRcmd,",
            "qRcmd,7", "vCont;x", "vCont;s:ff;", "qSupported", "P0=zz", "qRcmd,74797065",
            "qRcmd,77616c6b20ff", "")

    def test_none_of_them_harms_the_vmm(self) -> None:
        chosen = random.Random(1)
        for name in back_ends("real"):
            with self.subTest(name):
                path = FOLDER / "packets"
                FOLDER.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                vmm = build_vmm(2, solution=True, sanitize="address,undefined")
                argv = pick_backend(name, needs=("real",)).debug_command(
                    [str(vmm), str(build_guests() / "hello.bin")], os.path.relpath(path, ROOT))
                with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE) as process:
                    while not path.exists():
                        self.assertIsNone(process.poll())
                    with socket.socket(socket.AF_UNIX) as gdb:
                        gdb.connect(os.path.relpath(path))
                        gdb.settimeout(PATIENCE)
                        answers = threading.Thread(target=self.read_all, args=[gdb])
                        answers.start()
                        self.send_noise(gdb, chosen)
                        gdb.sendall(b"$k#6b")
                        answers.join()
                    _, errors = process.communicate()
                    self.assertEqual(process.returncode, 137, errors.decode())

    @staticmethod
    def read_all(gdb: socket.socket) -> None:
        """Reads up to the end: who sends without reading could wait for a VMM that waits for its reader."""
        with contextlib.suppress(OSError):
            while gdb.recv(1 << 16):
                continue

    def send_noise(self, gdb: socket.socket, chosen: random.Random) -> None:
        """Packets that are damaged, cut, too long or out of place; each with a right checksum or not."""
        for _ in range(500):
            packet = bytearray(chosen.choice(self.SENT).encode())
            for _ in range(chosen.randrange(3)):
                packet.insert(chosen.randrange(len(packet) + 1), chosen.randrange(256))
            if chosen.random() < 0.01:
                packet += b"0" * 9000
            data = bytes(packet).replace(b"#", b"")
            if data in (b"k", b"D"):
                continue
            total = sum(data) + (chosen.random() < 0.1)
            gdb.sendall(b"$" + data + b"#%02x" % (total & 0xff))


if __name__ == "__main__":
    unittest.main()
