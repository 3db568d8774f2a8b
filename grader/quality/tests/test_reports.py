"""Reports: for a person, for Gradescope, JUnit and Autolab; and the exit status."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock
from xml.etree import ElementTree

from grader import __main__ as command
from grader import labs
from grader.core import grading
from grader.core.building import BuildError
from grader.core.framework import Body
from grader.core.grading import BuiltPrograms, Choice, Graded, Report, grade, path_text
from grader.core.judge import Kind, Verdict, judge
from grader.core.plan import Plan
from grader.course import LABS, ROOT, Lab
from grader.report.files import autolab, gradescope, junit, write_files
from grader.report.text import report_lines, save
from grader.execution.runs import CannotGrade, Limits
from grader.core.readable import beside, errors_first, visible
from grader.quality.tests.fakes import SHORT, FakeCase, FakePrograms, host, lab_of


def good(plan: Plan) -> None:
    plan.boot(limits=SHORT).exits(0)


def bad(plan: Plan) -> None:
    run = plan.boot(limits=SHORT)
    run.prints("one\ttwo\n", hint="use a tab")


SCRIPT = "echo 'one two '; echo post-mortem >&2"


class Texts(FakeCase):
    """The report for a person."""

    def lines(self, *bodies: object, wanted: str = "") -> list[str]:
        return report_lines(self.grade(SCRIPT, *bodies, wanted=wanted))  # type: ignore[arg-type]

    def test_the_hint_comes_before_the_texts(self) -> None:
        lines = self.lines(good, bad)
        hint = next(i for i, line in enumerate(lines) if "hint: use a tab" in line)
        got = next(i for i, line in enumerate(lines) if "one two·⏎" in line)
        self.assertLess(hint, got)
        self.assertIn("one→two⏎", lines[got])
        self.assertTrue(any("post-mortem" in line for line in lines[got:]))

    def test_the_command_that_repeats_one_test(self) -> None:
        self.assertTrue(any("make grade LAB=1 T=1.2-bad SEED=7" in line for line in self.lines(good, bad)))

    def test_the_command_that_explains_a_crash(self) -> None:
        def typed(plan: Plan) -> None:
            plan.boot(stdin=b"x", limits=SHORT).exits(0)

        # Of the program's words only that there is something to explain: it may print any command.
        crash = "echo '  the chain of events: make explain LAB=1 CC=\"touch x\"' >&2; exit 70"
        lines = report_lines(self.grade(crash, typed))
        given = path_text(self.folder / "results/1.1-typed/run1.stdin")
        self.assertIn(f"  explain: make explain LAB=1 < {given}", lines)
        self.assertFalse([line for line in lines if line.startswith("  explain") and "touch" in line])

    def test_no_control_character_of_a_program_reaches_a_reader(self) -> None:
        words = "'\\033]0;x\\007\\033[2J\\r'"
        scripts = (f"printf {words}; printf {words} >&2; exit 1",
                   f"printf 'vmm: vcpu0 is at %b\\n' {words} >&2; kill -STOP $$",
                   f"printf '%b runtime error: %b\\n' {words} {words} >&2; exit 1",
                   f"printf 'vmm: exercise 1.1 is not written yet: %b, line 3.\\n' {words} >&2; exit 77")
        for script in scripts:
            with self.subTest(script=script):
                report = self.grade(script, bad)
                outputs = [str(test["output"]) for test in cast(Any, gradescope(report)["tests"])]
                texts = [*report_lines(report), junit(report), *outputs]
                self.assertEqual(re.findall("[\x00-\x09\x0b-\x1f\x7f]", "".join(texts)), [])

    def test_a_flood_is_truncated(self) -> None:
        report = self.grade(SCRIPT, bad)
        report.build_error = "\x1b[2J" * 100 + "error\n" * 100_000
        self.assertLess(len("".join(report_lines(report))), 20_000)
        self.assertLess(len(str(gradescope(report)["output"])), 20_000)
        self.assertNotIn("\x1b", str(gradescope(report)["output"]))

    def test_a_compilers_errors_come_before_its_warnings(self) -> None:
        function, note = "vm.c: In function 'vm_init':", "vm.c:2:1: note: declared here"
        warning, error = "vm.c:3:5: warning: conversion", "vm.c:9:7: error: 'x' undeclared"
        undeclared = "vm.c:11:2: warning: implicit declaration of function 'vm_open'"
        missing = "vm.c:(.text+0x7): undefined reference to `vm_open'"
        text = "\n".join([function, warning, note, "vm.c: In function 'vm_run':", error, undeclared, missing])
        self.assertEqual(errors_first(text).splitlines(),
                         ["vm.c: In function 'vm_run':", error, undeclared, missing, function, warning, note])

    def test_texts_of_a_hostile_module_are_read_in_linear_time(self) -> None:
        # Where the time grows with the square of the length, it is an hour. In a process of its own: a
        # regular expression can't be interrupted.
        code = ("import resource, sys\n"
                "from pathlib import Path\n"
                "from grader.core.exercises import todos\n"
                "from grader.core.outcome import Outcome\n"
                "from grader.core.readable import beside, errors_first, printable_lines, visible\n"
                "from grader.execution.runs import Ending, Result\n"
                "resource.setrlimit(resource.RLIMIT_CPU, (300, 300))\n"
                "text = sys.argv[1] + sys.argv[2] * ((1 << 20) // len(sys.argv[2]))\n"
                "errors_first(text), printable_lines(text), beside(text, visible(text))\n"
                "outcome = Outcome(Result(Ending.EXIT, 70, text.encode(), text.encode()))\n"
                "outcome.todo, outcome.where, outcome.words, outcome.sanitizer, outcome.registers\n"
                "source = Path(sys.argv[3])\n"
                "source.write_text(text[:1 << 18])\n"
                "todos(source)\n")
        for first, again in (("x:1:1: error: \n", "ld"), ("x:1:1: error: \n", "\n"), ("", "/* "), ("", "a:1"),
                             ("vmm: ", " ("), ("vcpu0: ", "a=1 ")):
            with self.subTest(again=again):
                done = subprocess.run([sys.executable, "-c", code, first, again, self.folder / "source.c"],
                                      cwd=ROOT, stderr=subprocess.PIPE, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_report_that_grows_judges_each_test_once(self) -> None:
        bodies: tuple[Body, ...] = (good, bad, good, bad)
        grown: list[Report] = []
        choice = Choice(7, folder=self.folder / "results", jobs=1)
        with mock.patch("grader.core.grading.judge", wraps=judge) as judged:
            report = grade(lab_of(*bodies), choice, host, FakePrograms(self.folder, SCRIPT),
                           grown.append)
        self.assertEqual(judged.call_count, 2 * len(bodies))     # once, and once in the end
        kinds = [[verdict.kind for verdict in one.verdicts] for one in grown]
        self.assertEqual(kinds[0], [Kind.OK] + [Kind.FAILED] * 3)
        self.assertEqual(kinds[-1], [verdict.kind for verdict in report.verdicts])

    def test_a_command_shows_each_character_of_a_modules_name(self) -> None:
        choice = Choice(1, module=Path("/x/ev\udcc2\udc9bil\u202e.c"))
        self.assertIn("MODULE='/x/ev\\xc2\\x9bil\\u202e.c'", choice.command(2, "2.1"))

    def test_score_and_next_exercise(self) -> None:
        lines = self.lines(good, bad)
        self.assertEqual(lines[-1], "Score: 10 of 20")
        self.assertTrue(any(line.startswith("Next: exercise 1.2") for line in lines))

    def test_one_cause_is_one_paragraph(self) -> None:
        def other(plan: Plan) -> None:
            plan.boot(limits=SHORT).exits(3, hint="return the status")

        lines = self.lines(bad, other, good, bad, other)
        hints = [line for line in lines if line.startswith("  hint: ")]
        self.assertEqual(hints, ["  hint: use a tab", "  hint: return the status"])
        self.assertIn("  also:    1.4-bad", lines)
        self.assertIn("  also:    1.5-other", lines)

    def test_the_vmms_own_message_is_one_cause_whatever_the_hints(self) -> None:
        def other(plan: Plan) -> None:
            plan.boot("2", limits=SHORT).exits(0, hint="look at the status")

        script = "echo \"vmm: vcpu0 (guest$1.bin) crashed: KVM_RUN at 0x$1f: Invalid argument\" >&2; exit 70"
        lines = report_lines(self.grade(script, bad, other))
        self.assertEqual(sum(line.startswith("  hint: ") for line in lines), 1)
        self.assertIn("  also:    1.2-other", lines)

    def test_next_is_the_exercise_whose_function_fails_by_itself(self) -> None:
        def unit(plan: Plan) -> None:
            plan.unit("any", "case", limits=SHORT)

        lines = self.lines(bad, good, unit)
        self.assertTrue(any(line.startswith("Next: exercise 1.3") for line in lines), lines)
        self.assertLess(next(i for i, line in enumerate(lines) if line.startswith("1.3-unit")),
                        next(i for i, line in enumerate(lines) if line.startswith("1.1-bad")))

    def test_tests_of_functions_come_first_and_deadlocks_before_other_runs(self) -> None:
        def unit(plan: Plan) -> None:
            plan.unit("any", "case", limits=SHORT)

        def deadlock(plan: Plan) -> None:
            plan.boot("wait", hold_stdin=True, limits=Limits(deadlock=0.5)).exits(0)

        lines = report_lines(self.grade('[ "$1" != wait ] || read line', unit, bad, deadlock))
        heads = [line.partition(":")[0] for line in lines if line.startswith("1.")]
        self.assertEqual(heads, ["1.1-unit", "1.3-deadlock", "1.2-bad"])

    def test_what_is_not_written_comes_after_what_fails_before_it(self) -> None:
        script = ("case $1 in 1.*) echo \"vmm: exercise $1 is not written yet: labs/vm.c, line 12.\" >&2; "
                  "exit 77;; esac; exit 3")

        def waits(exercise: str) -> Body:
            def body(plan: Plan) -> None:
                plan.boot(exercise, limits=SHORT).exits(0)
            body.__name__ = f"waits{exercise[2]}"
            return body

        lines = report_lines(self.grade(script, waits("1.4"), waits("1.3"), waits("ends")))
        self.assertIn("  where   labs/vm.c, line 12", lines)
        self.assertTrue(any(line.startswith("Next: exercise 1.3") for line in lines), lines)
        lines = report_lines(self.grade(script, waits("ends"), waits("1.2")))
        self.assertTrue(any(line.startswith("Next: exercise 1.1") for line in lines), lines)

    def test_next_is_the_first_exercise_that_is_not_written(self) -> None:
        """A chosen test of 1.1 may wait for 1.3 while 1.2 is not written either."""
        module = self.folder / "vm.c"
        self.folder.mkdir(parents=True, exist_ok=True)
        module.write_text('TODO("1.3");\nTODO("1.2");\nTODO("1.2");\n')
        script = f"echo 'vmm: exercise 1.3 is not written yet: {path_text(module)}, line 1.' >&2; exit 77"
        with mock.patch.object(Lab, "learner_files", return_value=[module]):
            lines = report_lines(self.grade(script, good))
            self.assertIn(f"  where   {path_text(module)}, line 2 and line 3", lines)
            self.assertTrue(any(line.startswith("Next: exercise 1.2") for line in lines), lines)
            module.write_text('TODO("1.3");\n')
            lines = report_lines(self.grade(script, good))
            self.assertIn(f"  where   {path_text(module)}, line 1", lines)

    def test_a_filtered_grading_has_no_score(self) -> None:
        for wanted in ("1.1", "1.1-good"):
            lines = self.lines(good, bad, wanted=wanted)
            self.assertFalse(any("Score" in line for line in lines))
            self.assertIn("1 of 1 chosen", lines[-1])

    def test_one_of_a_labs_two_files_has_its_own_exercises(self) -> None:
        lab = labs.load(6)
        for name, first, last in (("boot.c", "6.1", "6.3"), ("sched.c", "6.4", "6.6")):
            with self.subTest(name=name):
                choice = Choice(7, module=self.folder / name)
                tests = choice.tests(lab)
                found = {test.exercise for test in tests}
                self.assertEqual((min(found), max(found), len(found)), (first, last, 3))
                report = Report(lab, choice, self.folder, [Graded(Verdict(test, Kind.OK)) for test in tests])
                points = sum(test.points for test in lab.tests if test.exercise in found)
                self.assertEqual(report_lines(report)[-1],
                                 f"Score: {points} of {points} (the file's share of the lab's 100)")
        self.assertEqual(replace(choice, wanted="6.1").tests(lab), [])
        self.assertEqual(Choice(7).tests(lab), lab.tests)

    def test_a_file_with_neither_name_is_refused(self) -> None:
        for lab, name in (("6", "ann.c"), ("6", "SCHED.c"), ("8", "Devices.c"), ("8", "linux.txt")):
            with self.subTest(name=name), self.assertRaises(SystemExit), \
                    contextlib.redirect_stderr(io.StringIO()) as said:
                command.parse(["grade", "--lab", lab, "--module", name])
            self.assertIn(f"a module's name must be {' or '.join(LABS[int(lab)].files)}", said.getvalue())
        self.assertEqual(command.parse(["grade", "--lab", "5", "--module", "ann.c"]).module, Path("ann.c"))

    def test_only_these_are_graded(self) -> None:
        lab = replace(labs.load(6), tests=[test for test in labs.load(6).tests if test.exercise == "6.4"])
        report = grade(lab, Choice(7, module=self.folder / "boot.c", folder=self.folder / "results"), host)
        self.assertEqual((report.graded, report.score), ([], 0))

    def test_another_labs_file_name_is_no_scheduler(self) -> None:
        module = self.folder / "sched.c"
        with mock.patch.object(grading, "build_vmm") as build:
            BuiltPrograms(3, Choice(7, module=module), self.folder).vmm()
        self.assertEqual((build.call_args.kwargs["solution"], build.call_args.kwargs["module"]),
                         (False, module))

    def test_where_everything_is_kept(self) -> None:
        report = self.grade(SCRIPT, bad)
        save(report)
        folder = report.folder / "1.1-bad"
        self.assertEqual((folder / "run1.stdout").read_text(), "one two \n")
        self.assertEqual((folder / "expected").read_text(), "one\ttwo\n")

    def test_visible(self) -> None:
        self.assertEqual(visible("a b \t\x01\xff \n"), "a b →\\x01\\xff·⏎")
        self.assertEqual(visible("  "), "··")

    def test_long_texts_are_shown_where_they_differ(self) -> None:
        expected = "".join(f"line {n}\n" for n in range(1000))
        lines = beside(expected, expected.replace("line 700", "line seven hundred"))
        self.assertLess(len(lines), 25)
        self.assertTrue(any(line.startswith("!") and "seven hundred" in line for line in lines))


class Files(FakeCase):
    """The reports for machines."""

    def test_gradescope(self) -> None:
        report = self.grade(SCRIPT, good, bad)
        results = json.loads(json.dumps(gradescope(report)))
        self.assertEqual(results["score"], 10)
        self.assertEqual([(t["score"], t["max_score"], t["status"]) for t in results["tests"]],
                         [(10, 10, "passed"), (0, 10, "failed")])
        self.assertIn("use a tab", results["tests"][1]["output"])

    def test_junit(self) -> None:
        report = self.grade("printf 'a\\001b'; printf 'x\\033' >&2", good, bad)
        suite = ElementTree.fromstring(junit(report))[0]
        self.assertEqual((suite.get("tests"), suite.get("failures"), suite.get("errors")), ("2", "1", "0"))
        self.assertEqual([len(case) for case in suite], [0, 1])

    def test_autolab(self) -> None:
        self.assertEqual(json.loads(autolab([self.grade(SCRIPT, good, bad)])), {"scores": {"lab1": 10}})

    def test_results_of_another_grading_do_not_stay(self) -> None:
        report = self.grade(SCRIPT, good)
        write_files(report)
        with mock.patch("grader.quality.tests.fakes.host", side_effect=CannotGrade("", "")):
            with self.assertRaises(CannotGrade):
                self.grade(SCRIPT, good)
        self.assertFalse((report.folder / "results.json").exists())


class Status(FakeCase):
    """The exit status of the command."""

    def main(self, *arguments: str) -> tuple[int, str]:
        """Status and all that is printed."""
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            status = command.main(["grade", "--lab", "1", "--results", str(self.folder), *arguments])
        return status, text.getvalue()

    def test_without_kvm_there_is_no_score(self) -> None:
        error = CannotGrade("no /dev/kvm", "modprobe kvm")
        with mock.patch("grader.execution.backends.pick.pick_backend", side_effect=error):
            status, text = self.main("--solution")
        self.assertEqual(status, command.CANNOT_GRADE)
        self.assertIn("modprobe kvm", text)
        self.assertNotIn("Score", text)

    def test_a_missing_tool_gives_no_score(self) -> None:
        missing = mock.Mock(run=mock.Mock(side_effect=FileNotFoundError))
        with mock.patch("grader.core.guests.subprocess", missing):
            status, text = self.main("--solution")
        self.assertEqual(status, command.CANNOT_GRADE)
        self.assertIn("make is not installed", text)

    def test_the_kits_own_build_error_gives_no_score(self) -> None:
        error = BuildError("kit.c:1: error", learner=False)
        with mock.patch("grader.core.grading.build_unit", side_effect=error):
            status, text = self.main()
        self.assertEqual(status, command.CANNOT_GRADE)
        self.assertIn("kit.c:1", text)

    def test_a_program_of_the_learners_own_that_does_not_compile_is_no_score(self) -> None:
        error = BuildError("mine.c:1: error", learner=False, program="os-1k/user/mine.c")
        with mock.patch("grader.core.grading.build_unit", side_effect=error):
            status, text = self.main()
        self.assertEqual(status, command.CANNOT_GRADE)
        self.assertIn("os-1k/user/mine.c does not compile", text)
        self.assertIn("mine.c:1: error", text)
        self.assertNotIn("fresh clone", text)

    def test_the_learners_build_error_is_shown_and_scores_nothing(self) -> None:
        error = BuildError("vm.c:7: error: no", learner=True)
        with mock.patch("grader.core.grading.build_unit", side_effect=error):
            status, text = self.main()
        self.assertEqual(status, command.LESS)
        self.assertIn("vm.c:7: error: no", text)
        self.assertIn("Score: 0 of 100", text)
