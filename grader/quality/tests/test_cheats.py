"""Hostile modules gain nothing, harm nothing and leave nothing; and right ones are not taken for them."""

from __future__ import annotations

import re
import shutil
import subprocess
import unittest
from itertools import chain, groupby
from pathlib import Path
from random import Random

from grader import labs
from grader.quality.cheats.__main__ import (Cheat, cheats, generated, incomplete, lab_of,
                                            left_processes, try_cheat)
from grader.core.building import build_vmm
from grader.course import BUILD, LABS, ROOT
from grader.core.guests import assemble, write_constants
from grader.core.jailed_make import JAILED
from grader.execution.runs import CannotGrade
from grader.core.encryption import DECRYPTOR, encryptable
from grader.quality import spare

AT_ONCE = 3
INCOMPLETE_EVERY = 9  # of the modules without one exercise


class Cheats(unittest.TestCase):
    def hold(self, modules: list[Cheat]) -> None:
        each = [[cheat for cheat in modules if lab_of(cheat.target) == lab] for lab in LABS]
        # Many of them wait until a limit ends them.
        for cheat, managed in chain.from_iterable(spare.each(self.managed, each, AT_ONCE)):
            with self.subTest(cheat=cheat.name, target=cheat.target):
                self.assertEqual(managed, [])

    def managed(self, modules: list[Cheat]) -> list[tuple[Cheat, list[str]]]:
        """What each of these achieved. They are for one lab, so they are graded one after the other."""
        try:
            return [(cheat, try_cheat(cheat, "vm").managed) for cheat in modules]
        except CannotGrade as error:
            self.skipTest(error.reason)

    def test_what_is_left_is_found(self) -> None:
        program = JAILED / "test/build/vmm/lab3-solution/sleep"
        program.parent.mkdir(parents=True, exist_ok=True)
        self.addCleanup(shutil.rmtree, JAILED / "test")
        shutil.copy("/bin/sleep", program)
        with subprocess.Popen([program, "1000"]) as process:
            found = left_processes(3), left_processes(2)
            process.kill()
        self.assertEqual(found, ([f"{process.pid} ({program})"], []))

    def test_no_cheat_gains_harms_or_stays(self) -> None:
        # Some are for every lab: those take turns here, and `make cheats` grades each of them in all labs.
        targets = [list(same) for _, same in groupby(cheats(), key=lambda cheat: cheat.name)]
        modules = [same[turn % len(same)] for turn, same in enumerate(targets)]
        self.assertGreater(len(modules), 20)
        self.hold(modules)

    def test_no_test_waits_for_processes_that_a_module_has_started(self) -> None:
        cheat, = (cheat for cheat in cheats() if (cheat.name, cheat.target) == ("leave_daemon", "lab1"))
        try:
            outcome = try_cheat(cheat, "vm")
        except CannotGrade as error:
            self.skipTest(error.reason)
        self.assertEqual((outcome.managed, outcome.hung), ([], 0))

    def test_generated_modules_have_every_answer(self) -> None:
        for cheat in generated():
            with self.subTest(cheat=cheat.name, target=cheat.target):
                self.assertNotIn("TODO(", cheat.text)
                self.assertEqual(cheat.other is not None, lab_of(cheat.target) == 8)

    def test_a_module_that_does_nothing_right_gains_nothing(self) -> None:
        # One for each file, because each is graded by all tests of its lab, and lab 8's twice:
        # `make cheats` grades all.
        each = {cheat.target: cheat for cheat in generated(labs.NUMBERS[:-1])
                if re.match("contract_(0|STATUS)", cheat.name)}
        self.assertGreaterEqual(len(each), len(LABS) - 1)
        self.hold(list(each.values()))

    def test_no_exercise_has_points_without_its_answers(self) -> None:
        modules = incomplete()
        self.assertEqual({lab_of(cheat.target) for cheat in modules}, set(LABS))
        for cheat in modules:
            with self.subTest(cheat=cheat.name):
                self.assertNotIn("TODO(", cheat.text)
        # `make cheats` grades all.
        self.hold([cheat for number, cheat in enumerate(modules) if number % INCOMPLETE_EVERY == 0])


class Closing(unittest.TestCase):
    """common/close_module.sh: what a module gives to the program is its contract, by whatever name."""

    CONTRACT = "contract\n"
    PLAIN = "int contract(int number) { return number; }\n"

    def closed(self, text: str, cc: str = "gcc", *options: str) -> tuple[str, str]:
        """The names that are visible to the program, or none and what was said."""
        folder = BUILD / "tests" / "closing"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "module.c").write_text(text)
        source, whole, closed = (str(folder / name) for name in ("module.c", "whole.o", "closed.o"))
        subprocess.run([cc, "-O1", "-g", "-w", *options, "-c", source, "-o", whole], check=True)
        done = subprocess.run(["sh", "common/close_module.sh", whole, closed], cwd=ROOT, input=self.CONTRACT,
                              text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode != 0:
            return "", done.stderr
        names = subprocess.run(["nm", "-g", "--defined-only", closed], check=True, text=True,
                               stdout=subprocess.PIPE).stdout
        return " ".join(line.split()[-1] for line in names.splitlines()), done.stderr

    def compilers(self) -> list[str]:
        return [cc for cc in ("gcc", "clang") if shutil.which(cc)]

    def test_every_other_name_is_the_modules_own(self) -> None:
        texts = ["", *(f"void {name}(int x) {{ }}" for name in
                       ("ioctl", "write", "main", "srunner_run_all", "__gmon_start__",
                        "_ITM_registerTMCloneTable", "__libc_start_main",
                        "__wrap_stage_before_entry", "fail")),
                 "int mine(int x) { return x; } __asm__(\".symver mine, prctl@@GLIBC_2.2.5\");",
                 "int environ __attribute__((common));", "__thread int errno_of_mine = 1;",
                 "__attribute__((weak)) void write(int x) { }", "__asm__(\".globl stdout; stdout = 5\");"]
        for cc in self.compilers():
            for text in texts:
                with self.subTest(cc=cc, text=text):
                    self.assertEqual(self.closed(self.PLAIN + text, cc), ("contract", ""))

    def test_more_for_a_debugger(self) -> None:
        text = f"#include <stdio.h>\n{self.PLAIN}"
        for options in (("-g3",), ("-g3", "-gdwarf-4", "-fdebug-types-section")):
            for cc in self.compilers():
                with self.subTest(cc=cc, options=options):
                    self.assertEqual(self.closed(text, cc, *options), ("contract", ""))

    def test_what_would_run_by_itself_is_refused(self) -> None:
        texts = ["extern int x; __attribute__((constructor)) static void f(void) { x = 1; }",
                 "extern int x; __attribute__((destructor)) static void f(void) { x = 1; }",
                 *(f"void *table[] __attribute__((section(\"{section}\"))) = {{contract}};" for section in
                   (".preinit_array", ".ctors", ".tm_clone_table", "__libc_atexit", "__libc_IO_vtables",
                    ".gnu.linkonce.d.x", "of_mine")),
                 *(f"__asm__(\".section {section}; nop; .previous\");" for section in
                   (".rodata.f,\\\"ax\\\"", ".data.f,\\\"awx\\\"", ".init,\\\"ax\\\"", ".fini,\\\"ax\\\"",
                    ".gnu.lto_.opts", ".gnu.warning.write", ".interp")),
                 "static void f(void) {} static void *c(void) { return f; } "
                 "void g(void) __attribute__((ifunc(\"c\")));",
                 "__asm__(\".globl u; .type u, @gnu_unique_object; .data; u: .long 1; .text\");"]
        for cc in self.compilers():
            for text in texts:
                with self.subTest(cc=cc, text=text):
                    said = self.closed(self.PLAIN + text, cc)[1]
                    self.assertIn("A module may only have functions and variables", said)

    def test_a_broken_object_is_refused(self) -> None:
        self.closed(self.PLAIN)
        good = (BUILD / "tests" / "closing" / "whole.o").read_bytes()
        broken, out = BUILD / "tests" / "closing" / "broken.o", BUILD / "tests" / "closing" / "out.o"
        for content in (b"", b"\x7fELF", good[:100]):
            broken.write_bytes(content)
            done = subprocess.run(["sh", "common/close_module.sh", str(broken), str(out)], cwd=ROOT,
                                  input=self.CONTRACT, text=True, stderr=subprocess.DEVNULL)
            self.assertNotEqual(done.returncode, 0)

    def test_each_labs_contract_is_what_its_solution_provides(self) -> None:
        for lab in LABS.values():
            vmm = build_vmm(lab.number, solution=True)
            whole, closed = (self.names(vmm.with_name(f"lab{lab.number}{end}.o")) for end in ("-whole", ""))
            self.assertEqual(whole, closed)

    def names(self, path: Path) -> str:
        return subprocess.run(["nm", "-g", "--defined-only", "--format=just-symbols", str(path)], check=True,
                              stdout=subprocess.PIPE, text=True).stdout


class Encryption(unittest.TestCase):
    def guest(self, name: str, cipher: Random | None, **defines: int | str) -> bytes:
        write_constants()
        return assemble(name, BUILD / "tests" / "encryption" / f"{name}.bin", cipher, **defines).read_bytes()

    def test_an_encrypted_guest_reveals_nothing(self) -> None:
        text = "a text to be found"
        self.assertIn(text.encode(), self.guest("hello", None, TEXT=text))
        encrypted = self.guest("hello", Random(1), TEXT=text)
        self.assertNotIn(text.encode(), encrypted)
        self.assertGreater(len(encrypted), DECRYPTOR)

    def test_encryption_depends_only_on_the_seed(self) -> None:
        self.assertEqual(self.guest("hello", Random(1)), self.guest("hello", Random(1)))
        self.assertNotEqual(self.guest("hello", Random(1))[DECRYPTOR:],
                            self.guest("hello", Random(2))[DECRYPTOR:])

    def test_guests_that_cannot_be_encrypted(self) -> None:
        self.assertFalse(encryptable("bits 32\nbits 16", b"1234"))
        self.assertFalse(encryptable("; x\n; encrypt: no\nbits 16", b"1234"))
        self.assertFalse(encryptable("bits 16", b"\xf4"))
        self.assertTrue(encryptable("bits 16", b"1234"))


if __name__ == "__main__":
    unittest.main()
