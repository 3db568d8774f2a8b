"""The kit as a whole: what belongs together agrees, all of it compiles without a warning, and is in style."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unittest
from itertools import product
from pathlib import Path
from typing import ClassVar

from grader import labs
from grader.core.building import BuildError, build_vmm, make_text, unit_variables
from grader.course import BUILD, LABS, ROOT, Lab
from grader.commands.skeletons import drifts
from grader.core.exercises import handout_exercises, skeleton
from grader.execution.c_tools import FLAGS
from grader.execution.runs import CannotGrade

FLAKE8 = ["flake8", "--max-line-length", "110"]
MYPY = ["mypy", "--strict", "--no-error-summary", "--cache-dir", "build/mypy"]


def finished_labs() -> list[Lab]:
    """The labs whose VMM can be built: all modules up to their own have solutions."""
    finished = []
    for lab in LABS.values():
        if not lab.solution_files()[0].exists():
            break
        finished.append(lab)
    return finished


def dry_run(*words: str) -> str:
    """What make would do; an error where it can't."""
    done = subprocess.run(["make", "-n", "PYTHON=python3", *words], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise AssertionError(f"make {' '.join(words)}: {done.stdout}")
    return done.stdout


class Agreement(unittest.TestCase):
    def test_skeletons_solutions_handouts_and_graded_tests_agree(self) -> None:
        self.assertEqual(drifts(), [])

    def test_a_lab_has_100_points(self) -> None:
        for number in labs.NUMBERS:
            self.assertEqual(sum(test.points for test in labs.load(number).tests), 100)

    def test_every_command_in_the_list_exists(self) -> None:
        names = set(re.findall(r"^#:   make (\w[\w-]*)", (ROOT / "Makefile").read_text(), re.M))
        self.assertGreater(len(names), 8)
        for name in names:
            dry_run(name, "LAB=3")

    def test_handouts_exercises_are_in_order(self) -> None:
        for lab in LABS.values():
            found = handout_exercises(lab)
            self.assertEqual(found, sorted(found), lab.handout)


class Building(unittest.TestCase):
    fresh: ClassVar[set[Path]] = set()

    def shared(self, compiler: str) -> str:
        """A folder for the objects that several programs share; empty when it is first asked for."""
        folder = BUILD / "tests" / f"quiet-{compiler}"
        if folder not in self.fresh:
            shutil.rmtree(folder, ignore_errors=True)
            self.fresh.add(folder)
        return str(folder.relative_to(ROOT))

    def build(self, target: str, **variables: str) -> None:
        """A build in a fresh folder, which must say nothing but its path."""
        if not shutil.which(variables["CC"]):
            self.skipTest(f"{variables['CC']} is not installed")
        words = [variables[name] for name in ("LAB", "CC", "SOLUTION")]
        out = BUILD / "tests" / "-".join(["quiet", target, *words])
        shutil.rmtree(out, ignore_errors=True)
        text = make_text(target, {**variables, "OUT": str(out.relative_to(ROOT)),
                                  "SHARED": self.shared(variables["CC"])})
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn(f"{out.relative_to(ROOT)}/", text)

    def test_solutions_and_skeletons_compile_without_a_warning(self) -> None:
        for lab, compiler, solution in product(finished_labs(), ("gcc", "clang"), ("1", "")):
            with self.subTest(lab=lab.number, compiler=compiler, solution=solution):
                self.build("vmm", LAB=str(lab.number), CC=compiler, SOLUTION=solution)

    def test_graded_unit_programs_compile_without_a_warning(self) -> None:
        units = [(lab.number, lab.unit(Path(name).stem)) for lab in LABS.values() for name in lab.modules()]
        for (lab, unit), compiler in product(units, ("gcc", "clang")):
            with self.subTest(unit=unit.name, compiler=compiler):
                self.build("unit", LAB=str(lab), SOLUTION="1", CC=compiler, **unit_variables(lab, unit))

    def test_the_graders_own_programs_compile_without_a_warning(self) -> None:
        grader = ROOT / "grader"
        helpers = [*grader.glob("execution/**/*.c"), grader / "quality/tests/program.c"]
        for compiler in ("gcc", "clang"):
            guest = make_text("os-flags", {"CC": compiler}).split()
            commands = [([compiler, *FLAGS], path) for path in helpers]
            programs = (LABS[6].grading / "programs").glob("*.c")
            commands += [([*guest, "-Ios-1k/user"], path) for path in programs]
            for command, path in commands:
                with self.subTest(compiler=compiler, file=path.name):
                    done = subprocess.run([*command, "-c", "-o", "/dev/null", str(path)], cwd=ROOT, text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                    self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_counts_in_headers_are_signed(self) -> None:
        """With an unsigned COUNT the compilers warn of `for (int i = 0; i < COUNT; i++)`."""
        folders = [ROOT / folder for folder in ("common/contract", "os-1k/kernel", "os-1k/lib", "os-1k/user")]
        for header in [path for folder in folders for path in sorted(folder.glob("*.h"))]:
            names = re.findall(r"^#define ([A-Z]\w*) +[-(\w]", header.read_text(), re.M)
            text = f'#include "{header.name}"\n#include <stdint.h>\n' + "".join(
                f'_Static_assert(_Generic({name}, int: 1, default: {name} > INT32_MAX), "{name}");\n'
                for name in names)
            flags = [f"-I{folder}" for folder in folders]
            done = subprocess.run(["gcc", "-fsyntax-only", *flags, "-xc", "-"],
                                  input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            with self.subTest(header=header.name):
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_what_is_rebuilt(self) -> None:
        out = BUILD / "tests" / "changed-header"
        shutil.rmtree(out, ignore_errors=True)
        variables = {"LAB": "1", "SOLUTION": "1", "OUT": str(out.relative_to(ROOT)),
                     "SHARED": str((out / "shared").relative_to(ROOT))}

        def built() -> dict[str, int]:
            """When each object was made."""
            return {path.name: path.stat().st_mtime_ns for path in out.rglob("*.o")}

        make_text("vmm", variables)
        first = built()
        make_text("vmm", variables)
        self.assertEqual(built(), first)
        words = [f"{name}={value}" for name, value in variables.items()]
        subprocess.run(["make", "vmm", "-W", "common/contract/abi.h", *words],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for name in ("main.o", "exits.o", "vm.o"):
            self.assertGreater(built()[name], first[name])

        def plan() -> list[str]:
            """The commands of a build."""
            done = subprocess.run(["make", "-n", "vmm", *words], cwd=ROOT, check=True, text=True,
                                  stdout=subprocess.PIPE)
            return done.stdout.splitlines()

        self.assertEqual([line for line in plan() if " -c " in line or "flags" in line], [])
        for flags in out.rglob("flags"):
            flags.write_text("another command line\n")
        compiled = [line for line in plan() if " -c " in line]
        self.assertEqual(len(compiled), len(list((out / "shared").rglob("*.o"))))

    def test_a_folder_is_used_for_a_solution_and_for_an_older_file(self) -> None:
        out = BUILD / "tests" / "used-for-both"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        module = out / "mine.c"
        module.write_text(LABS[1].solution_files()[0].read_text() + 'const char mine[] = "this is mine";\n')
        os.utime(module, (0, 0))
        for given in (module, None, module, None):
            build_vmm(1, solution=given is None, module=given, out=out)
            self.assertEqual(b"this is mine" in (out / "lab1-vm.o").read_bytes(), given is not None)

    def broken(self, name: str, text: str) -> BuildError:
        """The error of lab 1's VMM with `text` as the learner's module."""
        path = BUILD / "tests" / f"broken-{name}.c"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        with self.assertRaises(BuildError) as caught:
            build_vmm(1, module=path)
        return caught.exception

    def test_a_learners_mistake_is_reported_as_theirs(self) -> None:
        solution = LABS[1].solution_files()[0].read_text()
        error = self.broken("syntax", "int x")
        self.assertTrue(error.learner)
        self.assertIn("broken-syntax.c:1:", error.text)
        error = self.broken("missing", solution.replace("int kvm_open(", "int kvm_opened("))
        self.assertTrue(error.learner)
        self.assertIn("kvm_open", error.text)

    def test_a_program_that_does_not_compile_is_named(self) -> None:
        folder = BUILD / "tests" / "broken-programs"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.c").write_text("int x")
        place = folder.relative_to(ROOT)
        names = {"PROGRAM_DIR": str(place), "OS_OUT": str(place / "out")}
        with self.assertRaises(BuildError) as caught:
            make_text("programs", names)
        self.assertEqual(caught.exception.program, f"{names['PROGRAM_DIR']}/mine.c")
        self.assertIn("mine.c:1:", caught.exception.text)

    def test_the_kits_mistakes_are_not_blamed_on_the_learner(self) -> None:
        with self.assertRaises(BuildError) as caught:
            build_vmm(1, solution=True, cc="false")
        self.assertFalse(caught.exception.learner or caught.exception.program)

    def test_a_missing_compiler_is_named(self) -> None:
        with self.assertRaises(CannotGrade) as caught:
            build_vmm(1, cc="gcc-99 -g3")
        self.assertEqual(caught.exception.reason, "CC=gcc-99 -g3: gcc-99 is not installed")

    def test_the_constants_for_nasm_are_those_for_c(self) -> None:
        make_text("build/abi.inc", {})
        nasm = dict(re.findall(r"^%define (\w+) (\S+)$", (BUILD / "abi.inc").read_text(), re.M))
        c = dict(re.findall(r"^#define (\w+)\s+(\S+)", (ROOT / "common/contract/abi.h").read_text(), re.M))
        self.assertEqual(nasm, c)
        self.assertEqual(nasm["HYPERCALL_PORT"], "0x500")

    def test_every_guest_assembles(self) -> None:
        make_text("guests", {})
        for source in (ROOT / "guests").glob("*.asm"):
            self.assertGreater((BUILD / "guests" / f"{source.stem}.bin").stat().st_size, 0)


class Style(unittest.TestCase):
    def run_tool(self, *command: str) -> None:
        if not shutil.which(command[0]):
            self.skipTest(f"{command[0]} is not installed")
        done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, "\n".join(done.stdout.splitlines()[:12]))

    def tracked(self, *patterns: str) -> list[str]:
        """The kit's files of these names."""
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT,
                                text=True, stdout=subprocess.PIPE, check=True).stdout
        return [name for name in listed.splitlines() if (ROOT / name).exists()]

    def test_the_top_level_is_fixed(self) -> None:
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               check=True).stdout.splitlines()
        self.assertEqual({name.partition("/")[0] for name in names if not name.startswith(".")},
                         {"LICENSE", "Makefile", "README.md", "common", "grader", "guests", "handouts",
                          "labs", "os-1k", "solutions"})

    def test_c_is_formatted(self) -> None:
        sources = [name for name in self.tracked("*.c", "*.h") if not name.startswith("labs/")]
        self.run_tool("clang-format", "--dry-run", "--Werror", *sources)

    def test_skeletons_are_formatted(self) -> None:
        for lab in finished_labs():
            for path in lab.solution_files():
                copy = BUILD / "tests" / "formatted" / path.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(skeleton(path.read_text(), path.name))
                self.run_tool("clang-format", "--dry-run", "--Werror", str(copy))

    def test_python_follows_the_conventions(self) -> None:
        older = "List|Dict|Tuple|Set|Type|Callable|Collection|Iterable|Iterator|Mapping|Sequence"
        for name in self.tracked("*.py"):
            text = (ROOT / name).read_text(encoding="utf-8")
            with self.subTest(file=name):
                self.assertNotRegex(text, rf"(?m)^from typing import .*\b({older})\b")

    def test_c_follows_the_conventions(self) -> None:
        """As handouts/CONTRIBUTING.md has it; macros need parentheses."""
        for name in self.tracked("*.c", "*.h"):
            text = re.sub(r"^#define (?:.*\\\n)*.*", "", (ROOT / name).read_text(), flags=re.M)
            with self.subTest(file=name):
                self.assertNotRegex(text, r"[!=]= NULL\b")
                self.assertNotRegex(text, r"\bsizeof\((?!struct |u?int|char|unsigned|Elf(32|64)_)")
                self.assertTrue(name.endswith(".c") or "#pragma once\n" in text)

    def test_python_is_clean(self) -> None:
        self.run_tool(*FLAKE8, *self.tracked("*.py"))

    def test_python_is_typed(self) -> None:
        # A lab's folder is not a package name, so mypy checks each tests.py separately.
        self.run_tool(*MYPY, "--exclude", "grader/labs/lab", "grader")
        for number in labs.NUMBERS:
            self.run_tool(*MYPY, str(LABS[number].grading / "tests.py"))

    def test_shell_is_clean(self) -> None:
        self.run_tool("shellcheck", *self.tracked("*.sh"), ".ci/run")


class Text(unittest.TestCase):
    def test_links_and_files_named_in_the_texts_exist(self) -> None:
        for path in [ROOT / "README.md", *sorted((ROOT / "handouts").glob("*.md"))]:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
                with self.subTest(text=path.name, link=link):
                    self.assertTrue((path.parent / link).exists())

    def test_every_package_is_explained(self) -> None:
        setup = (ROOT / "grader/setup.sh").read_text()
        readme = (ROOT / "handouts/reference/commands.md").read_text()
        for package in re.findall(r"^\s*(?:have \w+ >/dev/null \|\| )?need (\S+)", setup, re.M):
            self.assertIn(f"`{package}`", readme)


if __name__ == "__main__":
    unittest.main()
