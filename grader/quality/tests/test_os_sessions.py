"""Sessions at the 1K OS's console: every menu entry, wrong input, attacks, and what it refuses to boot.

All of them go to the back end in one batch; then each test checks its own.
"""

from __future__ import annotations

import random
import re
import signal
import struct
import tarfile
import unicodedata
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from grader.execution.backends import pick_backend
from grader.core.building import build_os, build_vmm, make_text
from grader.course import BUILD, LABS, ROOT
from grader.core.os_image import archive_with, finished_os
from grader.execution.runs import CannotGrade, Limits, Result, Run, Step, Terminal

LIMITS = Limits(wall=400.0, no_output=200.0, spin=0)
PROMPT = b"1k> "
FOLDER = BUILD / "tests" / "os-1k"

PRIMES = ("2 3 5 7 11 13 17 19 23 29\n31 37 41 43 47 53 59 61 67 71\n73 79 83 89 97\n"
          "Total: 25 primes\n")
FACTORIALS = [1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600]
FIBONACCI = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]

# Attack by attack, what the console must say of it.
PRIVILEGED = "general protection fault (only the kernel may do this)"
ATTACKS = {
    **{f"{way}-kernel": f"{what} 0x80100000: the kernel's memory"
       for way, what in (("read", "read of"), ("write", "write to"), ("jump", "read of"))},
    "read-null": "read of 0x00000000: no memory is there",
    "write-null": "write to 0x00000008: no memory is there",
    "jump-null": "instruction 0x00000000, read of 0x00000000: no memory is there",
    "write-text": "write to 0x00400000: read-only memory",
    "read-top": "read of 0xfffffffc: the kernel's memory",
    "stack-overflow": "stack overflow",
    "lost-stack": "the kernel's memory",
    "divide": "division by zero or overflow",
    "single-step": "debug exception",
    "invalid": "invalid instruction",
    "floating-point": "floating-point instruction",
    "sse": "in",  # an invalid or a floating-point instruction: both are right
    **{name: PRIVILEGED for name in (
        "halt", "clear-interrupts", "set-interrupts", "port-out", "port-out-low", "port-in", "string-out",
        "load-cr3", "read-cr0", "load-gdt", "load-idt", "load-task", "kernel-data", "kernel-code",
        "timer-vector", "page-fault-vector", "breakpoint", "read-msr", "raise-privilege")},
}
HARMLESS = ("direction", "nested-task", "kernel-ebp")

PANIC_MARK = "void process_release(struct process *process)\n{\n"


def script(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode("latin-1")


EMPTY_PROGRAM = '#include "libc.h"\n\nint main(const char *argument)\n{\n    return 0;\n}\n'


def archived(programs: Path) -> list[str]:
    """The programs in the archive that is made of a folder of sources."""
    variables = {name: str(path.relative_to(ROOT))
                 for name, path in (("PROGRAM_DIR", programs), ("OS_OUT", programs / "out"))}
    archive = ROOT / make_text("archive", variables).splitlines()[-1]
    with tarfile.open(archive) as files:
        return sorted(name for name in files.getnames() if not name.endswith(".txt"))


def screen(output: bytes) -> str:
    """The lines that a terminal shows after this output, however they came about."""
    lines: list[list[str]] = [[]]
    column = 0
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|.", output.decode(), re.S):
        line = lines[-1]
        if part == "\n":
            lines.append([])
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\b":
            column -= 1
        elif part == "\x1b[K":
            del line[column:]
        elif part == "\x1b[H" or part == "\x1b[2J":
            lines[:], column = [[]], 0
        else:
            wide = unicodedata.east_asian_width(part) in "WF"
            line += [" "] * (column - len(line))
            line[column:column + 1 + wide] = [part, ""] if wide else [part]
            column += 1 + wide
    return "".join("".join(line) + "\n" for line in lines)


class Sessions(unittest.TestCase):
    """All sessions; see sessions() for what each one is."""

    results: ClassVar[dict[str, Result]] = {}

    @classmethod
    def setUpClass(cls) -> None:
        if not LABS[6].solution_files()[1].exists():
            raise unittest.SkipTest("this kit has no solutions")
        try:
            backend = pick_backend("auto", needs=("paging32",))
            runs = sessions()
            cls.results = dict(zip(runs, backend.run(list(runs.values()), jobs=1)))
        except CannotGrade as error:
            raise unittest.SkipTest(f"nothing here runs 32-bit paging: {error}") from error

    def text(self, name: str, status: int = 0) -> str:
        """The session's console; it must have ended as it should."""
        result = self.results[name]
        text = result.stdout.decode("latin-1")
        self.assertEqual(result.status, status, f"{result}\n{text}\n{result.stderr.decode()}")
        return text

    def screen(self, name: str) -> str:
        """What the session's terminal shows at its end."""
        self.text(name)
        return screen(self.results[name].stdout)

    def check_in_order(self, text: str, parts: list[str]) -> None:
        """Each part comes after the one before; a prompt at the end of one may begin the next."""
        at = 0
        for part in parts:
            found = text.find(part, at)
            self.assertGreaterEqual(found, 0, f"{part!r} is not after {text[max(0, at - 300):at]!r} in "
                                              f"{text[at:at + 1000]!r}")
            at = found + len(part.removesuffix("1k> "))

    def test_every_entry_of_the_menu(self) -> None:
        rows = "\n".join("".join("   ".join(f"{a} x {b} = {a * b:2}" for a in columns) + "\n"
                                 for b in range(1, 10)) for columns in (range(2, 6), range(6, 10)))
        self.check_in_order(self.text("menu"), [
            f"1k> 1\n{rows}1k> ",
            "1k> 2\n" + "".join(f"{n}\n" for n in range(10)) + "1k> ",
            "1k> 3\nSay something; q ends.\n> hello\nhello\n> \n\n> q\n1k> ",
            "1k> 4\nThe 1K OS: a kernel", "This program is pid 5, ", " pages of memory are free.\n1k> ",
            "1k> 5\n" + "".join(f"F({n}) = {number}\n" for n, number in enumerate(FIBONACCI)) + "1k> ",
            f"1k> 6\n{PRIMES}1k> ",
            "1k> 7\n", "int 0x80", "1k> ",
            "1k> 8\n" + "".join(f"{n}! = {number}\n" for n, number in enumerate(FACTORIALS)) +
            "13! does not fit: 32 bits hold at most 4294967295\n1k> ",
            "1k> 9\nFirst number: 48\nSecond number: 18\nGCD(48, 18) = 6\n1k> ",
            "1k> gcd\nFirst number: x\n'x' is not a number from 0 to 4294967295.\n"
            "First number: 4294967296\n'4294967296' is not a number from 0 to 4294967295.\n"
            "First number: 4294967295\nSecond number: 0\nGCD(4294967295, 0) = 4294967295\n1k> ",
            "1k> gcd 12 18\nGCD(12, 18) = 6\n1k> ",
            "1k> gcd 12\ngcd takes two numbers, or none and asks for them.\n",
            "1k> gcd 12 18 24\ngcd takes two numbers, or none and asks for them.\n",
            "1k> gcd 12 x\n'x' is not a number from 0 to 4294967295.\n",
            "1k> 0\nGoodbye.\n"])

    def test_commands_and_wrong_input(self) -> None:
        text = self.screen("wrong")
        self.check_in_order(text, [
            "1k> ls\n", " shell\n", " table\n", " about.txt\n", " welcome.txt\n",
            "1k> cat welcome.txt\nThis file lies in a ustar archive",
            "1k> cat\ncat: which file? ls lists them\n",
            "1k> cat nowhere\ncat: nowhere: not found\n",
            "1k> cat nowhere welcome.txt about.txt\ncat: nowhere: not found\nThis file lies in",
            "The 1K OS: a kernel of at most",
            "1k> cat utf-8.txt\nGrüße, 世界.\n", f"1k> cat long.txt\n{'a' * 511}ü\n",
            "1k> cat binary\n.ELF.[2J...end\n",
            "1k> kill\nkill: which process? ps lists them\n",
            "1k> kill shell\nkill: 'shell' is not a process number; ps lists them\n",
            "1k> kill 0\nkill: idle and the shell can't be killed\n",
            "1k> kill 1\nkill: idle and the shell can't be killed\n",
            "1k> kill 4294967295\nkill: there is no process 4294967295; ps lists them\n",
            "1k> ps\n  PID PARENT STATE      TICKS NAME\n    0      0 ready ", " idle\n    1      0 ready",
            " shell\n",
            " pages free\n1k> ",
            "1k> \n1k> ", "1k>    \n1k> ",
            "1k> 99\nThere is no program or command '99'; help shows the menu.\n",
            "1k> about.txt\nabout.txt can't be run: not a program.\n",
            "1k> " + "x" * 75 + f"\nThere is no program or command '{'x' * 127}'",
            "1k> abc\nThere is no program or command 'abc'; help shows the menu.\n",
            "1k> &\n1k> ",
            "1k> counter &\n", "counter runs in the background, pid ",
            "echo runs in the background, pid ",  # its line may have been interrupted by the counter
            "1k> help\n\n  1  table ", "kill PID  ends a process\n", "Tab       completes a name\n"])
        for line in text.splitlines():
            self.assertTrue(line.isprintable(), repr(line))
        for line in text.partition("1k> help\n")[2].splitlines():
            self.assertLess(len(line), 80)

    def test_editing_at_a_terminal(self) -> None:
        result = self.results["terminal"]
        self.assertTrue(result.terminal_restored)
        self.check_in_order(self.screen("terminal"), [
            "1k> echo wrong\nwrong\n1k> ",
            "1k> echo new\nnew\n1k> ",
            "1k> half a line^C\n1k> echo whole\nwhole\n1k> ",
            "1k> 2\n0\n", "^C\n1k> ",
            "1k> spin\nspinning\n^C\n1k> ",
            "1k> 3\nSay something; q ends.\n> ^C\n1k> ",
            "1k> echo resized\nresized\n1k> ",
            "1k> 0\nGoodbye.\n"])

    def test_each_editing_key(self) -> None:
        text = self.screen("editing")
        for _, shown, printed in EDITED:
            self.check_in_order(text, [f"\n1k> {shown}\n{printed}\n1k> "])
            text = text[text.index(f"\n1k> {shown}\n{printed}\n1k> ") + 1:]

    def test_tab_completes_names(self) -> None:
        self.check_in_order(self.screen("tab"), [
            "1k> gcd 8 12\nGCD(8, 12) = 4\n",
            "1k> cat welcome.txt \nThis file lies in",
            "1k> f\nfactorial  fault  fibonacci  family  full-table  \n1k> fibonacci \nF(0) = 0\n",
            "1k> cat we\nwelcome.txt  west.txt  \n1k> cat west.txt \nfar\n",
            "1k> echo nothing begins with zzz\nnothing begins with zzz\n",
            "1k> 3\nSay something; q ends.\n> gcd\ngcd\n"])

    def test_output_of_a_background_program_does_not_tear_the_line(self) -> None:
        text = self.screen("background")
        self.check_in_order(text, [
            "1k> nap 700 &\n", "slept 700\n1k> echo typed around\ntyped around\n"])
        self.assertNotIn("> slept", text)
        self.assertNotIn("1k> \n", text)
        self.check_in_order(text, [
            "1k> fault &\n", "was killed: page fault", "1k> spin &\n", "spinning\n", "1k> kill 5\n",
            "pid 5 was killed\n1k> ps\n", " shell\n"])
        self.assertNotIn(" spin\n", text.partition("1k> ps\n")[2])

    def test_a_program_joins_and_leaves_the_archive_with_its_file(self) -> None:
        with TemporaryDirectory(dir=BUILD) as name:
            folder = Path(name)
            for program in ("stays", "goes"):
                (folder / f"{program}.c").write_text(EMPTY_PROGRAM)
            self.assertEqual(archived(folder), ["goes", "stays"])
            (folder / "goes.c").unlink()
            self.assertEqual(archived(folder), ["stays"])
            (folder / "comes.c").write_text(EMPTY_PROGRAM)
            self.assertEqual(archived(folder), ["comes", "stays"])

    def test_a_paste_of_2_kb_loses_nothing(self) -> None:
        self.check_in_order(self.text("paste"),
                            [f"\n{word}\n1k> " for word in PASTED])

    def test_the_end_of_input_ends_the_system(self) -> None:
        self.check_in_order(self.text("end"), ["1k> echo last words\nlast words\n1k> \nGoodbye.\n"])
        self.check_in_order(self.text("end-in-echo"), ["> one\none\n> \n1k> \nGoodbye.\n"])
        self.check_in_order(self.text("end-at-once"), ["1k> \nGoodbye.\n"])

    def test_attacks_end_only_the_attacker(self) -> None:
        text = self.text("attacks")
        for name, words in ATTACKS.items():
            found = re.search(rf"^1k> attack {name}\n\n(attack \(pid \d+\) was killed: .*)\n1k> ", text, re.M)
            self.assertIsNotNone(found, f"{name} is not answered in {text}")
            assert found
            self.assertIn(words, found[1], name)
        for name in HARMLESS:
            self.assertIn(f"1k> attack {name}\n{name} came through\n1k> ", text)
        self.assertRegex(text, r"(\d+) of \1 bad pointers refused\n")
        self.check_in_order(text, ["calls -1 -1 -1\n", "names -3 -7 -7\n", "files -3 0 -4\n",
                                   "places -3 -3\n", "waits -3 -3 -3\n",
                                   "13 programs more, then: too many processes\n",
                                   "0 left, 0 pages lost\n"])
        free = re.findall(r"^(\d+) pages free$", text, re.M)
        self.assertEqual(free[0], free[-1])

    def test_2000_programs_lose_no_page(self) -> None:
        self.assertIn("2000 programs, 0 pages lost\n", self.text("stress"))

    def test_three_computing_programs_and_a_shell(self) -> None:
        self.check_in_order(self.text("race"), [
            *["idle leaves them the time\n0 gets on\n1 gets on\n2 gets on\n"] * 2, "the race is over\n",
            "1k> echo still here\nstill here\n1k> ", "1k> 0\nGoodbye.\n"])

    def test_random_keys_end_in_no_panic(self) -> None:
        text = self.results["keys"].stdout.decode("latin-1")
        self.assertIn(self.results["keys"].status, (0, 1), text[-2000:])
        self.assertNotIn("panic", text)
        self.assertTrue(text.endswith("Goodbye.\n"), text[-500:])

    def test_little_memory(self) -> None:
        self.assertRegex(self.text("little"),
                         r"\d+ programs more, then: out of memory\n(slept 300\n)*0 left, 0 pages lost\n")

    def test_damaged_archives_are_rejected_with_a_message(self) -> None:
        for name, words in REFUSED.items():
            self.assertIn(f"1K OS can't start: {words}", self.text(f"refused {name}", 61))

    def test_killing_the_shell_is_a_panic(self) -> None:
        self.assertIn("1K OS panic: the shell was killed: invalid instruction", self.text("faulty-shell", 62))

    def test_a_hung_guest_is_left_by_its_key(self) -> None:
        self.text("hung", 128 + signal.SIGINT)
        self.assertTrue(self.results["hung"].terminal_restored)

    def test_a_panic_names_functions(self) -> None:
        text = self.text("panic", 62)
        self.assertRegex(text, r"1K OS panic: page fault \(vector 14, error code \d\)\n"
                         r"in process \d+ \(\w+\)\n"
                               r"eax [0-9a-f]{8}  ebx ")
        self.assertIn("cr2 00000010", text)
        trace = re.findall(r"^  0x[0-9a-f]{8} (\w+)\+\d+$", text, re.M)
        self.assertEqual(trace[0], "process_release")
        self.assertIn("call_wait", trace)


# What is typed, what the terminal then shows after the prompt, and what the line prints.
LEFT, RIGHT, UP, DOWN, DELETE = "\x1b[D", "\x1b[C", "\x1b[A", "\x1b[B", "\x1b[3~"
EDITED = [
    (f"echo ac{LEFT}b", "echo abc", "abc"),
    ("cho home\x01e", "echo home", "home"),
    ("cho line\x1b[He\x05s", "echo lines", "lines"),
    (f"echo end{LEFT * 2}\x1b[F.", "echo end.", "end."),
    (f"echo\x1bOH\x1bOF{LEFT}{RIGHT} keypad", "echo keypad", "keypad"),
    (f"echo dxelete{LEFT * 6}{DELETE}", "echo delete", "delete"),
    (f"echo dyelete{LEFT * 6}\x04", "echo delete", "delete"),
    ("nonsense" + LEFT * 4 + "\x15\x0becho cut", "echo cut", "cut"),
    ("echo one two\x17three", "echo one three", "one three"),
    ("echo \x1besc", "echo esc", "esc"),
    ("echo \x1bOK, \x1b[24~F12 \x1b[1;5Cright", "echo OK, F12 right", "OK, F12 right"),
    (f"{UP}{UP}", "echo esc", "esc"),
    (f"echo kept{UP}{UP}{DOWN}{DOWN}", "echo kept", "kept"),
    (f"{DOWN}{UP}\x7f\x7ft again", "echo ket again", "ket again"),
    ("echo Grüße\x7f\x7f\x7fü", "echo Grü", "Grü"),
    (f"echo 世界{LEFT}的", "echo 世的界", "世的界"),
    ("echo \udcc3(\udcff\udcc2\udc9bvalid", "echo (valid", "(valid"),
    ("echo " + "0123456789" * 8 + LEFT * 80 + "<" + "\x05>", "6789" + "0123456789" * 7 + ">",
     "<" + "0123456789" * 8 + ">"),
]

PASTED = [f"pasted{number:04}" for number in range(130)]

REFUSED = {
    "checksum": "the archive is damaged: a header's checksum is wrong",
    "truncated": "the archive is damaged: it ends inside a file",
    "no-end": "the archive is damaged: its end is missing",
    "huge": "the archive is damaged: it ends inside a file",
    "text": "the archive is damaged: not a ustar archive",
    "no-shell": "the archive has no shell that can be started (error -3)",
    "bad-shell": "the archive has no shell that can be started (error -4)",
}


def damaged(name: str, archive: bytes) -> bytes:
    """An archive with one fault."""
    content = bytearray(archive)
    if name == "checksum":
        content[0] ^= 1
    elif name == "truncated":
        del content[1000:]
    elif name == "no-end":
        del content[512 + (int(content[124:135], 8) + 511) // 512 * 512:]
    elif name == "huge":
        content[124:135] = b"37777777777"
        content[148:156] = b" " * 8
        content[148:155] = b"%06o\0" % sum(content[:512])
    elif name == "text":
        content[:] = b"Not an archive. " * 1000
    elif name == "no-shell":
        content[:] = bytes(1024)
    elif name == "bad-shell":
        header = bytearray(content[:512])
        header[:100] = b"shell".ljust(100, b"\0")
        header[124:135] = b"%011o" % 512
        header[148:156] = b" " * 8
        header[148:155] = b"%06o\0" % sum(header)
        content[:] = header + b"no program".ljust(512) + bytes(1024)
    return bytes(content)


def with_faulty_shell(archive: bytes) -> bytes:
    """The same, but the shell's first instruction is ud2."""
    content = bytearray(archive)
    shell = next(at for at in range(0, len(content), 512) if content[at:at + 6] == b"shell\0") + 512
    [entry] = struct.unpack_from("<I", content, shell + 24)
    [headers] = struct.unpack_from("<I", content, shell + 28)
    offset, virt = struct.unpack_from("<II", content, shell + headers + 4)
    first = shell + offset + entry - virt
    content[first:first + 2] = b"\x0f\x0b"
    return bytes(content)


def broken_kernel(name: str, instructions: str) -> Path:
    """A kernel whose process_release begins with these instructions."""
    [_, sched] = LABS[6].solution_files()
    text = sched.read_text()
    assert PANIC_MARK in text
    broken = FOLDER / name / "sched.c"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text(text.replace(PANIC_MARK, PANIC_MARK + f'    asm volatile("{instructions}");\n'))
    kernel, _ = build_os(broken, out=BUILD / f"os-1k-{name}")
    return kernel


def keys(count: int) -> bytes:
    """Random keys: bytes of all kinds, and the words that make things happen."""
    values = random.Random(1)
    words = [b"1\n", b"3\n", b"5 &\n", b"9\n", b"q\n", b"ls\n", b"ps\n", b"cat shell\n", b"naps 100 50 &\n",
             b"nap 200 &\n", b"attack divide\n", b"\x03", b"\x15", b"\x7f", b"\x1b[A", b"\n", b"stress 5\n"]
    typed = bytearray(b"spin &\n")
    while len(typed) < count:
        typed += values.choice(words) if values.random() < 0.4 else bytes([values.randrange(256)])
    return bytes(typed).replace(b"\x04", b"").replace(b"\x1d", b"") + b"\x03\n\x03\n"


def typed(keys_: str) -> bytes:
    """Keys as a terminal sends them; surrogates stand for bytes that are not UTF-8."""
    return keys_.encode("utf-8", "surrogateescape")


def sessions() -> dict[str, Run]:
    """All runs by name."""
    vmm = str(build_vmm(6, solution=True))
    kernel, user_archive = finished_os()
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = FOLDER / "archive.tar"
    archive.write_bytes(archive_with({"utf-8.txt": "Grüße, 世界.\n".encode(), "west.txt": b"far\n",
                                      "long.txt": ("a" * 511 + "ü\n").encode(),
                                      "binary": b"\x7fELF\x1b[2J\xff\xc2\x9bend\n"}))

    def boot(stdin: bytes = b"", *, tick: int = 50, initrd: Path = archive, image: Path = kernel,
             options: tuple[str, ...] = (), **keywords: object) -> Run:
        argv = (vmm, f"--initrd={initrd}", f"--tick-ms={tick}", *options, str(image))
        return Run(argv, stdin=stdin, limits=LIMITS, **keywords)  # type: ignore[arg-type]

    runs = {
        "menu": boot(script("1", "2", "3", "hello", "", "q", "4", "5", "6", "7", "8", "9", "48", "18",
                            "gcd", "x", "4294967296", "4294967295", "0",
                            "gcd 12 18", "gcd 12", "gcd 12 18 24", "gcd 12 x", "0")),
        "wrong": boot(script("ls", "cat welcome.txt", "cat", "cat nowhere",
                             "cat nowhere welcome.txt about.txt",
                             "cat utf-8.txt", "cat long.txt", "cat binary",
                             "kill", "kill shell", "kill 0", "kill 1", "kill 4294967295",
                             "ps", "", "   ", "99",
                             "about.txt",
                             "x" * 500, "a\x1e\x1fb\x07\x1b[Zc\xff", "&", "counter &", "echo &", "nap 3000",
                             "help", "0")),
        "paste": boot(b"".join(b"echo %s\n" % word.encode() for word in PASTED) + b"0\n"),
        "end": boot(b"echo last words"),
        "end-in-echo": boot(b"3\none\n"),
        "end-at-once": boot(b""),
        "attacks": boot(script("attack divide", "ps", *(f"attack {name}" for name in (*ATTACKS, *HARMLESS)),
                               "attack bad-pointers", "attack bad-numbers", "full-table", "ps", "0")),
        "stress": boot(script("stress 2000", "0")),
        "race": boot(script("race", "echo still here", "0")),
        "keys": boot(keys(500), tick=20),
        "little": boot(script("full-table", "0"), options=("--mem=1536K",)),
        "panic": boot(script("1"), image=broken_kernel("panic", "movl $1, 0x10")),
    }
    for name in REFUSED:
        path = FOLDER / f"{name}.tar"
        path.write_bytes(damaged(name, user_archive.read_bytes()))
        runs[f"refused {name}"] = boot(initrd=path)

    faulty = FOLDER / "faulty-shell.tar"
    faulty.write_bytes(with_faulty_shell(user_archive.read_bytes()))
    runs["faulty-shell"] = boot(initrd=faulty)

    def type_in(after: bytes, typed: bytes) -> Step:
        return Step(after=after, send=typed)

    runs["hung"] = boot(terminal=Terminal(), image=broken_kernel("hung", "1: jmp 1b"), steps=(
        type_in(PROMPT, b"7\r"),
        type_in(b"\\___)=(___/\r\n", b"\x03"),
        type_in(b"", b"\x1d")))
    runs["editing"] = boot(terminal=Terminal(), steps=(
        *(type_in(PROMPT if number == 0 else f"{EDITED[number - 1][2]}\r\n1k> ".encode(), typed(line + "\r"))
          for number, (line, _, _) in enumerate(EDITED)),
        type_in(f"{EDITED[-1][2]}\r\n1k> ".encode(), b"0\r")))
    runs["tab"] = boot(terminal=Terminal(), steps=(
        type_in(PROMPT, b"gc\t8 12\r"),
        type_in(b"= 4\r\n1k> ", b"cat wel\t\r"),
        type_in(b"ps.\r\n1k> ", b"f\t"),
        type_in(b"full-table  \r\n1k> f", b"i\t\r"),
        type_in(b"= 89\r\n1k> ", b"cat w\t\t"),
        type_in(b"west.txt  \r\n1k> cat we", b"s\t\r"),
        type_in(b"far\r\n1k> ", b"echo nothing begins with zzz\t\r"),
        type_in(b"zzz\r\n1k> ", b"3\r"),
        type_in(b"ends.\r\n> ", b"gc\td\r"),
        type_in(b"gcd\r\n> ", b"q\r"),
        type_in(b"1k> ", b"0\r")))
    runs["background"] = boot(terminal=Terminal(), steps=(
        type_in(PROMPT, b"nap 700 &\r"),
        type_in(b"pid 2\r\n1k> ", b"echo typed"),
        type_in(b"slept 700\r\n1k> echo typed", b" around\r"),
        type_in(b"typed around\r\n", b"fault &\r"),
        type_in(b"kernel's memory", b"spin &\r"),
        type_in(b"spinning", b"kill 5\r"),
        type_in(b"was killed\r\n1k> ", b"ps\r"),
        type_in(b"pages free\r\n1k> ", b"0\r")))

    runs["terminal"] = boot(terminal=Terminal(), steps=(
        type_in(PROMPT, b"echo wrogn\x7f\x7fng\r"),
        type_in(b"wrong\r\n1k> ", b"nonsense\x15echo new\r"),
        type_in(b"new\r\n1k> ", b"half a line\x03"),
        type_in(b"^C\r\n1k> ", b"echo whole\r"),
        type_in(b"whole\r\n1k> ", b"2\r"),
        type_in(b"0\r\n1\r\n", b"\x03"),
        type_in(b"^C\r\n1k> ", b"spin\r"),
        type_in(b"spinning\r\n", b"\x03"),
        type_in(b"^C\r\n1k> ", b"3\r"),
        type_in(b"ends.\r\n> ", b"\x03"),
        Step(after=b"^C\r\n1k> ", resize=(40, 100)),
        type_in(b"", b"echo resized\r"),
        type_in(b"resized\r\n1k> ", b"0\r")))
    return runs


if __name__ == "__main__":
    unittest.main()
