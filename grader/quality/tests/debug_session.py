"""What test_debug.py stands on: gdb on a terminal, and guests that are made for it."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore

from grader.commands.debug import __main__ as command
from grader.core.building import clean_environment
from grader.core.guests import write_constants
from grader.course import BUILD, ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade
from grader.labs import load

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

# The same in long mode.
STEPS_64 = """%include "long.inc"
start:
    call install_idt
    mov edx, GATE_KERNEL
    mov ecx, 0x30
    lea rax, [rel handle]
    call set_gate
    mov ecx, 14
    lea rax, [rel on_fault]
    call set_gate
flags:
    pushfq
    pop rbx
call_it:
    int 0x30
    mov rcx, 0x7f0000000000
after:
    mov rax, [rcx]
after_fault:
    mov edx, HYPERCALL_PORT
    mov eax, HC_GETCHAR
    out dx, eax
read_answer:
    in eax, dx
string:
    lea rsi, [rel text]
    mov ecx, 3
    mov edx, STRING_PORT
    rep outsb
finish:
    mov bl, 7
    jmp exit
handle:
    nop
    iretq
on_fault:
    add qword [rsp + 8], after_fault - after
    add rsp, 8
    iretq
text: db "abc"
%include "long-print.inc"
"""

# Goes from real mode through protected mode to long mode and back to 32-bit code, all mapped where it is.
MODES = """%include "abi.inc"
bits 16
org 0
    mov ax, 0x1000
    mov es, ax
    xor di, di
    mov cx, 0x3000 / 2
    xor ax, ax
    rep stosw
    mov dword [es:0], 0x11003
    mov dword [es:0x1000], 0x12003
    mov dword [es:0x2000], 0x83 ; 2 MB
    lgdt [gdt_register]
    mov eax, cr0
    or al, 1
    mov cr0, eax
leave_real:
    jmp dword 8:code_32
bits 32
code_32:
    mov eax, 16
    mov ds, eax
    mov ss, eax
    mov esp, 0x8000
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x10000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
leave_32:
    jmp 24:code_64
bits 64
code_64:
    mov r9, 0x1122334455667788
numbered:
    push 8
    push back_in_32
leave_64:
    o64 retf
bits 32
back_in_32:
    mov ebx, 9
    mov eax, HC_EXIT
    mov edx, HYPERCALL_PORT
    out dx, eax
    align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdt_register: dw 31
    dd gdt
"""

# Writes and reads a variable, by turns; in each mode it is on a page of its own.
WATCHED = """%include "{include}"
{start}
    mov cx, 4
more:
    inc dword [{variable}]
wrote:
    mov eax, [{variable}]
was_read:
    dec cx
    jnz more
    mov bl, 0
    mov dx, HYPERCALL_PORT
    mov eax, HC_EXIT
    out dx, eax
{end}
"""
WATCHED_16 = WATCHED.format(include="abi.inc", variable="0x9000", end="", start="bits 16\norg 0\n"
                            "mov dword [0x9000], 0")
WATCHED_32 = WATCHED.format(include="abi.inc", variable="0x80200000", end="",
                            start="bits 32\norg HIGHER_HALF + LOAD_DEFAULT")
WATCHED_64 = WATCHED.format(include="long.inc", variable="HIGHER_HALF_64 + 0x200000", start="start:",
                            end='%include "long-print.inc"')

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
    return (FOLDER / f"{name}.bin").relative_to(ROOT)


def back_ends(lab: int) -> Iterator[str]:
    """Those that run this lab's guests."""
    for name in ("kvm", "vm"):
        try:
            yield pick_backend(name, load(lab).needs).name
        except CannotGrade:
            continue


def processes_of_kit(words: str) -> list[int]:
    """Processes that were started in this copy of the kit, with these words on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if process.joinpath("cwd").samefile(ROOT) and \
                    words in process.joinpath("cmdline").read_text(errors="replace").replace("\0", " "):
                found.append(int(process.name))
    return sorted(found)


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
        self.assertEqual(processes_of_kit(str(command.FOLDER.relative_to(ROOT) / "socket")), [])
