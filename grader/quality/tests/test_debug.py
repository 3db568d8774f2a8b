"""`make debug`: gdb itself, on guests of each kind, on each back end that runs them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import unittest
from pathlib import Path

from grader.commands.debug import __main__ as command
from grader.core.building import build_guests, build_vmm, clean_environment
from grader.course import BUILD, LABS, ROOT
from grader.execution.backends import pick_backend
from grader.labs import load
from grader.quality.tests.debug_session import (FOLDER, MODES, PATIENCE, STEPS, STEPS_64, TICKER, WATCHED_16,
                                                WATCHED_32, WATCHED_64, Debugged, assemble, back_ends,
                                                processes_of_kit)


class RealMode(Debugged):
    def test_source_breakpoints_and_calls(self) -> None:
        for backend in back_ends(4):
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
        for backend in back_ends(4):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=hello")
                self.do("next")
                self.assertRegex(self.do("next"), r"(?s)Hello from the guest!.*mov bl, STATUS")
                self.gdb.sendline("quit")
                self.end()

    def test_steps_of_each_kind(self) -> None:
        image = assemble("steps", STEPS)
        for backend in back_ends(4):
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
        for backend in back_ends(4):
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
        for backend in back_ends(4):
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
                self.gdb.sendline("detach")
                self.gdb.sendline("quit")
                self.end()
                # The guest prints while gdb prints: even the prompt can have its text in it.
                for text in ("detached", "o from the guest!"):
                    self.assertRegex(self.all(), "(?s)\n.*detach\n.*" + ".*".join(text))

    def test_input(self) -> None:
        for backend in back_ends(4):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=echo")
                self.do("monitor type hello there")
                self.do("monitor end")
                self.assertRegex(self.do("continue"), r"(?s)hello there\n.*exited normally")
                self.gdb.sendline("quit")
                self.end()

    def test_crash(self) -> None:
        for backend in back_ends(4):
            with self.subTest(backend):
                self.start(1, backend, "GUESTS=triple-fault")
                self.assertIn("SIGSEGV", self.do("continue"))
                self.assertEqual(self.value("$ebx"), 0)
                self.assertIn("exited with code 0106", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()
                self.assertIn("crashed: shutdown", self.all())
                self.assertNotIn("--gdb", self.all())  # in the command that explains it

    def test_gdb_is_killed(self) -> None:
        for backend in back_ends(4):
            with self.subTest(backend):
                self.start(2, backend, "GUESTS=hello")
                os.kill(processes_of_kit("gdb -q -x build/debug/connect.gdb")[-1], 9)
                self.end()
                self.assertIn("gdb has left", self.all())


class Threads(Debugged):
    def test_vcpus_are_threads(self) -> None:
        for backend in back_ends(4):
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
        for backend in back_ends(5):
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
        for backend in back_ends(5):
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


HANG = 60.0  # seconds in which a VMM exits, even on a loaded machine
USER_PAGES = "ARGS=--map=0x40000000:0x101000:u --map=0x40001000:0x200000:wu"


class LongMode(Debugged):
    def test_registers_memory_and_calls(self) -> None:
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "GUESTS=long-registers")
                self.assertEqual(self.value("$rip") >> 12, 0xffffffff80100)
                self.assertIn("movabs rax,0x100000001", self.do("x/i $pc"))
                self.do("set $xmm15.v2_int64[1] = 0x123456789")
                self.do("set $fs_base = 0x7f0000001234")
                self.do("break print_char")
                self.assertIn("Breakpoint 1, print_char", self.do("continue"))
                self.assertRegex(self.do("backtrace"), r"(?s)#0 .*print_char.*#1 .*print_hex.*#2 .*start")
                total = 0
                for number in range(8, 16):
                    value = (number - 7) * 0x100000001
                    total += (value << number | value >> (64 - number)) & (1 << 64) - 1
                    self.assertEqual(self.value(f"$r{number}"), total & (1 << 64) - 1)
                self.assertEqual(self.value("$xmm15.v2_int64[1]"), 0x123456789)
                self.assertEqual(self.value("$fs_base"), 0x7f0000001234)
                self.assertRegex(self.do("info registers"), r"efer +0xd01")
                self.do("set *(long *)0xffffffff80200ff8 = 0x1122334455667788")
                self.assertEqual(self.value("*(long *)0x200ff8"), 0x1122334455667788)
                self.assertIn("Cannot access memory", self.do("x/g 0x0000ffff80200ff8"))  # not canonical
                walk = self.do("monitor walk 0xffffffff80200ff8")
                self.assertIn("physical address 0x200ff8", walk)
                self.assertIn("PML4[511]", walk)
                self.do("set $r15 = 0xfedcba9876543210")
                self.do("tbreak long-registers.asm:39")
                self.do("delete 1")
                self.do("continue")
                self.assertIn("fedcba9876543210\n", self.all())
                self.do("kill")
                self.gdb.sendline("quit")
                self.end()

    def test_steps_of_each_kind(self) -> None:
        image = assemble("steps-64", STEPS_64)
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, f"GUESTS={image}")
                self.do("tbreak flags")
                self.do("continue")
                self.do("stepi")
                self.assertEqual(self.value("*(long *)$rsp") & 0x100, 0, "TF was pushed")
                self.do("stepi")
                self.assertIn("call_it", self.do("info symbol $pc"))
                self.assertIn("handle", self.do("stepi"))
                self.assertEqual(self.value("((long *)$rsp)[2]") & 0x100, 0, "TF was pushed")
                self.do("stepi")
                self.assertIn("iretq", self.do("x/i $pc"))
                self.do("stepi")
                self.do("stepi")
                self.assertIn("after in", self.do("info symbol $pc"))
                self.assertIn("on_fault", self.do("stepi"))
                self.assertEqual(self.value("$cr2"), 0x7f0000000000)
                self.assertEqual(self.value("((long *)$rsp)[3]") & 0x100, 0, "TF was pushed")
                self.do("stepi 3")
                self.assertIn("after_fault", self.do("info symbol $pc"))
                self.do("tbreak read_answer")
                self.do("continue")
                self.do("stepi")
                self.assertEqual(self.value("$rax"), 0xffffffff)  # GETCHAR_NOTHING
                self.assertRegex(self.do("stepi 3"), "rep outsb")
                self.assertIn("a", self.do("stepi"))
                self.assertEqual(self.value("$rcx"), 2)
                self.do("tbreak finish")
                self.assertIn("bc", self.do("continue"))
                self.assertIn("exited with code 07", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_ring_3_by_iretq_and_int(self) -> None:
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "GUESTS=long-ring3", USER_PAGES)
                self.do(f"tbreak *{self.address('long-ring3', 'iretq')}")
                self.do("continue")
                self.do("stepi")
                self.assertEqual((self.value("$pc"), self.value("$cs")), (0x40000000, 0x23))
                self.do("tbreak *0x40000001")
                self.do("continue")  # a breakpoint in ring 3
                self.assertEqual((self.value("$pc"), self.value("$cs")), (0x40000001, 0x23))
                self.assertEqual((self.value("$rsp"), self.value("$ss")), (0x40001fe8, 0x1b))
                self.do("set $rdi = $rsp")  # which ring 3 may read
                self.do("stepi")
                self.assertIn("int    0x80", self.do("x/i $pc"))
                self.assertIn("on_call", self.do("stepi"))
                self.assertEqual(self.value("$cs"), 8)
                self.assertEqual(self.value("*(long *)$rsp"), 0x40000006)
                self.assertEqual(self.value("((long *)$rsp)[2]") & 0x100, 0, "TF was pushed")
                self.assertRegex(self.do("continue"), r"(?s)went well 0+40001fe8 .*exited normally")
                self.gdb.sendline("quit")
                self.end()

    def test_syscall_and_sysret(self) -> None:
        """In a kernel that lets SYSCALL clear TF, as Linux does, and in one that does not."""
        source = (ROOT / "guests/long-syscall.asm").read_text()
        self.assertIn("mov eax, 0x600", source)
        for name, mask in (("syscall-leaves-tf", "0x600"), ("syscall-clears-tf", "0x700")):
            image = assemble(name, source.replace("mov eax, 0x600", f"mov eax, {mask}"))
            for backend in back_ends(7):
                with self.subTest(f"{name} {backend}"):
                    self.round_trip(backend, image)

    def round_trip(self, backend: str, image: Path) -> None:
        self.start(7, backend, f"GUESTS={image}", USER_PAGES)
        self.do(f"tbreak *{self.address(image.stem, 'sysretq')}")
        self.do("continue")
        self.do("stepi")
        self.assertEqual((self.value("$pc"), self.value("$cs")), (0x40000000, 0x23))
        self.assertEqual(self.value("$r11"), 2, "TF was left in R11")
        self.do("stepi 9")
        self.assertIn("syscall", self.do("x/i $pc"))
        flags = re.search(r"eflags +(0x[0-9a-f]+)", self.do("info registers eflags"))
        assert flags
        self.assertIn("on_call", self.do("stepi"))
        self.assertEqual(self.value("$cs"), 8)
        self.assertEqual(self.value("$r11"), int(flags[1], 16), "TF was copied to R11")
        self.assertRegex(self.do("continue"), r"(?s)0{15}1 0{14}23 .*exited normally")
        self.gdb.sendline("quit")
        self.end()

    def address(self, guest: str, instruction: str) -> str:
        """Where the first such instruction of a guest is."""
        listing = subprocess.run(["objdump", "-d", str(command.FOLDER / f"{guest}.elf")], text=True,
                                 stdout=subprocess.PIPE, check=True).stdout
        found = re.search(rf"(?m)^\s*(\w+):\t.*\b{instruction}\b", listing)
        assert found, instruction
        return f"0x{found[1]}"

    def test_kernel_in_c(self) -> None:
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "GUESTS=kernel64")
                self.assertIn("entry.asm", self.do("info line *$pc"))
                self.do("monitor type memory")
                self.do("break print_number")
                self.assertIn("number=16384, base=", self.do("continue"))
                self.assertRegex(self.do("backtrace"), r"(?s)#0 +print_number.*#\d .*kernel_main")
                self.do("delete")
                self.do("watch threads[1].turns")
                self.do("monitor type threads")
                self.assertRegex(self.do("continue"), r"(?s)Old value = 0.*New value = 1")
                self.assertRegex(self.do("backtrace"), r"(?s)interrupt .*save_all")
                self.do("delete")
                self.do("tbreak *(save_all + 1)")
                self.do("continue")
                self.assertIn("save_all", self.do("info symbol $pc"))
                self.do("delete")
                self.do("break panic")
                self.do("monitor type fault")
                self.assertIn("panic", self.do("continue"))
                self.assertIn("interrupt", self.do("backtrace"))
                self.do("delete")
                self.assertIn("exited with code 076", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_steps_up_to_a_crash(self) -> None:
        """An AMD processor resets itself then; gdb shows the instruction that was stepped."""
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "GUESTS=long-broken")
                self.do("break found")
                self.do("continue")
                self.assertIn("SIGSEGV", self.do("stepi 20"))
                self.assertIn("found", self.do("info symbol $rip"))
                code = self.value("$rip")
                self.assertIn("Cannot access memory", self.do("x/i $pc"))
                self.assertRegex(self.do(f"monitor walk {code:#x}"), r"PD\[0\] = 0+e2: not mapped")
                self.assertRegex(self.do("monitor memory 0x6000"), "00006000: e2 00")
                self.do("kill")
                self.gdb.sendline("quit")
                self.end()

    def test_guests_with_memory_of_their_own(self) -> None:
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "GUESTS=long-apart long-apart")
                self.assertRegex(self.do("info threads"), r"(?s)1 .*long-apart.bin.*2 .*long-apart.bin")
                self.do("break next thread 2")
                self.assertIn("Thread 2 hit Breakpoint 1", self.do("continue"))
                first = self.value("*(long *)$r12")
                self.do("set *(long *)0x200000 = 0x77")
                self.do("thread 1")
                self.assertIn(self.value("*(long *)0x200000"), (0, first))  # it may be before its first mark
                self.do("delete")
                text = self.do("continue")
                self.assertIn(f"vcpu0: {first:016x}", text + self.all())
                self.assertIn("vcpu1: 0000000000000077", text)
                self.gdb.sendline("quit")
                self.end()


class Modes(Debugged):
    def test_gdb_follows_a_guest_that_changes_its_mode(self) -> None:
        image = assemble("modes", MODES)
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, f"GUESTS={image}")
                self.do("break leave_32")
                self.do("tbreak leave_real")
                self.do("continue")
                self.assertIn("executes i386 code now", self.do("stepi"))
                self.assertRegex(self.do("x/i $pc"), "mov +eax,0x10")
                self.do("continue")
                self.assertIn("executes i386:x86-64 code now", self.do("stepi"))
                self.assertIn("movabs r9", self.do("x/i $pc"))
                self.do("stepi")
                self.assertEqual(self.value("$r9"), 0x1122334455667788)
                self.do("tbreak leave_64")
                self.assertIn("leave_64", self.do("continue"))
                self.assertIn("executes i386 code now", self.do("stepi"))
                self.assertIn("back_in_32", self.do("info symbol $pc"))
                self.assertIn("exited with code 011", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()


class Hardware(Debugged):
    """`hbreak` and watchpoints, by debug registers or by what replaces them."""

    def watch(self, lab: int, image: Path, address: str, *words: str) -> None:
        for backend in back_ends(lab):
            with self.subTest(f"{image.stem} {backend}"):
                self.start(lab, backend, f"GUESTS={image}", *words)
                self.do("hbreak more")
                self.assertIn("Breakpoint 1, more", self.do("continue"))
                self.do("delete")
                self.do(f"watch *(int *){address}")
                self.assertRegex(self.do("continue"), r"(?s)Old value = 0.*New value = 1")
                self.assertIn("wrote in", self.do("info symbol $pc"))
                self.do("delete")
                self.do(f"rwatch *(int *){address}")
                # INC reads as well, on processors and in KVM alike.
                self.assertRegex(self.do("continue"), r"(?s)read watchpoint.*Value = 1")
                self.assertIn("was_read in", self.do("info symbol $pc"))
                self.do("delete")
                self.do(f"awatch *(int *){address}")
                self.assertRegex(self.do("continue"), r"(?s)Old value = 1.*New value = 2")
                self.assertRegex(self.do("continue"), r"(?s)access .*Value = 2")
                self.assertIn("was_read in", self.do("info symbol $pc"))
                self.do("delete")
                self.assertIn("exited normally", self.do("continue"))
                self.gdb.sendline("quit")
                self.end()

    def test_real_mode(self) -> None:
        self.watch(2, assemble("watched-16", WATCHED_16), "0x9000")

    def test_paging(self) -> None:
        self.watch(5, assemble("watched-32", WATCHED_32), "0x80200000", "ARGS=--mode=paging")

    def test_long_mode(self) -> None:
        self.watch(7, assemble("watched-64", WATCHED_64), "0xffffffff80200000")

    def test_what_the_processor_writes_by_itself(self) -> None:
        """Page tables of all levels and the stack can't be watched where KVM gets their page read-only."""
        for backend in back_ends(7):
            if backend != "vm":
                continue
            with self.subTest(backend):
                self.start(7, backend, f"GUESTS={assemble('watched-64', WATCHED_64)}")
                tables = re.findall(r"\] = [0-9a-f]*?([0-9a-f]{4})[0-9a-f]{3}\b",
                                    self.do("monitor walk 0xffffffff80200000"))
                self.assertEqual(len(tables), 3)  # PDPT, PD, and the page
                for address in (0x2000, *(int(table, 16) << 12 for table in tables[:2])):
                    self.do(f"watch *(long *){address + 8:#x}")
                    said = self.do("continue")
                    if "exited normally" in said:
                        self.skipTest("debug registers work there: no page is read-only")
                    self.assertIn("Could not insert hardware watchpoint", said)
                    self.do("delete")
                self.do(f"watch *(long *){self.value('$rsp') - 64:#x}")
                self.assertIn("Could not insert hardware watchpoint", self.do("continue"))
                self.do("kill")
                self.gdb.sendline("quit")
                self.end()


class Unfinished(Debugged):
    def test_a_skeleton_says_what_is_missing(self) -> None:
        target = LABS[2].learner_files()[0]
        if "TODO" not in target.read_text():
            self.skipTest(f"{target.name} is not a skeleton any more")
        for backend in back_ends(4):
            with self.subTest(backend):
                self.start(2, backend, "SOLUTION=", "GUESTS=hello")
                self.assertIn("Breakpoint 1, print_char", self.do("break print_char") + self.do("continue"))
                self.assertIn("exited with code 0115", self.do("delete") + self.do("continue"))
                self.gdb.sendline("quit")
                self.end()
                self.assertIn("exercise 2.1 is not written yet", self.all())

    def test_a_skeleton_of_long_mode(self) -> None:
        target = LABS[7].learner_files()[0]
        if "TODO" not in target.read_text():
            self.skipTest(f"{target.name} is not a skeleton any more")
        for backend in back_ends(7):
            with self.subTest(backend):
                self.start(7, backend, "SOLUTION=", "GUESTS=long-hello")
                self.gdb.sendline("quit")
                self.end()
                self.assertIn("exercise 7.5 is not written yet", self.all())

    def test_a_walk_that_is_not_written(self) -> None:
        """`monitor walk` calls it on gdb's thread, which must not wait for itself when the VMM exits."""
        module = FOLDER / "unfinished.c"
        FOLDER.mkdir(parents=True, exist_ok=True)
        start = r"(?m)^struct long_walk long_walk\([^{]*\{"
        module.write_text(re.sub(start, r'\g<0> TODO("7.6");', LABS[7].solution_files()[0].read_text()))
        vmm, path = build_vmm(7, module=module), FOLDER / "packets"
        walk = b"qRcmd," + b"walk 0x1000".hex().encode()
        for backend in back_ends(7):
            path.unlink(missing_ok=True)
            argv = pick_backend(backend, load(7).needs).debug_command(
                [str(vmm), str(build_guests() / "long-hello.bin")], os.path.relpath(path, ROOT))
            with self.subTest(backend), subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL,
                                                         stderr=subprocess.PIPE) as process:
                while not path.exists():
                    self.assertIsNone(process.poll())
                with socket.socket(socket.AF_UNIX) as gdb:
                    gdb.connect(os.path.relpath(path))
                    gdb.settimeout(HANG)
                    gdb.sendall(Packets.packet(walk))
                    answer = b"".join(iter(lambda: gdb.recv(1 << 16), b""))
                    self.assertIn("physical address 0x1000\n".encode().hex().encode(), answer)
                _, errors = process.communicate()
                self.assertEqual(process.returncode, 77)
                self.assertIn(b"exercise 7.6 is not written yet", errors)


class Editor(unittest.TestCase):
    def test_an_editor_connects_to_guests_that_wait(self) -> None:
        if not shutil.which("gdb"):
            self.skipTest("gdb is not installed")
        for lab, guest, bits in ((2, "hello", "x86"), (7, "kernel64", "x64")):
            for backend in back_ends(lab):
                with self.subTest(f"{guest} {backend}"):
                    self.connect(lab, backend, guest, bits)

    def connect(self, lab: int, backend: str, guest: str, bits: str) -> None:
        words = ["make", "debug", f"LAB={lab}", f"BACKEND={backend}", "SOLUTION=1", f"GUESTS={guest}",
                 "WAIT=1"]
        with subprocess.Popen(words, cwd=ROOT, env=clean_environment(), text=True,
                              stdout=subprocess.PIPE) as waiting:
            assert waiting.stdout
            while "The guests wait for a debugger" not in waiting.stdout.readline():
                self.assertIsNone(waiting.poll())
            launch = json.loads((command.FOLDER / "launch.json").read_text())["configurations"][0]
            self.assertEqual(launch["targetArchitecture"], bits)
            lines = [f'-interpreter-exec console "{launch["setupCommands"][0]["text"]}"',
                     f'-target-select remote {launch["miDebuggerServerAddress"]}', "-gdb-exit"]
            gdb = subprocess.run(["gdb", "-q", "-i=mi", launch["program"]], input="\n".join(lines) + "\n",
                                 cwd=launch["cwd"], text=True, errors="replace", stdout=subprocess.PIPE)
            self.assertRegex(gdb.stdout, r'(?s)\*stopped,frame=.*file=".*\.asm".*line="\d.*\^connected')
            waiting.communicate()


class Packets(unittest.TestCase):
    """Even a program that is not gdb may connect."""

    SENT = ("g", "p8", "P8=", "m0,ffffffffffffffff", "M0,4:00", "Z2,0,7fffffffffffffff", "Z1,,", "z9,0,0",
            "X", "Hg", "T9", "qXfer:features:read:target.xml:fffff,fff", "qThreadExtraInfo,7", "qRcmd,",
            "qRcmd,7", "vCont;x", "vCont;s:ff;", "qSupported", "P0=zz", "qRcmd,74797065",
            "qRcmd,77616c6b20ff", "P2a=ff", "p2a", "")

    def test_none_of_them_harms_the_vmm(self) -> None:
        for lab, guest in ((2, "hello"), (7, "long-hello")):
            for name in back_ends(lab):
                with self.subTest(f"{guest} {name}"):
                    self.serve_noise(name, lab, guest)

    def serve_noise(self, name: str, lab: int, guest: str) -> None:
        path = FOLDER / "packets"
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        vmm = build_vmm(lab, solution=True, sanitize="address,undefined")
        argv = pick_backend(name, load(lab).needs).debug_command(
            [str(vmm), str(build_guests() / f"{guest}.bin")], os.path.relpath(path, ROOT))
        with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while not path.exists():
                self.assertIsNone(process.poll())
            with socket.socket(socket.AF_UNIX) as gdb:
                gdb.connect(os.path.relpath(path))
                gdb.settimeout(PATIENCE)
                answers = threading.Thread(target=self.read_all, args=[gdb])
                answers.start()
                gdb.sendall(self.packet(b"qXfer:features:read:target.xml:0,fff"))
                for number in range(100):  # each register: there are fewer
                    gdb.sendall(self.packet(b"p%x" % number))
                self.send_noise(gdb, random.Random(1))
                gdb.sendall(b"$k#6b")
                answers.join()
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 137, errors.decode())

    @staticmethod
    def packet(data: bytes) -> bytes:
        return b"$" + data + b"#%02x" % (sum(data) & 0xff)

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
