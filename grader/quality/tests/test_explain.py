"""`make explain`: guests that crash in one way each, and the chain of events that it must show."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

from grader.core.building import build_guests, build_os, build_vmm, clean_environment
from grader.core.exercises import skeleton
from grader.core.guests import write_constants
from grader.course import BUILD, LABS, ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Limits, Run
from grader.quality.tests.explain_guests import CASES, PAGING, REAL, Case
from grader.quality.tests.explain_guests_64 import CASES_64, END, LONG

try:
    import capstone  # type: ignore # noqa: F401
    from grader.commands.explain.__main__ import placer
    from grader.commands.explain.state import parse
    from grader.commands.explain.text import report
except ImportError:
    raise unittest.SkipTest("python3-capstone is not installed") from None

FOLDER = BUILD / "tests/explain"
ON_ANY_KVM = ("real-no-idt", "real-halted", "real-divide", "real-vector-empty")


# The first guest changes its own memory all the time. The second crashes meanwhile; what it then executes
# again began when that memory was another.
BESIDE_A_CRASH = {
    "keeps": """
    jmp short begin
value: dd 0                     ; at 2
crashes: dw 0                   ; at 6
begin:
    xor esi, esi
change:
    inc esi
    mov [value], esi
    cmp word [crashes], 1
    jne change
    mov ecx, 500                ; exits: at one of them it waits until that is over
again:
    call print_newline
    dec ecx
    jnz again
    mov bl, 'l'                 ; lost
    cmp [value], esi
    jne print
    mov bl, 'k'                 ; kept
print:
    call print_char
    mov bl, 0
    jmp exit
%include "console.inc"
""",
    "crashes": """
    xor ax, ax
    mov es, ax                  ; the first guest's window
wait_for_the_first:
    call print_newline
    cmp dword [es:2], 0
    je wait_for_the_first
    mov eax, [es:2]
    add eax, 1000               ; changes, however fast this machine is
wait_for_changes:
    cmp [es:2], eax
    jb wait_for_changes
    mov word [es:6], 1
    lidt [nothing]
    mov eax, cr0
    or al, 1                    ; CR0.PE
    mov cr0, eax
    ud2
nothing: times 6 db 0
%include "console.inc"
""",
}


def run_all(runs: "list[Run]", backend: str = "auto", kind: str = "paging32") -> "list[str]":
    """The standard error of each run; skips the test where the machine can't run them."""
    try:
        results = pick_backend(backend, needs=(kind,)).run(runs)
    except CannotGrade as error:
        raise unittest.SkipTest(str(error)) from error
    return [result.stderr.decode() or str(result) for result in results]


def explained(text: str, files: "list[Path]") -> str:
    """The reports on a VMM's standard error, with single spaces."""
    reports = [line for record in parse(text.splitlines())
               for line in report(record, placer(record, files))]
    return " ".join(" ".join(reports).split()) or text


def run_of(vmm: Path, *words: "str | Path") -> Run:
    return Run((str(vmm), "--explain", *map(str, words)),
               limits=Limits(output=64 << 20, spin=0, no_output=100, wall=120))


class Guests(unittest.TestCase):
    """Each guest is run by the finished VMM, crashes, and is explained."""

    def check(self, cases: "list[Case]", backend: str, kind: str, lab: int = 5) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_constants()
        vmm = build_vmm(lab, solution=True)
        images = [assembled(case) for case in cases]
        modes = {case.name: [] if case in CASES_64 else [f"--mode={'real' if case.real else 'paging'}"]
                 for case in cases}
        runs = [run_of(vmm, "--tick-ms=1000", *modes[case.name], *case.options, image)
                for case, image in zip(cases, images)]
        # Each interrupt makes the history shorter: so the first tick comes late, and no end of input.
        texts = run_all([replace(run, hold_stdin=True) for run in runs], backend, kind)
        for case, image, text in zip(cases, images, texts):
            found = explained(text, [image])
            for words in case.words:
                with self.subTest(case=case.name, words=words):
                    self.assertIn(words, found)

    def test_each_on_the_chosen_back_end(self) -> None:
        self.check(CASES, "auto", "paging32")

    def test_each_of_64_bits_in_the_lab_vm(self) -> None:
        self.check(CASES_64, "vm", "longmode", lab=7)

    def test_those_of_real_mode_on_this_machines_kvm(self) -> None:
        self.check([case for case in CASES if case.real and case.name in ON_ANY_KVM], "kvm", "interrupts")


class Machines(unittest.TestCase):
    """VMMs and guests of each kind."""

    def explain(self, vmm: Path, *words: "str | Path", kind: str = "paging32") -> str:
        files = [word for word in words if isinstance(word, Path)]
        text, = run_all([run_of(vmm, *words)], kind=kind)
        return explained(text, files)

    def test_a_guest_of_several(self) -> None:
        folder = build_guests()
        text = self.explain(build_vmm(3, solution=True), folder / "counter.bin",
                            folder / "triple-fault.bin")
        for words in ("of vcpu1, of 5 since", "; lidt [nothing]", "no entry 8: a third fault"):
            self.assertIn(words, text)

    def test_names_in_64_bit_guests(self) -> None:
        vmm, folder = build_vmm(7, solution=True), build_guests()
        kernel = folder / "kernel64.bin"
        symbols = subprocess.run(["nm", str(kernel)], stdout=subprocess.PIPE, text=True, check=True).stdout
        idt, = re.findall(r"(?m)^(\w+)\w{3} b idt$", symbols)
        for guest, options, words in ((folder / "long-broken.bin", (), "; mov [rdi], rdx"),
                                      (kernel, (f"--unmap=0x{idt}000",), "; kernel64: kernel_main+")):
            self.assertIn(words, self.explain(vmm, *options, guest, kind="longmode"))

    def test_each_of_several_that_crash(self) -> None:
        guest = build_guests() / "triple-fault.bin"
        text = self.explain(build_vmm(3, solution=True), "--isolate", guest, guest)
        for vcpu in (0, 1):
            self.assertRegex(text, rf"of vcpu{vcpu}, of \d since .* a third fault")

    def test_the_others_go_on_with_the_memory_that_they_had(self) -> None:
        write_constants()
        FOLDER.mkdir(parents=True, exist_ok=True)
        images = [assembled(Case(name, code, (), real=True)) for name, code in BESIDE_A_CRASH.items()]
        result, = pick_backend("auto", needs=("real",)).run([run_of(build_vmm(3, solution=True), *images)])
        self.assertIn("vcpu0: k", result.stdout.decode(), result)

    def test_the_sanitizers_find_nothing(self) -> None:
        folder = build_guests()
        names = ("no-handler", "triple-fault", "counter", "triple-fault")
        images = [folder / f"{name}.bin" for name in names]
        for sanitize in ("address,undefined", "thread"):
            text, = run_all([run_of(build_vmm(4, solution=True, sanitize=sanitize), *images)],
                            kind="interrupts")
            self.assertEqual(re.findall(r"(?m)^.*(?:Sanitizer|runtime error).*$", text), [])
            self.assertEqual({record.vcpu for record in parse(text.splitlines())}, {0, 1, 3})

    def test_a_vmm_that_is_half_written(self) -> None:
        solution = LABS[2].solution_files()[0]
        module = saved("hypercall.c", skeleton(solution.read_text(), solution.name))
        vmm, folder = build_vmm(2, module=module), build_guests()
        for guest, words in (("triple-fault", "no entry 8: a third fault"),
                             ("hello", "exercise 2.1 is not written yet")):
            self.assertIn(words, self.explain(vmm, folder / f"{guest}.bin", kind="real"))

    def test_less_ram_than_the_vmm_has_noted(self) -> None:
        module = changed(1, ".memory_size = ram_bytes", ".memory_size = 0x1000")
        text = self.explain(build_vmm(1, module=module), build_guests() / "segments.bin", kind="real")
        self.assertIn("of 1 since it was last entered: 0000:0000 push cs", text)

    def test_a_loop_that_takes_a_signal_for_an_error(self) -> None:
        module = changed(1, "errno == EINTR", "errno == EAGAIN")
        text = self.explain(build_vmm(1, module=module), build_guests() / "no-handler.bin", kind="real")
        for words in ("jmp 1 (63 times)", "KVM_RUN returned an error", "If it was EINTR, nothing is wrong"):
            self.assertIn(words, text)

    def test_a_program_of_the_os_that_hangs(self) -> None:
        kernel, archive = build_os()
        run = run_of(build_vmm(6, solution=True), f"--initrd={archive}", kernel)
        text, = run_all([replace(run, stdin=b"spin\n")])
        # The history begins with the handler of the last tick. How far beyond it depends on the load.
        self.assertRegex(explained(text, [kernel]), "it hangs, .* ; (spin|kernel: )")

    def test_the_learners_kernel(self) -> None:
        sched = changed(6, "    trap_stack_set((uint32_t)next->kernel_stack + PAGE_BYTES);\n", "")
        kernel, archive = build_os(sched, out=BUILD / "os-1k-learners")
        text = self.explain(build_vmm(6, solution=True), f"--initrd={archive}", kernel)
        for words in ("; shell", "TSS.esp0 is 0x", "TSS.esp0 must be set at each switch"):
            self.assertIn(words, text)


def saved(name: str, text: str) -> Path:
    """A module of the test's own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(text)
    return FOLDER / name


def changed(lab: int, old: str, new: str) -> Path:
    """A copy of the solution's latest file in which one thing is different."""
    solution = LABS[lab].solution_files()[-1]
    text = solution.read_text()
    assert text.count(old) == 1, old
    return saved(solution.name, text.replace(old, new))


def make(*words: str, stdin: str = "") -> str:
    """A command of the kit, as typed; what it prints."""
    done = subprocess.run(["make", "-s", *words], cwd=ROOT, env=clean_environment(), text=True, input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout


class Command(unittest.TestCase):
    """make explain, and who names it."""

    def test_guests_that_end_well(self) -> None:
        text = make("explain", "LAB=2", "SOLUTION=1", "GUESTS=echo", stdin="typed\n")
        self.assertIn("typed\n", text)
        self.assertIn("No guest crashed; the VMM ended with status 0.", text)

    def test_ctrl_c(self) -> None:
        command = [sys.executable, "-m", "grader.commands.explain", "--solution", "--guests=echo"]
        for lab in (2, 4):
            with self.subTest(lab=lab), subprocess.Popen(
                    [*command, f"--lab={lab}"], cwd=ROOT, text=True, start_new_session=True, bufsize=0,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdin and process.stdout
                process.stdin.write("typed\n")
                self.assertEqual(process.stdout.readline(), "typed\n")
                os.killpg(process.pid, signal.SIGINT)
                self.assertIn("No guest crashed; Ctrl-C has ended the VMM.", process.stdout.read())

    def test_the_learners_modules(self) -> None:
        solution, target = LABS[1].solution_files()[0], LABS[1].learner_files()[0]
        if target.read_text() != skeleton(solution.read_text(), solution.name):
            self.skipTest(f"{target.name} is not a skeleton any more")
        for words in (["LAB=1"], ["LAB=5", "FROM=mine"], ["LAB=2", "FROM=1"]):
            self.assertIn("exercise 1.1 is not written yet", make("explain", *words, "GUESTS=minimal"))

    def test_the_command_of_a_post_mortem_explains_it(self) -> None:
        text = make("run", "LAB=5", "SOLUTION=1", "GUESTS=pages", "ARGS=--mode=paging --unmap=0x200000")
        command = re.search(r"the chain of events: make (.+)\n", text)
        assert command, text
        self.assertEqual(command[1], 'explain LAB=5 SOLUTION=1 GUESTS="build/guests/pages.bin" '
                                     'ARGS="--mode=paging --unmap=0x200000"')
        text = make(*shlex.split(command[1]))
        for words in ("vmm: vcpu0 (build/guests/pages.bin) crashed: shutdown", "; mov eax, [edi + OFFSET]",
                      "reading 0x00200000"):
            self.assertIn(words, text)


def assembled(case: Case) -> Path:
    """The guest's image."""
    source, image = FOLDER / f"{case.name}.asm", FOLDER / f"{case.name}.bin"
    before, after = (LONG, END) if case in CASES_64 else (REAL if case.real else PAGING, "\n")
    source.write_text(before + case.code + after)
    subprocess.run(["nasm", "-f", "bin", f"-I{BUILD}/", "-Iguests/", str(source), "-o", str(image)],
                   check=True, cwd=ROOT)
    return image
