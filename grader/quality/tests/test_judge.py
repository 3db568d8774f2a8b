"""Verdicts on programs that really misbehave."""

from __future__ import annotations

import unittest
from dataclasses import replace
from random import Random
from unittest import mock

from grader import labs
from grader.core.building import build_guests, build_vmm
from grader.core.expectations import kernel_panic
from grader.core.grading import Choice, grade
from grader.core.judge import Kind, judge
from grader.core.outcome import Outcome, Todo
from grader.core.plan import Plan
from grader.course import LABS
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run, Step
from grader.quality.tests.fakes import SHORT, FakeCase, FakePrograms, lab_of

REGISTERS = ("vcpu0: rax=0000000000000001 rbx=0000000000000002\n"
             "vcpu0: cs=0010 base=00000100 limit=0000ffff type=11")


def says_hello(plan: Plan) -> None:
    run = plan.boot("guest", limits=SHORT)
    run.prints("hello\n")
    run.exits(0)


def one_is_rax(plan: Plan) -> None:
    plan.boot(limits=SHORT).registers(rax=1, cs_base=0x100)


def unit(plan: Plan) -> None:
    plan.unit("any", "case", limits=SHORT)


class UniversalChecks(FakeCase):
    """What is wrong whatever a test expects."""

    def failed(self, script: str, text: str) -> None:
        """It fails, with points for nothing and these words."""
        verdict = self.verdict(script, says_hello)
        self.assertEqual(verdict.kind, Kind.FAILED, verdict)
        self.assertEqual(verdict.points, 0)
        assert verdict.mismatch
        self.assertIn(text, verdict.mismatch.text)
        self.assertTrue(verdict.hint)

    def test_right_is_ok(self) -> None:
        verdict = self.verdict("echo hello", says_hello)
        self.assertEqual((verdict.kind, verdict.points), (Kind.OK, 10))

    def test_prints_endlessly(self) -> None:
        self.failed("exec yes hello", "output limit exceeded")

    def test_prints_the_right_text_and_hangs_ignoring_signals(self) -> None:
        self.failed("trap '' TERM INT HUP; echo hello; while :; do sleep 1; done", "hung")

    def test_spins_after_the_right_text(self) -> None:
        def body(plan: Plan) -> None:
            plan.boot(limits=Limits(wall=0, no_output=0, spin=0.1)).prints("hello\n")
        verdict = self.verdict("echo hello; while :; do :; done", body)
        self.assertEqual((verdict.kind, verdict.points), (Kind.FAILED, 0))
        self.assertIn("kept a processor busy", verdict.text)

    def test_a_vmm_that_hangs_is_asked_where_it_is(self) -> None:
        self.failed("trap 'echo vmm: vcpu1 is at 0000:0006 in real mode >&2' USR2\n"
                    "while :; do sleep 0.05; done", "vcpu1 is at 0000:0006")

    def test_the_hint_asks_for_an_irqchip_if_the_kernel_refuses_it(self) -> None:
        plan = Plan(lab_of(says_hello).tests[0], 7, FakePrograms(self.folder, ""))
        says_hello(plan)
        said = b"vmm: KVM_CREATE_IRQCHIP: Function not implemented\n"
        result = Result(Ending.EXIT, 69, b"", said)
        self.assertIn("KVM_CREATE_IRQCHIP", judge(plan.test, plan.planned, [result]).hint)

    def test_a_hang_without_a_mapped_instruction_is_one_of_cr3(self) -> None:
        line = "vmm: vcpu0 is at 0008:80102969 in protected mode with 32-bit paging, code {}; 5 exits"
        for code, named in (("(not mapped)", True), ("eb fe", False)):
            result = Result(Ending.SPIN, stderr=line.format(code).encode())
            plan = Plan(lab_of(says_hello).tests[0], 7, FakePrograms(self.folder, ""))
            says_hello(plan)
            self.assertEqual("CR3" in judge(plan.test, plan.planned, [result]).hint, named)

    def test_an_error_that_the_test_made_up_is_no_sign(self) -> None:
        def body(plan: Plan) -> None:
            plan.unit("x", "fails")
        for mark, named in (("", True), ("# errors were made up\n", False)):
            stdout = f"1..1\nnot ok 1 - x.c:fails:fails: wrong\n{mark}".encode()
            result = Result(Ending.EXIT, 0, stdout, b"vmm: KVM_CREATE_VCPU: Inappropriate ioctl for device\n")
            plan = Plan(lab_of(body).tests[0], 7, FakePrograms(self.folder, ""))
            body(plan)
            self.assertEqual("Which descriptor" in judge(plan.test, plan.planned, [result]).hint, named)

    def test_leaves_a_child_that_holds_the_pipe(self) -> None:
        self.failed("echo hello; sleep 1000 & exit 0", "left 1 process behind")
        self.failed("echo hello; sleep 1000 & sleep 1000 & exit 0", "left 2 processes behind")

    def test_what_failed_comes_before_what_was_left(self) -> None:
        self.failed("sleep 1000 & exit 0", "differs from what the guest prints")

    def test_silent_success_is_a_failure(self) -> None:
        self.failed("exit 0", "differs from what the guest prints")

    def test_crash_after_the_right_text(self) -> None:
        self.failed("echo hello; kill -SEGV $$", "SIGSEGV")

    def test_wrong_status_after_the_right_text(self) -> None:
        self.failed("echo hello; exit 3", "exit status 3")

    def test_more_than_the_right_text(self) -> None:
        self.failed("echo hello; echo", "differs from what the guest prints")

    def test_a_mismatch_shows_the_nearest_of_the_accepted_texts(self) -> None:
        def prints_one_of_two(plan: Plan) -> None:
            plan.boot(limits=SHORT).prints("9\na\n", "8\na\n")
        verdict = self.verdict("printf '8\\nx\\n'", prints_one_of_two)
        assert verdict.mismatch
        self.assertEqual(verdict.mismatch.expected, "8\na\n")

    def test_sanitizer_report(self) -> None:
        self.failed("echo hello; echo '==1==ERROR: AddressSanitizer: heap-use-after-free' >&2",
                    "heap-use-after-free")

    def test_a_line_as_long_as_the_output_may_be(self) -> None:
        """Searches that take the square of its length would take an hour."""
        for text in ("x", "KVM_RUN ", "crashed: "):
            with self.subTest(text):
                self.failed(f"yes '{text}' | tr -d '\\n' | head -c 900000 >&2; exit 3", "differs")

    def test_many_panics_without_a_stack_trace(self) -> None:
        stdout = b"1K OS panic: x\n" * 60000
        self.assertEqual(kernel_panic(Outcome(Result(Ending.EXIT, 1, stdout))), "")

    def test_a_todo_is_neither_a_failure_nor_a_point(self) -> None:
        text = "vmm: exercise 1.4 is not written yet: labs/x/vm.c, line 12."
        verdict = self.verdict(f"echo '{text}' >&2; exit 77", says_hello)
        self.assertEqual((verdict.kind, verdict.points), (Kind.TODO, 0))
        assert verdict.todo
        self.assertEqual(verdict.todo, Todo("1.4", "labs/x/vm.c", 12))

    def test_a_todo_that_the_kit_does_not_print_is_a_failure(self) -> None:
        for exercise, file in (("9.1", "labs/x/vm.c"), ("0.1", "labs/x/vm.c"), ("1.9", "labs/x/vm.c"),
                               ("2.1", "labs/x/vm.c"), ("1.4", "labs/x/vm.c, or your instructor"),
                               ("1.4", "-->\n.c"), ("1.4", "https://evil/?.c"), ("1.4", "vm")):
            with self.subTest(exercise=exercise, file=file):
                text = f"vmm: exercise {exercise} is not written yet: {file}, line 12."
                self.assertEqual(self.verdict(f"echo '{text}' >&2; exit 77", says_hello).kind, Kind.FAILED)

    def test_a_missing_program_is_not_the_learners_fault(self) -> None:
        with mock.patch("grader.quality.tests.fakes.FakePrograms.vmm", lambda self: self.folder / "nonesuch"):
            self.assertEqual(self.verdict("", says_hello).kind, Kind.CANNOT)


class Expectations(FakeCase):
    """Conditions, hints and symptoms."""

    def test_registers(self) -> None:
        self.assertEqual(self.verdict(f"echo '{REGISTERS}' >&2", one_is_rax).kind, Kind.OK)

    def test_registers_that_differ(self) -> None:
        verdict = self.verdict(f"echo '{REGISTERS}' | sed s/base=00000100/base=00000200/ >&2", one_is_rax)
        assert verdict.mismatch
        self.assertIn("cs_base", verdict.mismatch.text)

    def test_registers_printed_by_the_module_itself(self) -> None:
        verdict = self.verdict(f"echo '{REGISTERS}' >&2; echo '{REGISTERS}' >&2", one_is_rax)
        self.assertEqual(verdict.kind, Kind.FAILED)

    def test_no_registers(self) -> None:
        self.assertEqual(self.verdict("exit 0", one_is_rax).kind, Kind.FAILED)

    def test_a_session_that_ends_early(self) -> None:
        def session(plan: Plan) -> None:
            plan.boot(steps=(Step(after=b"more?", send=b"y"),), limits=SHORT).exits(0)
        verdict = self.verdict("echo no more", session)
        self.assertEqual(verdict.kind, Kind.FAILED)

    def test_the_first_symptom_that_shows_gives_the_hint(self) -> None:
        def body(plan: Plan) -> None:
            run = plan.boot(limits=SHORT)
            run.prints("a", hint="the expectation's hint")
            run.symptom(lambda o: o.stdout == "b\n", "it was b")
            run.symptom(lambda o: True, "any other")
        self.assertEqual(self.verdict("echo b", body).hint, "it was b")
        self.assertEqual(self.verdict("echo c", body).hint, "any other")

    def test_hints_without_a_symptom(self) -> None:
        def body(plan: Plan) -> None:
            run = plan.boot(limits=SHORT)
            run.prints("a\n", hint="the expectation's hint")
            run.exits(3)
        self.assertEqual(self.verdict("echo b", body).hint, "the expectation's hint")
        self.assertEqual(self.verdict("echo a", body).hint, "hint 1")

    def test_judging_can_be_repeated(self) -> None:
        report = self.grade("echo hello", says_hello)
        [graded] = report.graded
        changed = [replace(result, stdout=b"bye\n") for result in graded.results]
        self.assertEqual(judge(graded.verdict.test, graded.planned, graded.results).kind, Kind.OK)
        self.assertEqual(judge(graded.verdict.test, graded.planned, changed).kind, Kind.FAILED)


class UnitPrograms(FakeCase):
    """What is read from a Check program's TAP."""

    def kind(self, script: str) -> Kind:
        return self.verdict(script, unit).kind

    def test_passed(self) -> None:
        self.assertEqual(self.kind("echo 'ok 1 - a.c:case:test: Passed'; echo 1..1"), Kind.OK)

    def test_failed_shows_the_message(self) -> None:
        verdict = self.verdict("echo 'not ok 1 - a.c:case:test: rflags: bit 1 is 0'; echo 1..1", unit)
        assert verdict.mismatch
        self.assertEqual(verdict.mismatch.text, "rflags: bit 1 is 0")

    def test_a_crash_and_a_hang_of_the_module_have_hints_of_their_own(self) -> None:
        crash = "echo 'not ok 1 - a.c:case:test: Received signal 11 (Segmentation fault)'; echo 1..1"
        for script, text, hint in ((crash, "the module crashed: Segmentation fault", "gdb"),
                                   (f"echo '# crashed with x = 7'; {crash}",
                                    "the module crashed with x = 7: Segmentation fault", "gdb"),
                                   ("while :; do :; done", "did not return", "loop"),
                                   ("exec sleep 1000", "did not return", "lock")):
            verdict = self.verdict(script, unit)
            assert verdict.mismatch
            self.assertIn(text, verdict.mismatch.text)
            self.assertIn(hint, verdict.hint)
            self.assertRegex(verdict.hint, "^This test is about: hint 1 (?!.*hint 1)")

    def test_the_kernels_message_gives_the_hint_before_any_symptom(self) -> None:
        def body(plan: Plan) -> None:
            run = plan.boot(limits=SHORT)
            run.exits(0)
            run.symptom(lambda o: True, "any other")
        script = "echo vmm: vcpu0 crashed: KVM_RUN: Invalid argument >&2; exit 70"
        self.assertIn("third argument", self.verdict(script, body).hint)

    def test_a_module_that_prints_tap_itself(self) -> None:
        for own in ("not ok 1 - a.c:case:test: no", "ok 1 - a.c:case:test: Passed"):
            kind = self.kind(f"echo 'ok 1 - mine'; echo 1..1; echo '{own}'; echo 1..1")
            self.assertEqual(kind, Kind.FAILED)

    def test_no_test_at_all(self) -> None:
        self.assertEqual(self.kind("echo 1..0"), Kind.FAILED)
        self.assertEqual(self.kind(f"echo 'ok 1 - a.c:case:test: Passed'; echo 1..{'9' * 5000}"), Kind.FAILED)
        self.assertEqual(self.kind(f"echo 'ok {'9' * 5000} - a.c:case:test: Passed'; echo 1..1"), Kind.FAILED)
        self.assertEqual(self.kind("exit 0"), Kind.FAILED)

    def test_a_unit_program_that_fails_by_itself(self) -> None:
        self.assertEqual(self.kind("exit 2"), Kind.CANNOT)


class MadeUp(FakeCase):
    def test_a_unit_test_that_fails_says_that_errors_were_made_up(self) -> None:
        [solution] = LABS[1].solution_files()
        module = self.folder / solution.name
        module.write_text(solution.read_text().replace("STATUS_NO_KVM", "STATUS_USAGE"))
        choice = Choice(7, module=module, wanted="1.2-vm-failures", folder=self.folder / "results")
        try:
            report = grade(labs.load(1), choice, lambda needs: pick_backend("auto", tuple(needs)))
        except CannotGrade as error:
            self.skipTest(error.reason)
        [graded] = report.graded
        self.assertEqual(graded.verdict.kind, Kind.FAILED)
        self.assertIn(b"# errors were made up\n", graded.results[graded.verdict.failed or 0].stdout)


class Outcomes(unittest.TestCase):
    """Reading a result."""

    def test_every_byte_of_the_output_is_kept(self) -> None:
        outcome = Outcome(Result(Ending.EXIT, stdout=bytes(range(256)), stderr=b"\xff"))
        self.assertEqual([ord(c) for c in outcome.stdout], list(range(256)))

    def test_of_a_flood_both_ends_are_searched(self) -> None:
        text = "first\n" + "flood\n" * (1 << 18) + "last\n"
        outcome = Outcome(Result(Ending.OUTPUT, stderr=text.encode()))
        self.assertTrue(outcome.said("^first$") and outcome.said("^last$"))
        self.assertLess(len(outcome.stderr), 150_000)

    def test_nothing_that_a_module_prints_stops_the_judge(self) -> None:
        parts = ["vmm: exercise 1.1 is not written yet: a, line ", "vcpu0: cs=8 base=0 limit=0 dpl=",
                 "ff", "9" * 5000,
                 ".\n", "\n", "vcpu0: ", "rax=", "=", " ", "\xff", "1k", "vmm: vcpu0 is at ", "base="]
        random = Random(5)
        for _ in range(2000):
            text = "".join(random.choices(parts, k=12)).encode("latin-1")
            outcome = Outcome(Result(Ending.EXIT, stdout=text, stderr=text))
            self.assertLess(outcome.todo.line if outcome.todo else 0, 1000000)
            self.assertIsInstance(outcome.registers, dict)
            self.assertIsInstance(outcome.where, list)

    def test_the_vmms_own_thread_keeps_no_lock(self) -> None:
        vmm, guest = build_vmm(3, solution=True), build_guests() / "endless.bin"
        run = Run((str(vmm), str(guest)), hold_stdin=True, limits=Limits(no_output=10, spin=0))
        try:
            [result] = pick_backend("auto", labs.load(3).needs).run([run])
        except CannotGrade as error:
            self.skipTest(error.reason)
        outcome = Outcome(result)
        self.assertTrue(outcome.hung, result)
        self.assertRegex(result.diagnosis, "thread output: .*futex")
        self.assertFalse(outcome.lock_kept(0), result.diagnosis)

    def test_two_vcpus(self) -> None:
        other = REGISTERS.replace("vcpu0", "vcpu1").replace("rax=0000000000000001", "rax=0f")
        text = f"{REGISTERS}\n{other}"
        registers = Outcome(Result(Ending.EXIT, stderr=text.encode())).registers
        self.assertEqual((registers[0].values["rax"], registers[1].values["rax"]), (1, 15))
        self.assertEqual(registers[1].segments["cs"],
                         {"selector": 0x10, "base": 0x100, "limit": 0xffff, "type": 11})


if __name__ == "__main__":
    unittest.main()
