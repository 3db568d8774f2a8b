"""What gdb itself loads for `make debug`: how to unwind real-mode calls, and the command `program`.

Its Python has no part of the kit; the module `gdb` exists only there.
"""

from __future__ import annotations

import os
import struct

import gdb  # type: ignore
import gdb.unwinder  # type: ignore

CR0_PE = 1
GENERAL = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi", "eflags", "cs", "ss", "ds", "es", "fs", "gs",
           "cr0", "cs_base", "ss_base")
ENTRY_OFFSET = 24  # e_entry in an ELF32 file's header
PROGRAMS = "build/os-1k/user"


def return_offset(stack: int, base: int) -> int | None:
    """The return address on the stack; None: no CALL is before it, so it is another value."""
    memory = gdb.selected_inferior()
    try:
        offset, = struct.unpack("<H", memory.read_memory(stack, 2))
        before = bytes(memory.read_memory(base + offset - 3, 3)) if offset >= 3 else bytes(3)
    except gdb.MemoryError:
        return None
    return int(offset) if before[0] == 0xe8 or before[1] == 0xff else None


class Frame:
    """A frame's identity: the stack pointer before whatever the function pushes."""

    def __init__(self, sp: gdb.Value, pc: gdb.Value) -> None:
        self.sp, self.pc = sp, pc


class RealMode(gdb.unwinder.Unwinder):  # type: ignore[misc]
    """gdb's own unwinder takes a return address to have 32 bits. In real mode CALL pushes 16."""

    def __init__(self) -> None:
        super().__init__("real mode")

    def __call__(self, frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        eip, esp, cr0, code = (frame.read_register(name) for name in ("eip", "esp", "cr0", "cs_base"))
        if cr0.is_optimized_out or int(cr0) & CR0_PE:
            return None
        info = frame.create_unwind_info(Frame(esp, gdb.Value(0).cast(eip.type)))
        base = int(code) & 0xffffffff
        offset = return_offset(int(esp), base)
        if offset is None:  # gdb ends a backtrace at a frame that is its own caller
            info.add_saved_register("eip", eip)
            info.add_saved_register("esp", esp)
        else:
            info.add_saved_register("eip", gdb.Value(base + offset).cast(eip.type))
            info.add_saved_register("esp", gdb.Value(int(esp) + 2).cast(esp.type))
        for name in GENERAL:
            info.add_saved_register(name, frame.read_register(name))
        return info


class Program(gdb.Command):  # type: ignore[misc]
    """program NAME: load the symbols of the 1K OS's program NAME, and continue until it is started.

All programs have the same addresses, so gdb knows the symbols of one of them at a time."""

    def __init__(self) -> None:
        super().__init__("program", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE)
        self._loaded = ""

    def invoke(self, argument: str, from_tty: bool) -> None:
        path = os.path.abspath(f"{PROGRAMS}/{argument}.elf")
        if not argument or not os.path.exists(path):
            raise gdb.GdbError(f"no program is called {argument!r}: program NAME, like program shell")
        with open(path, "rb") as file:
            entry, = struct.unpack_from("<I", file.read(64), ENTRY_OFFSET)
        if self._loaded:
            gdb.execute(f"remove-symbol-file {self._loaded}")
        gdb.execute(f"add-symbol-file {path}", to_string=True)
        self._loaded = path
        # The kernel leaves each trap here. ESP points at what it restores; the first time it is the start.
        leaving = gdb.Breakpoint("trap_return", internal=True)
        leaving.silent = True
        leaving.condition = (f"((struct trap_frame *)$esp)->eip == {entry}"
                             f" && $_streq(current->name, \"{argument}\")")
        try:
            gdb.execute("continue")
            hit = leaving.hit_count > 0
        finally:
            leaving.delete()
        if hit:
            gdb.Breakpoint(f"*{entry}", internal=True, temporary=True).silent = True
            gdb.execute("continue")
            gdb.execute("frame")


gdb.unwinder.register_unwinder(None, RealMode(), True)
Program()
