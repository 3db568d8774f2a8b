"""make lab, run and diff: what a person sees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from grader import labs
from grader.commands.play import Own
from grader.execution.backends import pick_backend
from grader.core.building import build_guests, build_vmm, clean_environment
from grader.course import BUILD, LABS, ROOT
from grader.execution.runs import CannotGrade, Result, Run as BackendRun
from grader.core.exercises import skeleton


def make(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command of the kit, as typed."""
    return subprocess.run(["make", *words], cwd=ROOT, env=clean_environment(), text=True, input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Lab(unittest.TestCase):
    def test_a_bare_skeleton_names_its_first_exercise(self) -> None:
        for lab in (1, 2, 3):
            solution, target = LABS[lab].solution_files()[0], LABS[lab].learner_files()[0]
            text = skeleton(solution.read_text(), solution.name)
            if target.read_text() != text:
                self.skipTest(f"{target.name} is not a skeleton any more")
            done = make(f"lab{lab}")
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = [number for number, line in enumerate(text.splitlines(), 1) if f'TODO("{lab}.1")' in line]
            self.assertRegex(done.stdout, rf"Next: exercise {lab}\.1, \w")
            where = " and ".join(f"line {line}" for line in lines)
            self.assertIn(f"where   {target.relative_to(ROOT)}, {where}\n", done.stdout)
            self.assertIn(f"read    handouts/{LABS[lab].folder}.md, section {lab}.1\n", done.stdout)

    def test_the_solution_runs_through(self) -> None:
        done = make("lab3", "SOLUTION=1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Everything ran.", done.stdout)
        self.assertRegex(done.stdout, r"(?m)^vcpu\d: 2000$")


class Run(unittest.TestCase):
    def test_options_reach_the_vmm_and_its_output_us(self) -> None:
        done = make("-s", "run", "LAB=2", "SOLUTION=1", "GUESTS=hello", "ARGS=--stats --regs")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "Hello from the guest!\n")
        self.assertRegex(done.stderr, r"vcpu0: status 0, \d+ exits")
        self.assertIn("rip=", done.stderr)

    def test_input_reaches_the_guest(self) -> None:
        done = make("-s", "run", "LAB=2", "SOLUTION=1", "GUESTS=echo", stdin="typed\n")
        self.assertIn("typed\n", done.stdout)

    def run_redirected(self, lab: int, guest: str, redirection: str) -> Result:
        """A guest on the finished VMM of a lab, one of whose streams the shell has redirected."""
        vmm, image = build_vmm(lab, solution=True), build_guests() / f"{guest}.bin"
        shell = BackendRun(("/bin/sh", "-c", f'exec "$0" "$1" {redirection}', str(vmm), str(image)))
        try:
            [result] = pick_backend("auto", labs.load(lab).needs).run([shell])
        except CannotGrade as error:
            self.skipTest(error.reason)
        return result

    def test_a_closed_input_is_at_its_end_and_a_closed_output_an_error(self) -> None:
        for lab in (2, 4):
            with self.subTest(lab=lab):
                read = self.run_redirected(lab, "echo", "<&-")
                self.assertEqual((read.status, read.stdout, read.stderr), (0, b"", b""))
                written = self.run_redirected(lab, "hello", ">&-")
                self.assertEqual(written.status, 74)
                self.assertIn(b"standard output", written.stderr)

    def test_the_vmm_runs_under_another_command(self) -> None:
        done = make("-s", "run", "LAB=2", "SOLUTION=1", "GUESTS=hello", "UNDER=env -u HOME")
        self.assertEqual((done.returncode, done.stdout), (0, "Hello from the guest!\n"), done.stderr)

    def test_an_archive_for_a_guest_that_knows_none_is_refused(self) -> None:
        done = make("run", "LAB=2", "SOLUTION=1", "GUESTS=hello", "ARGS=--initrd=README.md")
        self.assertIn("Error 64", done.stderr)
        self.assertIn("--initrd=README.md is for a 32-bit ELF kernel", done.stderr)

    def test_pages_need_a_guest_with_paging(self) -> None:
        done = make("run", "LAB=2", "SOLUTION=1", "GUESTS=hello", "ARGS=--unmap=0x1000")
        self.assertIn("Error 64", done.stderr)
        self.assertIn("--map and --unmap are for guests with paging", done.stderr)

    def test_what_only_64_bit_guests_have_is_refused_for_others(self) -> None:
        for option in ("--map=0x100000000:0x200000", "--map=0x40000000:0x200000:n"):
            done = make("run", "LAB=7", "SOLUTION=1", "GUESTS=high", f"ARGS=--mode=paging {option}")
            self.assertIn("Error 64", done.stderr)
            self.assertIn("are for 64-bit guests", done.stderr)
        done = make("run", "LAB=7", "SOLUTION=1", "GUESTS=long-hello hello")
        self.assertIn("can't share one VM's memory", done.stderr)

    def test_the_64_bit_kernel_in_c_is_a_guest(self) -> None:
        lines = "threads\nmemory\nfault\n"
        done = make("-s", "run", "LAB=7", "SOLUTION=1", "GUESTS=kernel64", stdin=lines)
        self.assertIn("64> threads\nthread a ran, and was interrupted by the timer\nthread b", done.stdout)
        self.assertIn("64> memory\n16384 KB\n", done.stdout)
        self.assertRegex(done.stdout, r"panic: exception 14 at 0xffffffff\w+, error code 0x2, CR2 0x7f0")
        self.assertIn("Error 62", done.stderr)

    def test_a_module_with_an_older_time_is_rebuilt(self) -> None:
        with TemporaryDirectory(dir=BUILD) as folder:
            module = Path(folder) / "vm.c"
            [solution] = LABS[1].solution_files()
            texts = [solution.read_text(), solution.read_text().replace("API version %d", "API number %d")]
            for text, age in zip(texts, (0, 1000)):
                module.write_text(text)
                os.utime(module, (1e9 - age, 1e9 - age))
                vmm = build_vmm(1, module=module)
            self.assertIn(b"API number %d", vmm.read_bytes())
            shutil.rmtree(vmm.parent)

    def test_the_status_is_reported(self) -> None:
        done = make("run", "LAB=2", "SOLUTION=1", "GUESTS=unknown")
        self.assertIn("Error 70", done.stderr)

    def test_an_unknown_guest_lists_the_known_ones(self) -> None:
        done = make("run", "LAB=2", "SOLUTION=1", "GUESTS=nobody")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"No guest or file is called nobody\. Guests: .*\bcounter\b.*\bhello\b")

    def test_a_missing_argument_is_requested(self) -> None:
        for words, answer in ((("run", "GUESTS=hello"), "LAB=3"), (("run", "LAB=2"), "GUESTS="),
                              (("diff",), "LAB=3"), (("run", "LAB=9", "GUESTS=hello"), f"1 to {max(LABS)}")):
            done = make(*words)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(answer, done.stdout + done.stderr)


class Hold(unittest.TestCase):
    def test_a_held_input_has_no_end(self) -> None:
        done = make("-s", "run", "LAB=4", "SOLUTION=1", "GUESTS=ticks", "ARGS=--stats", "HOLD=1")
        self.assertEqual(done.stdout.split(), ["1", "2", "3", "4", "5"], done.stderr)
        [interrupts] = re.findall(r"(\d+) interrupts", done.stderr)
        self.assertRegex(done.stderr, r"(?m)^vmm: \d+\.\d{3} s of processor time$")
        self.assertGreaterEqual(int(interrupts), 5)


class System(unittest.TestCase):
    """make os: whose modules run."""

    def test_from_names_modules_of_the_learners(self) -> None:
        self.assertEqual(Own.named(""), Own())
        self.assertEqual(Own.named("mine"), Own((1, 2, 3, 4, 5), True, True))
        self.assertEqual(Own.named("6"), Own((), True, True))
        self.assertEqual(Own.named("4,sched"), Own((4,), False, True))
        for own in (Own((1, 3)), Own((), True), Own((2,), False, True), Own((), True, True)):
            self.assertEqual(Own.named(own.name()), own)
        for text in ("7", "mine,1", "boots", "1;2"):
            self.assertRaises(ValueError, Own.named, text)

    def test_unwritten_modules_are_reported_with_a_way_to_boot_without_them(self) -> None:
        for solution, target in zip(LABS[6].solution_files(), LABS[6].learner_files()):
            if target.read_text() != skeleton(solution.read_text(), solution.name):
                self.skipTest(f"{target.name} is not a skeleton any more")
        done = make("os", "FROM=6", stdin="0\n")
        self.assertEqual(done.returncode, 2)
        for name, exercise in (("boot", "6.1"), ("sched", "6.4")):
            self.assertIn(f"{name}.c is not finished: exercise {exercise} is not written yet.\n",
                          done.stdout)
        self.assertIn("in their place: make os\n", done.stdout)
        self.assertNotIn("1k>", done.stdout)

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        done = make("os", "FROM=boots")
        self.assertIn("FROM=boots: give mine, or some of 1 to 6, boot and sched", done.stdout)

    def test_how_to_leave_is_printed_first(self) -> None:
        done = make("os", stdin="0\n")
        if "can't run it" in done.stdout:
            self.skipTest("nothing here runs 32-bit paging")
        before, _, session = done.stdout.partition("1K OS: ")
        self.assertIn("Ctrl-] ends the VMM", before)
        self.assertIn("make os FROM=6", before)
        self.assertIn("Goodbye.\n", session)


class Diff(unittest.TestCase):
    def test_a_skeleton_differs_by_its_answers(self) -> None:
        done = make("diff", "LAB=1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(re.search(r"^\+\s+vm->kvm_fd = open", done.stdout, re.M) or done.stdout == "")


if __name__ == "__main__":
    unittest.main()
