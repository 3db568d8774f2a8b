"""Hostile modules gain nothing, harm nothing and leave nothing; and right ones are not taken for them."""

from __future__ import annotations

import subprocess
import unittest
from pathlib import Path
from random import Random

from grader.quality.cheats.__main__ import cheats, try_cheat
from grader.course import BUILD
from grader.core.guests import assemble, write_constants
from grader.core.object_check import faults
from grader.execution.runs import CannotGrade
from grader.core.encryption import SEAL, sealable


class Cheats(unittest.TestCase):
    def test_none_gains_harms_or_stays(self) -> None:
        self.assertGreater(len(cheats()), 20)
        for module in cheats():
            with self.subTest(cheat=module.stem):
                try:
                    outcome = try_cheat(module, "auto")
                except CannotGrade as error:
                    self.skipTest(error.reason)
                self.assertEqual(outcome.managed, [])


class Inspection(unittest.TestCase):
    def compiled(self, text: str) -> Path:
        folder = BUILD / "tests" / "inspection"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "module.c").write_text(text)
        subprocess.run(["gcc", "-O1", "-c", "module.c"], cwd=folder, check=True)
        return folder / "module.o"

    def test_plain_code_is_taken(self) -> None:
        self.assertEqual(faults(self.compiled("int x; int f(void) { return x; } static int write(void) "
                                              "{ return 1; } int g(void) { return write(); }")), [])

    def test_code_that_runs_by_itself_is_not(self) -> None:
        for text in ("extern int x; __attribute__((constructor)) static void f(void) { x = 1; }",
                     "extern int x; __attribute__((destructor)) static void f(void) { x = 1; }",
                     "void f(void) {} void *t[] __attribute__((section(\".preinit_array\"))) = {f};",
                     "__asm__(\".section .init,\\\"ax\\\"; nop\");",
                     "static void f(void) {} static void *c(void) { return f; } "
                     "void g(void) __attribute__((ifunc(\"c\")));"):
            with self.subTest(text=text):
                self.assertNotEqual(faults(self.compiled(text)), [])

    def test_code_in_the_place_of_a_librarys_is_not(self) -> None:
        for name in ("ioctl", "write", "_exit", "main", "srunner_run_all", "ck_assert_failed"):
            with self.subTest(name=name):
                [fault] = faults(self.compiled(f"void {name}(int x) {{ }}"))
                self.assertIn("static", fault)

    def test_a_broken_file_is_not(self) -> None:
        path = BUILD / "tests" / "broken.o"
        good = self.compiled("int x;").read_bytes()
        for content in (b"", b"\x7fELF", good[:100], good[:40] + b"\xff" * 20 + good[60:]):
            path.write_bytes(content)
            self.assertNotEqual(faults(path), [])


class Seals(unittest.TestCase):
    def guest(self, name: str, sealer: Random | None, **defines: int | str) -> bytes:
        write_constants()
        return assemble(name, BUILD / "tests" / "seals" / f"{name}.bin", sealer, **defines).read_bytes()

    def test_a_sealed_guest_tells_nothing(self) -> None:
        text = "a text to be found"
        self.assertIn(text.encode(), self.guest("hello", None, TEXT=text))
        sealed = self.guest("hello", Random(1), TEXT=text)
        self.assertNotIn(text.encode(), sealed)
        self.assertGreater(len(sealed), SEAL)

    def test_the_same_seed_seals_alike_and_another_does_not(self) -> None:
        self.assertEqual(self.guest("hello", Random(1)), self.guest("hello", Random(1)))
        self.assertNotEqual(self.guest("hello", Random(1))[SEAL:], self.guest("hello", Random(2))[SEAL:])

    def test_what_cannot_be_sealed_stays_as_it_is(self) -> None:
        self.assertFalse(sealable("bits 32\nbits 16", b"1234"))
        self.assertFalse(sealable("; x\n; seal: no, for\nbits 16", b"1234"))
        self.assertFalse(sealable("bits 16", b"\xf4"))
        self.assertTrue(sealable("bits 16", b"1234"))


if __name__ == "__main__":
    unittest.main()
