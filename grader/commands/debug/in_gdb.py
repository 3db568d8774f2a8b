"""What gdb itself loads for `make debug`: how to unwind calls of nasm code, how to follow a vCPU that changes
its mode, and the command `program`.

Its Python has no part of the kit; the module `gdb` exists only there.
"""

from __future__ import annotations

import os
import struct

import gdb  # type: ignore
import gdb.unwinder  # type: ignore

CR0_PE = 1
ARCHITECTURES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}  # by the register code_bits
GENERAL = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi", "eflags", "cs", "ss", "ds", "es", "fs", "gs",
           "cr0", "cs_base", "ss_base")
GENERAL_64 = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)),
              "eflags", "cs", "ss", "ds", "es", "fs", "gs")
STACK_SEARCHED = 512  # bytes in which a return address is looked for
PAGE_BYTES = 0x1000
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


def returns_to(address: int) -> bool:
    """Whether a CALL of 64-bit code is before the address."""
    try:
        before = bytes(gdb.selected_inferior().read_memory(address - 6, 6))
    except (gdb.MemoryError, gdb.error, OverflowError):
        return False
    return before[1] == 0xe8 or any(before[at] == 0xff and before[at + 1] & 0x38 == 0x10 for at in (0, 3, 4))


class RealMode(gdb.unwinder.Unwinder):  # type: ignore[misc]
    """gdb's own unwinder takes a return address to have 32 bits. In real mode CALL pushes 16."""

    def __init__(self) -> None:
        super().__init__("real mode")

    def __call__(self, frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        if frame.architecture().name() == ARCHITECTURES[64]:
            return None
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


class LongMode(gdb.unwinder.Unwinder):  # type: ignore[misc]
    """nasm does not say where its code has the return address: it is the first value on the stack that a CALL
    may have pushed."""

    def __init__(self) -> None:
        super().__init__("nasm's 64-bit code")

    def __call__(self, frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        if frame.architecture().name() != ARCHITECTURES[64]:
            return None
        rip, rsp = frame.read_register("rip"), frame.read_register("rsp")
        source = gdb.find_pc_line(int(rip) & (1 << 64) - 1).symtab
        if not source or not source.filename.endswith((".asm", ".inc")):
            return None
        start = int(rsp) & (1 << 64) - 1
        info = frame.create_unwind_info(Frame(rsp, gdb.Value(0).cast(rip.type)))
        for name in GENERAL_64:
            info.add_saved_register(name, frame.read_register(name))
        for at, value in self.values(start):
            if returns_to(value):
                info.add_saved_register("rip", gdb.Value(value).cast(rip.type))
                info.add_saved_register("rsp", gdb.Value(at + 8).cast(rsp.type))
                return info
        info.add_saved_register("rip", rip)  # its own caller, which ends the backtrace
        info.add_saved_register("rsp", rsp)
        return info

    @staticmethod
    def values(start: int) -> list[tuple[int, int]]:
        """The values on the stack that are searched, each with its address; no more than a page has."""
        count = min(STACK_SEARCHED, PAGE_BYTES - start % PAGE_BYTES) // 8 * 8
        try:
            stack = gdb.selected_inferior().read_memory(start, count)
        except gdb.MemoryError:
            return []
        return [(start + 8 * at, value) for at, (value,) in enumerate(struct.iter_unpack("<Q", stack))]


def follow_mode(_: object = None) -> None:
    """gdb knows the registers of one mode: if the selected vCPU has code of another one, takes those."""
    try:
        frame = gdb.newest_frame()
        architecture = ARCHITECTURES[int(frame.read_register("code_bits"))]
        if frame.architecture().name() == architecture:
            return
        before = frame.pc()
    except (gdb.error, ValueError, KeyError):  # no vCPU, or none of the kit's VMM
        return
    gdb.execute("exec-file")  # its own architecture would be in the way; the symbols stay
    gdb.execute("set architecture auto", to_string=True)
    gdb.execute("unset tdesc filename", to_string=True)
    print(f"The vCPU executes {architecture} code now.")
    if gdb.newest_frame().pc() != before:
        gdb.execute("frame")


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
            gdb.execute(f'remove-symbol-file "{self._loaded}"')
        gdb.execute(f'add-symbol-file "{path}"', to_string=True)
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
gdb.unwinder.register_unwinder(None, LongMode(), True)
gdb.events.stop.connect(follow_mode)
gdb.events.before_prompt.connect(follow_mode)
Program()
