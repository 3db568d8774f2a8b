"""The jail in which an untrusted file is compiled and linked: nothing in it can read this machine's files,
and only the files that are asked for leave it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

from grader.__main__ import module_path, parse
from grader.core import building, jailed_make
from grader.core.building import BuildError, build_kernel_unit, build_unit, build_vmm
from grader.core.jailed_make import JailedError, _kit, _shared_objects
from grader.core.strange_files import FILE_MAX, HEADERS_MAX
from grader.course import BUILD, LABS, ROOT
from grader.execution import jail
from grader.execution.jail import run_jailed
from grader.execution.labvm.pack import files_needed, pack_like, twin_of
from grader.execution.runs import CannotGrade, Ending, Result, Run
from grader.execution.toolchain import toolchain_files

LAB = LABS[2]
SOLUTION = LAB.solution_files()[0].read_text()
SECRET = "the-instructors-secret"


class JailCase(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "secret").write_text(SECRET)
        patch = mock.patch.object(building, "_jailed", True)
        patch.start()
        self.addCleanup(patch.stop)

    def build(self, text: str) -> Path:
        (self.folder / "hypercall.c").write_text(text)
        try:
            return build_vmm(2, module=self.folder / "hypercall.c")
        except CannotGrade as error:
            if "the solution does not build" in error.reason:
                raise
            self.skipTest(error.reason)

    def refused(self, text: str) -> str:
        with self.assertRaises(BuildError) as caught:
            self.build(text)
        self.assertTrue(caught.exception.learner)
        self.assertNotIn(SECRET, caught.exception.text)
        return caught.exception.text


class Closed(JailCase):
    def run_command(self, command: str) -> str:
        try:
            result = run_jailed(command, {"given": (b"", 0.0)}, {})
        except CannotGrade as error:
            self.skipTest(error.reason)
        return (result.stdout + result.stderr).decode()

    @unittest.skipUnless(jail.namespaces_work(), "this machine has no namespaces for the jail")
    def test_what_is_there(self) -> None:
        self.assertEqual(self.run_command("echo *"), "given\n")
        found = self.run_command("echo /* /tmp/* /etc/* /dev/*").split()
        given = ("/bin /lib /lib32 /lib64 /libx32 /usr /kit /out /tmp /dev /etc /tmp/* /etc/alternatives "
                 "/dev/null")
        self.assertLessEqual(set(found), set(given.split()))

    @unittest.skipUnless(jail.namespaces_work(), "this machine has no namespaces for the jail")
    def test_no_way_to_privileges(self) -> None:
        for command in ("unshare --user --map-root-user true", "mount -t tmpfs x /tmp",
                        "/usr/sbin/chroot / true", "touch /usr/x"):
            with self.subTest(command=command):
                self.assertEqual(self.run_command(f"{command} 2> /dev/null && echo done"), "")

    def test_a_link_as_result_is_not_followed(self) -> None:
        for target in ("/etc/passwd", "/proc/self/environ", str(self.folder / "secret")):
            result = run_jailed(f'ln -s {target} "$RESULTS/link"; echo a > "$RESULTS/file"', {}, {},
                                ["link", "file"])
            self.assertEqual(result.files.get("link", b""), b"")
            self.assertEqual(result.files.get("file"), b"a\n")


class Building(JailCase):
    def test_a_right_module(self) -> None:
        program = self.build(SOLUTION)
        self.assertTrue(program.is_relative_to(BUILD / "jailed"))
        self.assertEqual(program.read_bytes()[:4], b"\x7fELF")

    def test_another_grading_keeps_its_own_program(self) -> None:
        program = self.build(SOLUTION)
        before = program.read_bytes()
        (self.folder / "other").mkdir()
        (self.folder / "other/hypercall.c").write_text(f"{SOLUTION}\nint of_another;\n")
        code = ("import sys; from pathlib import Path; from grader.core import building; "
                "building.use_jail(); "
                "print(building.build_vmm(2, module=Path(sys.argv[1])).read_bytes().hex())")
        done = subprocess.run([sys.executable, "-c", code, self.folder / "other/hypercall.c"], cwd=ROOT,
                              env=building.clean_environment(), stdout=subprocess.PIPE, check=True)
        self.assertNotEqual(bytes.fromhex(done.stdout.decode()), before)
        self.assertEqual(program.read_bytes(), before)

    def test_the_kits_own_program_is_in_no_folder_of_learners(self) -> None:
        # Somebody may work on the lab in the same clone while a class is graded.
        program = self.build(SOLUTION)
        before = Path(twin_of(str(program))).read_bytes()
        with mock.patch.object(building, "_jailed", False):
            build_vmm(2, cc="gcc")
        self.assertEqual(Path(twin_of(str(program))).read_bytes(), before)

    def test_builds_that_write_to_one_folder_wait_for_each_other(self) -> None:
        same: list[list[tuple[str, dict[str, str]]]] = [
            [("vmm", {"LAB": "2"}), ("unit", {"LAB": "2", "UNIT": "a.c", "UNIT_WRAPS": "malloc"})],
            [("vmm", {"LAB": "2", "OUT": "x"}), ("vmm", {"LAB": "2", "OUT": "x", "SANITIZE": "thread"})],
            [("kernel", {}), ("archive", {}), ("kernel", {"SCHED": "sched.c"})],
            [("kernel", {"OS_OUT": "x/y"}), ("kernel-unit", {"OS_OUT": "x/y", "KERNEL_UNIT": "a.c"})],
            [("vmm", {"LAB": "2", "SOLUTION": "1"})], [("guests", {})]]
        locks = [{building._lock(target, variables) for target, variables in builds} for builds in same]
        self.assertEqual([len(each) for each in locks], [1] * len(same))
        self.assertEqual(len(set().union(*locks)), len(same))

    def test_two_jails_make_all_programs_of_the_same_files(self) -> None:
        one, other = f"{SOLUTION}\nint of_one;\n", f"{SOLUTION}\nint of_another;\n"
        with mock.patch.object(jailed_make, "run_jailed", side_effect=run_jailed) as jails:
            program = self.build(one)
            unit = build_unit(2, LAB.unit("hypercall"), module=self.folder / "hypercall.c")
            self.assertEqual(jails.call_count, 2)
            first = program.read_bytes()
            self.assertNotEqual(unit.read_bytes(), first)
            self.assertNotEqual(self.build(other).read_bytes(), first)
            self.assertEqual(self.build(one).read_bytes(), first)
            self.assertEqual(jails.call_count, 6)

    def test_a_strange_file_is_compiled_beside_headers_and_nothing_else(self) -> None:
        self.build(SOLUTION)                 # so that all objects are there
        for line in (f'#include "grader/labs/{LAB.folder}/units/hypercall.c"',
                     '#include "common/core/main.c"',
                     f'__asm__(".incbin \\"build/objects/gcc/solutions/{LABS[1].folder}/vm.o\\"");',
                     '__asm__(".incbin \\"build/vmm/lab2-solution/lab1.o\\"");'):
            with self.subTest(line=line):
                self.assertRegex(self.refused(f"{SOLUTION}\n{line}\n"), "No such file|file not found")
        kinds = {Path(name).suffix or name for name in jailed_make._files(jailed_make.HEADERS)}
        self.assertEqual(kinds, {"Makefile", ".mk", ".h"})

    def test_what_is_linked_is_an_object(self) -> None:
        made = Result(Ending.EXIT, 0, files={"lab2-hypercall.o": b"INPUT(build/abi.inc)"})
        with mock.patch.object(jailed_make, "run_jailed", return_value=made) as jails, \
                self.assertRaises(CannotGrade):
            self.build(f"{SOLUTION}\nint of_a_third;\n")
        self.assertEqual([call.args[0][:12] for call in jails.call_args_list], ["make -j2 bui"] * 2)

    def test_unit_programs_and_kernels(self) -> None:
        module, sched = LABS[6].solution_files()
        unit = build_unit(6, LABS[6].unit("boot"), module=module)
        kernel = build_kernel_unit(sched, out=BUILD / "tests" / "jailed-kernel")
        for program in (unit, kernel):
            self.assertEqual(program.read_bytes()[:4], b"\x7fELF")

    def test_files_of_this_machine(self) -> None:
        for path in ("/etc/passwd", "/proc/self/environ", str(self.folder / "secret"),
                     str(ROOT / "README.md"),
                     f"../../solutions/{LAB.folder}/{LAB.files[0]}"):
            for text in ('#include "%s"', '__asm__(".incbin \\"%s\\"");',
                         '__asm__(".include \\"%s\\"");'):
                with self.subTest(path=path, text=text):
                    self.refused(f"{SOLUTION}\n{text % path}\n")

    def test_bytecode_for_the_linker(self) -> None:
        inner = self.folder / "inner.c"
        inner.write_text('__attribute__((used)) void f(void) { __asm__(".include \\"%s\\""); }\n'
                         % (self.folder / "secret"))
        done = subprocess.run(["gcc", "-O2", "-flto", "-S", str(inner), "-o", "-"], stdout=subprocess.PIPE,
                              text=True)
        if done.returncode != 0:
            self.skipTest("no gcc with link-time optimisation")
        bytecode = [line for line in done.stdout.splitlines() if ".file" not in line]
        written = self.folder / "written"
        options = ['.section .gnu.lto_.opts,\\"e\\",@progbits',
                   f".string \\\"'-Xassembler' '-aln={written}'\\\""]
        for lines in ([self.quoted(line) for line in bytecode], options):
            with self.subTest(lines=lines[:1]):
                text = "\n".join(f'"{line}\\n"' for line in [*lines, ".text"])
                self.refused(f"{SOLUTION}\n__asm__({text});\n")
                self.assertFalse(written.exists())

    def quoted(self, line: str) -> str:
        return line.replace("\\", "\\\\").replace('"', '\\"')

    def test_the_learners_own_headers(self) -> None:
        text = '#include "helper.h"\nint of_helper = HELPER;\n' + SOLUTION
        self.assertIn("helper.h", self.refused(text))
        (self.folder / "helper.h").write_text("#define HELPER 1\n")
        self.build(text)

    def test_an_endless_file(self) -> None:
        self.refused(SOLUTION + '\n__asm__(".data\\n.space 3000000000\\n.text");\n')

    def test_the_compilers_messages_reach_the_learner(self) -> None:
        self.assertIn(f"{LAB.folder}/{LAB.files[0]}:1:", self.refused("int x"))

    def test_this_labs_solution_is_not_inside(self) -> None:
        with mock.patch.object(building, "_jailed", False):
            built = build_vmm(2, solution=True).parent
        inside = _kit(2, built, _shared_objects("gcc", ""))
        self.assertIn("build/objects/gcc/solutions/lab1-real-mode/vm.o", inside)
        linked = ("lab2.o", "lab2-whole.o", "lab2.sum", "vmm", "unit-hypercall")
        wrong = [name for name in inside if f"solutions/{LAB.folder}" in name
                 or name.startswith("build/vmm/") and os.path.basename(name) in linked]
        self.assertEqual(wrong, [])

    def test_nor_is_that_of_the_labs_other_file(self) -> None:
        module = self.folder / "devices.c"
        module.write_text(f'{LABS[8].solution_files()[0].read_text()}\n#include "linux.c"\n')
        with self.assertRaises(BuildError) as caught:
            build_vmm(8, module=module)
        self.assertIn("linux.c: No such file", caught.exception.text)

    def test_only_what_this_build_needs_is_inside(self) -> None:
        for sanitize in ("", "address,undefined"):
            with mock.patch.object(building, "_jailed", False):
                built = build_vmm(2, solution=True, sanitize=sanitize).parent
            inside = _kit(2, built, _shared_objects("gcc", sanitize))
            folders = {name.split("/")[2] for name in inside if name.startswith("build/objects/")}
            self.assertEqual(folders, {"gcc-address+undefined" if sanitize else "gcc"})

    def test_only_the_strange_file_is_compiled_inside(self) -> None:
        self.build(SOLUTION)
        files = _kit(2, BUILD / "vmm/lab2-solution", _shared_objects("", ""))
        files = {**files, f"labs/{LAB.folder}/{LAB.files[0]}": (SOLUTION.encode(), 0.0)}
        made = run_jailed('make vmm LAB=2 OUT=build/vmm/lab2-solution PROGRESS=1', files, {})
        steps = re.findall(r"^: (\S+)", made.stdout.decode(), re.M)
        self.assertEqual(steps, ["lab2-hypercall.o", "vmm"])

    def test_in_the_lab_vm(self) -> None:
        with mock.patch.object(jail, "namespaces_work", return_value=False):
            self.assertEqual(self.build(f"{SOLUTION}/* there */\n").read_bytes()[:4], b"\x7fELF")
            unit = build_unit(2, LAB.unit("hypercall"), module=self.folder / "hypercall.c")
            self.assertEqual(unit.read_bytes()[:4], b"\x7fELF")
            said = self.refused(f'{SOLUTION}\n#include "{self.folder}/secret"\n')
        self.assertIn("No such file", said)


class InTheLabVm(JailCase):
    def test_the_other_kinds_of_programs(self) -> None:
        """A kernel, and a VMM with headers that the compiler does not find at once."""
        with mock.patch.object(jail, "namespaces_work", return_value=False):
            kernel = build_kernel_unit(LABS[6].solution_files()[1], out=BUILD / "tests" / "jailed-kernel")
            vmm = build_vmm(8, module=LABS[8].solution_files()[1])
        for program in (kernel, vmm):
            self.assertEqual(program.read_bytes()[:4], b"\x7fELF")

    def test_it_has_each_header_of_the_kit(self) -> None:
        """By the compiler's own words."""
        sources = [path for lab in LABS.values() for path in lab.solution_files() if path.name != lab.kernel]
        sources += [*ROOT.glob("common/*/*.c"), *ROOT.glob("grader/labs/*/units/*.c")]
        read = subprocess.run(["gcc", "-M", "-Icommon/contract", "-Icommon", "-Ios-1k/kernel", "-Ios-1k/lib",
                               *sources], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        headers = set(re.findall(r"(/usr/\S+\.h)\b", read))
        self.assertTrue(headers)
        given = {os.path.realpath(path) for path in toolchain_files("gcc")}
        self.assertEqual({os.path.realpath(path) for path in headers} - given, set())

    def test_a_compiler_of_several_words(self) -> None:
        self.assertEqual(toolchain_files("gcc -g3"), toolchain_files("gcc"))

    def test_a_missing_compiler(self) -> None:
        with tempfile.TemporaryDirectory() as name, \
                mock.patch.object(jail, "namespaces_work", return_value=False):
            other = Path(name) / "cc"
            other.write_text("#!/bin/sh\necho another compiler, whatever its name is\n")
            other.chmod(0o755)
            for cc in (str(other), f"{other} -g3", "no-such-compiler"):
                with self.subTest(cc=cc), self.assertRaises(CannotGrade) as caught:
                    run_jailed("true", {}, {"CC": cc})
                self.assertIn(f"CC={cc}: where user namespaces are forbidden", caught.exception.reason)
                self.assertIn("leave CC out", caught.exception.fix)


class Strangers(JailCase):
    """`make grade MODULE=`."""

    def test_a_module_is_compiled_in_the_jail(self) -> None:
        module = self.folder / "hypercall.c"
        module.write_text(f'#include "{self.folder}/secret"\n{SOLUTION}')
        done = subprocess.run(["make", "grade", "LAB=2", "T=2.1", f"MODULE={module}"], cwd=ROOT, text=True,
                              env=building.clean_environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertIn("No such file or directory", done.stdout)
        self.assertNotIn(SECRET, done.stdout)

    def test_it_is_read_like_a_submission(self) -> None:
        given, module = self.folder / "given.c", self.folder / "hypercall.c"
        given.write_text(SOLUTION)
        module.symlink_to(given)
        with self.assertRaises(CannotGrade) as caught:
            build_vmm(2, module=module)
        self.assertIn("is a link", caught.exception.reason)
        given.write_text("\n" * (FILE_MAX + 1))
        with self.assertRaises(CannotGrade) as caught:
            build_vmm(2, module=given)
        self.assertIn("has more than 256 KB", caught.exception.reason)

    def test_headers_are_read_like_a_submissions(self) -> None:
        module, outside = self.folder / "hypercall.c", self.folder / "outside"
        outside.write_text("")
        (self.folder / "link.h").symlink_to(outside)
        os.mkfifo(self.folder / "pipe.h")
        (self.folder / "folder.h").mkdir()
        (self.folder / "empty.h").write_text("")
        with open(self.folder / "large.h", "wb") as file:
            file.truncate(FILE_MAX + 1)
        module.write_text(f'#include "empty.h"\n{SOLUTION}')
        with mock.patch.object(building, "jailed_make", side_effect=JailedError) as made, \
                self.assertRaises(BuildError):
            build_vmm(2, module=module)
        learner = made.call_args.args[2]
        self.assertEqual(sorted(map(os.path.basename, learner)), ["empty.h", "hypercall.c"])
        for number in range(HEADERS_MAX):
            (self.folder / f"{number}.h").write_text("")
        with self.assertRaises(CannotGrade) as caught:
            build_vmm(2, module=module)
        self.assertIn("more than 100 headers", caught.exception.reason)

    def test_it_runs_in_the_lab_vm_and_nowhere_else(self) -> None:
        given = ["grade", "--lab", "2", "--jailed"]
        for backend in ("auto", "vm", ""):
            self.assertEqual(parse([*given, "--backend", backend]).backend, "vm")
        for refused, why in ((["--backend", "kvm"], "leave out BACKEND=kvm"),
                             (["--sanitize", "address"], "leave out SANITIZE")):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
                parse([*given, *refused])
            self.assertIn(why, said.getvalue())

    def test_a_name_that_can_not_be_shown_is_refused(self) -> None:
        for name in ("a\x1b.c", "a\udc9b.c", "a\u202e.c", "a\u2028.c"):
            with self.assertRaises(ArgumentTypeError):
                module_path(name)
        self.assertEqual(module_path("José/vm.c"), Path("José/vm.c"))

    def test_with_earlier_modules_that_are_the_learners(self) -> None:
        (self.folder / "hypercall.c").write_text(SOLUTION)
        self.assertTrue(build_vmm(2, source="1", module=self.folder / "hypercall.c").exists())


class Limited(JailCase):
    """A build that a limit has stopped is the learner's fault only if the solution builds under it."""

    ENDLESS = '\n#if __INCLUDE_LEVEL__ < 150\n#include "hypercall.c"\n#include "hypercall.c"\n#endif\n'

    def stopped_by(self, text: str = ENDLESS, **limits: object) -> Exception:
        with contextlib.ExitStack() as patches:
            for name, value in limits.items():
                patches.enter_context(mock.patch.object(jail, name, value))
            (self.folder / "hypercall.c").write_text(text)
            with self.assertRaises((BuildError, CannotGrade)) as caught:
                build_vmm(2, module=self.folder / "hypercall.c")
        return caught.exception

    @unittest.skipUnless(jail.namespaces_work(), "this machine has no namespaces for the jail")
    def test_a_source_that_takes_more_than_the_solution(self) -> None:
        error = self.stopped_by(LIMITS=replace(jail.LIMITS, processor=8))
        assert isinstance(error, BuildError), error
        self.assertTrue(error.learner)
        self.assertIn("used too much processor time", error.text)

    @unittest.skipUnless(jail.namespaces_work(), "this machine has no namespaces for the jail")
    def test_a_limit_that_the_solution_hits_too(self) -> None:
        little = replace(jail.LIMITS, memory=1 << 20)
        error = self.stopped_by(LIMITS=little)
        assert isinstance(error, CannotGrade), error
        self.assertIn("the solution does not build", error.reason)

    def test_a_source_that_writes_a_machines_message(self) -> None:
        for text in ('__asm__(".text\\n call \\"internal compiler error\\"\\n");',
                     '__attribute__((error("x\\ncc1: internal compiler error: Killed"))) void f(void);\n'
                     'void g(void) { f(); }'):
            with self.subTest(text=text):
                error = self.stopped_by(f"{SOLUTION}\n{text}\n")
                assert isinstance(error, BuildError), error
                self.assertTrue(error.learner)
                self.assertIn("internal compiler error", error.text)

    def test_a_build_that_failed_only_once(self) -> None:
        (self.folder / "hypercall.c").write_text(SOLUTION)
        failed = Result(Ending.EXIT, 2, stderr=b"gcc: fatal error: Killed signal terminated program cc1")
        built = Result(Ending.EXIT, 0, files={"vmm": b"\x7fELF", "unit-hypercall": b""})
        with mock.patch.object(jailed_make, "run_jailed", side_effect=[failed, built, built]):
            program = build_vmm(2, module=self.folder / "hypercall.c")
        self.assertEqual(program.read_bytes(), b"\x7fELF")

    def test_a_wall_clock_timeout_is_the_machines_fault_if_the_solution_has_it_too(self) -> None:
        built = Result(Ending.EXIT, 0, files={"vmm": b"\x7fELF", "unit-hypercall": b""})
        for ending in (Ending.TIMEOUT, Ending.NO_OUTPUT, Ending.MACHINE):
            with mock.patch.object(jailed_make, "run_jailed", return_value=Result(ending)):
                self.assertIsInstance(self.stopped_by(), CannotGrade)
        stopped = Result(Ending.TIMEOUT)
        with mock.patch.object(jailed_make, "run_jailed", side_effect=[stopped, built, stopped]):
            self.assertIsInstance(self.stopped_by(), BuildError)


class Packing(JailCase):
    def test_a_strange_program_names_no_files(self) -> None:
        program = self.folder / "program"
        program.write_bytes(b"#!/etc/passwd " + os.fsencode(self.folder / "secret") + b"\n")
        pack_like(program, Path(shutil.which("true") or "/bin/true"))
        for run in (Run((str(program),)), Run(("/bin/true", str(program)))):
            needed = set(files_needed(run))
            self.assertIn(str(program), needed)
            self.assertFalse(needed & {"/etc/passwd", str(self.folder / "secret")})


if __name__ == "__main__":
    unittest.main()
