"""What can be checked about the kernel and its programs without booting them."""

from __future__ import annotations

import re
import shutil
import subprocess
import unittest
from pathlib import Path

from grader.core.building import make_text
from grader.course import BUILD, LABS, ROOT

LINES_MAX = 1000
COMPILERS = ("gcc", "clang")

# Registers that the kernel does not initialise, and the instructions of the floating-point unit.
_FOREIGN = re.compile(r"%[xyz]?mm\d|%st\b|\tf(?:ld|st|add|mul|div|sub|init|xch)\w*\b")


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor all comment."""
    text = path.read_text()
    if path.suffix == ".asm":
        text = re.sub(r";[^\n]*", "", text)
    else:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return sum(bool(line.strip()) for line in text.splitlines())


def tool(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


class Size(unittest.TestCase):
    """A kernel for one evening."""

    def test_the_kernel_has_at_most_1000_lines(self) -> None:
        folder = ROOT / "os-1k" / "kernel"
        sources = [path for path in folder.iterdir() if path.suffix in (".c", ".h", ".asm")]
        [_, sched] = LABS[6].solution_files()
        if not sched.exists():
            self.skipTest("this kit has no solutions")
        self.assertLessEqual(sum(code_lines(path) for path in [*sources, sched]), LINES_MAX)


class Files(unittest.TestCase):
    """kernel.elf and the programs, by both compilers."""

    def build(self, compiler: str) -> list[Path]:
        if shutil.which(compiler) is None:
            self.skipTest(f"{compiler} is not installed")
        out = BUILD / f"os-1k-{compiler}"
        text = make_text("kernel", {"CC": compiler, "OS_OUT": str(out.relative_to(ROOT))})
        text += make_text("archive", {"CC": compiler, "OS_OUT": str(out.relative_to(ROOT))})
        self.assertNotIn("warning", text)
        names = [path.stem for path in (ROOT / "os-1k" / "user").glob("*.c")
                 if path.stem not in ("libc", "line_editor")]
        return [out / "kernel.elf", *(out / "user" / name for name in names)]

    def test_only_instructions_of_a_bare_i686(self) -> None:
        for compiler in COMPILERS:
            for path in self.build(compiler):
                found = _FOREIGN.search(tool("objdump", "-d", str(path)))
                self.assertIsNone(found, f"{path}: {found and found[0]}")

    def test_nothing_is_left_to_relocate(self) -> None:
        for compiler in COMPILERS:
            for path in self.build(compiler):
                self.assertIn("no relocations", tool("readelf", "-r", str(path)), path)

    def test_constants_are_loaded_and_nothing_is_writable_and_executable(self) -> None:
        for compiler in COMPILERS:
            for path in self.build(compiler):
                text = tool("readelf", "-lW", str(path))
                segments = re.findall(r"^  LOAD +(\S+) (\S+) (\S+) (\S+) (\S+) ([RWE ]{3})", text, re.M)
                sections = re.findall(r"^   \d+ +(.*)$", text, re.M)
                self.assertEqual(len(segments), 2, path)
                self.assertEqual([flags.replace(" ", "") for *_, flags in segments], ["RE", "RW"], path)
                self.assertIn(".text", sections[0])
                self.assertIn(".rodata", sections[0])
                if path.name == "kernel.elf":
                    for _, virt, phys, *_ in segments:
                        self.assertEqual(int(virt, 16) - int(phys, 16), 0x80000000)
                    self.assertEqual(int(segments[0][1], 16), 0x80100000)

    def test_the_symbol_table_is_right(self) -> None:
        kernel = self.build("gcc")[0]
        table = (kernel.parent / "kernel" / "kernel-symbols.c").read_text()
        told = dict(re.findall(r'{(0x[0-9a-f]+), "(\w+)"}', table))
        true = {f"0x{address}": name for address, name
                in re.findall(r"^([0-9a-f]{8}) [Tt] (\w+)$", tool("nm", "-n", str(kernel)), re.M)}
        self.assertGreater(len(true), 50)
        for address, name in true.items():
            self.assertEqual(told[address], "nowhere" if name == "kernel_text_end" else name)


if __name__ == "__main__":
    unittest.main()
