"""Lab 6, the 1K OS: its loader with the finished kernel, its scheduler on the finished VMM.

The functions of sched.c are tried one by one first, by a kernel that is the test (units/sched.c):
so each exercise can be graded before the next one is written. Then whole sessions: the kernel runs programs
of the grader's own from an archive of the grader's own. Its console is what is judged; input is a script of
shell lines, each of which the shell echoes. What decides a test are lines with the numbers of
grader/core/line_code.py: only a program that ran in ring 3 can have printed them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from grader.core.expectations import Condition, Mismatch, kernel_panic
from grader.core.framework import Lab
from grader.core.line_code import USER, LineCode
from grader.core.os_image import archive_with, finished_os
from grader.core.outcome import STATUS_CRASHED, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.runs import Limits

lab = Lab(6, "the 1K OS", needs=("paging32",))

# Bytes of RAM, and about where the kernel ends in it.
RAM_MIN, KERNEL_END = 4 << 20, 0x10a000
# What units/sched.c prints, as the kernel's headers have it: FLAGS are IF and the bit that is always one.
PROGRAM_MIN, STACK_TOP = 0x00400000, 0x7ffff000
FLAGS = 0x202
IDLE_PID, SHELL_PID = 0, 1
NOT_FOUND = -3                  # ERROR_NOT_FOUND
UNSET = -99                     # a status that process_wait has not set
PLACES = 15                     # of the table of processes, without idle's
UNUSED, READY, BLOCKED, SLEEPING, ENDED = range(5)
LONGEST_SEEN = 100              # ticks of the longest sleep
HALTS_MIN = 8                   # of 30 or more: where the host is late, a tick comes before the HLT
EVEN, ODD = 5, 6                # wait for the one reason or for the other
STATES = {READY: "ready", BLOCKED: "blocked", SLEEPING: "sleeping", ENDED: "ended"}

STATUS_PANIC = 62
STATUS_GUEST_FILE = 65
PROMPT = "1k> "

# The longest silence of a right system is that of a program that sleeps: 3.5 seconds. A system that
# hangs costs each test that long.
SESSION = Limits(wall=120.0, no_output=30.0)
# The unit kernel prints a few lines.
UNIT = Limits(wall=60.0, no_output=30.0)
# Where time does not matter, few ticks: they alone keep a slow machine busy.
SLOW_TICK = "--tick-ms=50"
# Where each tick disturbs: as many as are needed to see that they do no harm.
SLOWEST_TICK = "--tick-ms=1000"


def _script(*lines: str) -> bytes:
    return "".join(line + "\n" for line in (*lines, "0")).encode()


def _boot_vmm(plan: Plan, *lines: str, args: Sequence[str] = (), files: dict[str, bytes] | None = None,
              ) -> tuple[Planned, LineCode]:
    """The learner's VMM with the finished kernel, and the code of its programs' lines."""
    kernel, _ = finished_os()
    code = LineCode(plan.values, USER)
    archive = plan.file("archive.tar", archive_with(files, code))
    run = plan.boot(kernel, args=[f"--initrd={archive}", *args], stdin=_script(*lines), limits=SESSION)
    _vmm_symptoms(run)
    return run, code


def _boot_kernel(plan: Plan, *lines: str, tick: str = SLOW_TICK, pages_free: int = 0,
                 args: Sequence[str] = ()) -> tuple[Planned, LineCode]:
    """The finished VMM with the learner's kernel, and the code of its programs' lines. `pages_free`: about so
    many at the start, because the archive takes up the rest of 4 MB; or 0: as many as there are."""
    code = LineCode(plan.values, USER)
    content = archive_with(code=code)
    args = [tick, *args]
    if pages_free:
        others = bytes(RAM_MIN - KERNEL_END - len(content) - (pages_free << 12))
        content = archive_with({"others": others}, code)
        args.append(f"--mem={RAM_MIN >> 20}M")
    archive = plan.file(f"archive-{pages_free}.tar", content)
    run = plan.boot_kernel(args=[f"--initrd={archive}", *args], stdin=_script(*lines), limits=SESSION)
    _kernel_symptoms(run)
    return run, code


def _kernel_unit(plan: Plan, case: str, given: Sequence[int], *facts: str) -> None:
    """One test of units/sched.c: the numbers that it is given, and the lines that it must print."""
    run = plan.kernel_unit(case, given, facts, limits=UNIT)
    run.symptom(lambda o: "schedule gave the processor" in o.stdout,
                "Which processes may schedule choose? Only those that are PROCESS_READY; and idle, if no "
                "other is ready.")
    run.symptom(lambda o: o.hung and plan.test.exercise == "6.5",
                f"This test is about: {plan.test.hint} A function of sched.c did not come back: does it wait "
                "in a loop? process_block and process_sleep set the state, then call schedule once. Somebody "
                "else makes the process ready, and no tick comes while interrupts are off.")
    run.symptom(lambda o: o.hung, plan.test.hint)


def _answers(*parts: str) -> Condition:
    """After the first prompt the console shows these texts in this order; between them may be more."""
    def condition(outcome: Outcome) -> Mismatch | None:
        at = outcome.stdout.find(PROMPT)
        if at < 0:
            return Mismatch("the shell's prompt never came" + kernel_panic(outcome), PROMPT, outcome.stdout)
        for part in parts:
            found = outcome.stdout.find(part, at)
            if found < 0:
                return Mismatch(f"the console does not show {part!r} where it should" + kernel_panic(outcome),
                                part, outcome.stdout[at:])
            at = found + len(part)
        return None
    return condition


def _shows_all(*parts: str) -> Condition:
    """Each of these texts is somewhere on the console."""
    def condition(outcome: Outcome) -> Mismatch | None:
        for part in parts:
            if part not in outcome.stdout:
                return Mismatch(f"the console does not show {part!r}" + kernel_panic(outcome), part,
                                outcome.stdout)
        return None
    return condition


def _halts(outcome: Outcome) -> Mismatch | None:
    """The processor halts while all processes sleep: the VMM counts that, not the kernel."""
    found = re.search(r"^vcpu0: status .*; KVM_EXIT_HLT (\d+)", outcome.stderr, re.M)
    count = int(found[1]) if found else 0
    if count >= HALTS_MIN:
        return None
    return Mismatch(f"all processes slept for 30 ticks or more, and the guest executed HLT {count} times: "
                    "while no process is ready, schedule chooses idle, which halts")


# ---------------------------------------------------------------- 6.1 load an ELF file

def _loader_unit(plan: Plan, case: str) -> Planned:
    """One test of elf_load in units/boot.c. The test's own hint is for what none of these symptoms shows."""
    run = plan.unit("boot", case)
    run.symptom(lambda o: "right file" in o.stdout,
                "Which of your checks rejects a valid file? The message ends with elf_load's own. Compare "
                "that check with the list in 6.1: a range may end exactly at its limit, and an address or an "
                "offset need not be aligned.")
    run.symptom(lambda o: "Received signal" in o.stdout,
                f"This test is about: {plan.test.hint} The module crashed: which number passed the checks "
                "and is then used as an address or a size? A sum can wrap around in 32 bits, and so can a "
                "difference whose second number is the larger one. Only p_filesz bytes come from the file. "
                "The command below with SANITIZE=address,undefined names the line.")
    return run


@lab.test("6.1", "loads each segment at its physical address", points=3,
          hint="Which bytes of the file go where? For each PT_LOAD segment, p_filesz bytes from p_offset on "
               "go to physical address p_paddr.")
def loads(plan: Plan) -> None:
    _loader_unit(plan, "loads").symptom(
        lambda o: "no PT_LOAD" in o.stdout,
        "How much memory does each segment change? p_filesz bytes from the file and the zeros up to "
        "p_memsz, from p_paddr on; neither its start nor its end need be a page boundary. Other entries of "
        "the table, which are not PT_LOAD, change nothing.")


@lab.test("6.1", "zeroes memory past the file data of a segment", points=3,
          hint="Which bytes of a segment does the file not have, and where does the kernel end? Those from "
               "p_filesz to p_memsz are zero: clear them (memset). *end is the highest end of all segments "
               "in memory.")
def zeros(plan: Plan) -> None:
    _loader_unit(plan, "zeros")


@lab.test("6.1", "rejects files of another type", points=3,
          hint="Which fields say what kind of file this is (man 5 elf)? Check e_ident, e_type, e_machine, "
               "e_phnum and e_phentsize before you use anything else.")
def wrong_files(plan: Plan) -> None:
    _loader_unit(plan, "wrong_files")


@lab.test("6.1", "rejects truncated files", points=3,
          hint="Does the file have all the bytes that its headers promise? Check the program headers, which "
               "start at e_phoff, and each segment's bytes: in 32 bits the sum of offset and size can wrap "
               "around.")
def cut_files(plan: Plan) -> None:
    _loader_unit(plan, "cut_files")


@lab.test("6.1", "rejects segments outside memory", points=3,
          hint="Which physical addresses may a segment have? Those from LOAD_MIN on, up to memory_bytes; "
               "compute its end in 64 bits.")
def wrong_places(plan: Plan) -> None:
    _loader_unit(plan, "wrong_places")


@lab.test("6.1", "rejects virtual addresses that will not lead to the segment", points=1,
          hint="Which virtual addresses does the start state map to a physical one (5.2)? The same, and the "
               "one that is HIGHER_HALF above: p_vaddr must be one of these two.")
def wrong_addresses(plan: Plan) -> None:
    _loader_unit(plan, "wrong_addresses")


@lab.test("6.1", "rejects overlapping segments", points=2,
          hint="When do two ranges of memory overlap? If each begins before the other one's end. A segment "
               "is p_memsz bytes long in memory.")
def overlap(plan: Plan) -> None:
    _loader_unit(plan, "overlap")


@lab.test("6.1", "rejects an entry point outside the code", points=2,
          hint="Which addresses may e_entry have? It must be in a PT_LOAD segment with PF_X, which is, from "
               "p_vaddr on, p_memsz long. It may end where the 32-bit addresses do: the sum of both is then "
               "0 in 32 bits.")
def wrong_entry(plan: Plan) -> None:
    _loader_unit(plan, "wrong_entry")


# ---------------------------------------------------------------- 6.2 archive and boot information

@lab.test("6.2", "loads the archive after the kernel", points=4,
          hint="Where does the kernel end in memory (elf_load's *end)? The archive goes to the first page "
               "boundary at or after that; its address and length go into the boot information.")
def archive_place(plan: Plan) -> None:
    plan.unit("boot", "archive_place")


@lab.test("6.2", "passes the memory size and the tick", points=4,
          hint="Where does each field come from, and where does the structure go? memory_bytes is the "
               "space's size, tick_ms comes from the options; all of it goes to BOOT_INFO_OFFSET.")
def boot_information(plan: Plan) -> None:
    plan.unit("boot", "boot_information")


@lab.test("6.2", "reports a missing archive to the kernel", points=2,
          hint="What do archive_start and archive_bytes hold without --initrd? 0: archive_load must set "
               "both, because nothing else has given them a value.")
def no_archive(plan: Plan) -> None:
    plan.unit("boot", "no_archive")


@lab.test("6.2", "rejects an archive that does not fit", points=2,
          hint="How much memory is left for the archive? Count from the archive's first page to the end of "
               "the memory; with that as its limit, file_read rejects a larger file itself.")
def large_archive(plan: Plan) -> None:
    plan.unit("boot", "archive_room")
    kernel, _ = finished_os()
    large = plan.file("large.tar", bytes(2 << 20))
    for size in ("2M", "3M"):
        run = plan.boot(kernel, args=[f"--initrd={large}", f"--mem={size}"], limits=SESSION)
        run.exits(STATUS_GUEST_FILE)
        run.must(_mentions("large.tar"))
    missing = plan.boot(kernel, args=["--initrd=nowhere/missing.tar"], limits=SESSION)
    missing.exits(STATUS_GUEST_FILE)
    missing.must(_mentions("missing.tar"))


@lab.test("6.2", "passes the archive to the kernel", points=3,
          hint="Where are the archive's bytes? The kernel looks for its files at archive_start: all of them "
               "must be there.")
def archive(plan: Plan) -> None:
    text = plan.values.text(plan.values.randint(20, 200)) + "\n"
    megabytes, tick = plan.values.randint(5, 60), plan.values.randint(20, 90)
    word = plan.values.word()
    run, code = _boot_vmm(plan, "cat secret.txt", f"say {word}",
                          args=[f"--mem={megabytes}M", f"--tick-ms={tick}"],
                          files={"secret.txt": text.encode()})
    run.must(_shows_all(f"1K OS: {megabytes * 1024} KB of memory", f"a tick every {tick} ms"),
             "memory_bytes is the space's size, tick_ms is options->tick_ms.")
    run.must(_answers("cat secret.txt\n" + text + PROMPT, code.line(word) + PROMPT))
    run.exits(0)


def _mentions(name: str) -> Condition:
    def condition(outcome: Outcome) -> Mismatch | None:
        return None if name in outcome.stderr else Mismatch(f"standard error does not name {name}")
    return condition


# ---------------------------------------------------------------- 6.3 the start state

@lab.test("6.3", "starts at the entry point, with a stack and EBX", points=3,
          hint="Which entry point, which stack, which EBX? The ELF's entry point; a stack in the higher "
               "half, which grows down into memory that nothing else uses; the address of the boot "
               "information (BOOT_INFO_OFFSET). boot_prepare returns the status of paging_enter.")
def start_state(plan: Plan) -> None:
    plan.unit("boot", "start_state", kvm=True)


@lab.test("6.3", "starts one guest after another", points=2,
          hint="What does boot.c remember when it starts the next guest? Kernel, archive and boot "
               "information are the guest's own: a static variable still holds those of the previous guest.")
def guests_in_turn(plan: Plan) -> None:
    plan.unit("boot", "guests_in_turn", kvm=True)


@lab.test("6.3", "boots to the shell", points=2,
          hint="Which entry point, which stack, which EBX does the kernel get? The ELF's entry point, a "
               "stack in the higher half, the address of the boot information.")
def shell(plan: Plan) -> None:
    words = [plan.values.word() for _ in range(3)]
    run, code = _boot_vmm(plan, f"say {words[0]}", "lines", *words[1:], "q", args=[SLOW_TICK])
    run.must(_answers(f"say {words[0]}\n{code.line(words[0])}{PROMPT}",
                      *(f"> {word}\n{code.line(word)}" for word in words[1:]), f"> q\n{PROMPT}"))
    run.exits(0)


@lab.test("6.3", "boots four systems at once, each in its own VM", points=3,
          hint="Which data do four guests share? None: each vCPU has its own space, kernel and archive, so "
               "nothing in boot.c may be static.")
def four(plan: Plan) -> None:
    kernel, _ = finished_os()
    code = LineCode(plan.values, USER)
    archive = plan.file("archive.tar", archive_with(code=code, shell="names"))
    run = plan.boot(*[kernel] * 4, args=["--isolate", f"--initrd={archive}", "--tick-ms=200"], limits=SESSION)
    run.must(_shows_all(*(f"vcpu{vcpu}: {text}" for vcpu in range(4)
                          for text in ("1K OS: 16384 KB of memory", code.line("processes: idle shell")))))
    run.exits(0)


# ---------------------------------------------------------------- 6.4 the context switch

@lab.test("6.4", "prepares the stack of a new process", points=6,
          hint="What must the kernel stack of a process look like that has never run? As if it had trapped "
               "and called context_switch: the trap_frame at its end, with the selectors of ring 3, the "
               "given eip and esp, and bit 9 in EFLAGS; below it the address of trap_return, where "
               "process->stack points.")
def frame(plan: Plan) -> None:
    pid = plan.values.randint(2, 999)
    code, data = USER
    entry, stack = PROGRAM_MIN + plan.values.getrandbits(20), STACK_TOP - 4 * plan.values.getrandbits(12)
    _kernel_unit(plan, "frame", (pid, entry, stack),
                 f"pid {pid}: eip {entry:#x}, esp {stack:#x}, cs {code:#x}, ss {data:#x}, "
                 f"ds {data:#x}, es {data:#x}, eflags {FLAGS:#x}")


@lab.test("6.4", "switches between stacks", points=6,
          hint="A process is four things to the processor: which, and does each of them change? `current`, "
               "CR3, TSS.esp0 and ESP. Read what you need from both processes before `current` changes; "
               "what is pushed on the one stack is what is popped from the other.")
def switch(plan: Plan) -> None:
    a, b = plan.values.sample(range(2, 999), 2)
    words = [plan.values.number() for _ in range(4)]
    at_a = f"pid {a}: memory {words[0]:#x}, kernel stack {words[1]:#x}"
    at_b = f"pid {b}: memory {words[2]:#x}, kernel stack {words[3]:#x}"
    _kernel_unit(plan, "switch", (a, *words[:2], b, *words[2:]),
                 "idle", at_a, at_b, at_a, "idle", at_b, at_a, at_b, "idle")


@lab.test("6.4", "declares everything that the switch clobbers", points=2,
          hint="Other processes run between the two halves of the asm: what do they change? See \"Clobbers "
               "and Scratch Registers\" in GCC's manual, section \"Extended Asm\". The compiler keeps "
               "values across an asm in each register that is neither written by an operand nor a clobber, "
               "and variables as well, unless \"memory\" is one.")
def clobbers(plan: Plan) -> None:
    kept, pid = [plan.values.number() for _ in range(4)], plan.values.randint(2, 999)
    _kernel_unit(plan, "clobbers", (*kept, pid),
                 *(fact for value in kept for fact in (f"turn of pid {pid}", f"kept {value:#x}")))


@lab.test("6.4", "enters a new process in ring 3", points=3,
          hint="Where does the first switch to a process continue, and what does `iret` pop there? At "
               "trap_return, whose address is below the frame. The frame's cs, ss, ds and es must be those "
               "of ring 3, eip and esp the given ones.")
def ring3(plan: Plan) -> None:
    word = plan.values.word()
    run, code = _boot_kernel(plan, f"say {word}", "attack port-out", "attack halt", f"say {word}{word}")
    run.must(_answers(f"say {word}\n{code.line(word)}{PROMPT}",
                      "attack (pid 3) was killed: general protection fault",
                      "attack (pid 4) was killed: general protection fault",
                      f"\n{code.line(word + word)}{PROMPT}"))
    run.exits(0)


@lab.test("6.4", "gives each process its own memory and kernel stack", points=3,
          hint="Which tables and which kernel stack does the processor use after the switch? CR3 must hold "
               "the next process's directory, and TSS.esp0 the end of its kernel stack, even if it has just "
               "been created.")
def own_memory(plan: Plan) -> None:
    words = [plan.values.word() for _ in range(3)]
    run, code = _boot_kernel(plan, "nap 400 &", "nap 200 &", f"say {words[0]}", "attack write-text",
                             f"say {words[1]}", "attack read-null", "family 5", "nap 600", f"say {words[2]}")
    run.must(_answers(*(f"\n{code.line(word)}" for word in words)))
    run.must(_shows_all("write to 0x00400000: read-only memory", "read of 0x00000000: no memory is there",
                        code.line("slept 400"), code.line("slept 200")))
    run.exits(0)


# ---------------------------------------------------------------- 6.5 the scheduler

@lab.test("6.5", "selects the next ready process", points=4,
          hint="Draw the table as a ring: where does the search begin, and where does it end? It begins at "
               "the place after current, even when that is idle, and ends with current itself; idle is taken "
               "only if no other is ready. If the search ends at current, there is nothing to switch.")
def order(plan: Plan) -> None:
    pids = plan.values.sample(range(2, 999), 8)
    ready, alone = sorted(pids[:4], reverse=True), pids[7]
    ready[1:3] = ready[2:0:-1]          # neither the order of the pids nor its reverse
    middle = plan.values.sample(range(2, PLACES), 5)
    places = (1, *sorted(middle[:2]), PLACES, *middle[2:], plan.values.randint(1, PLACES))
    _kernel_unit(plan, "order", (*ready, *pids[4:], *places),
                 *(f"turn of pid {pid}" for pid in (ready * 3)[:9] * 2 + [alone] * 9))


@lab.test("6.5", "wakes the processes that wait for the reason", points=4,
          hint="Which two fields say what a process waits for? process_block sets waits_for and "
               "PROCESS_BLOCKED and gives up the processor; process_wake makes ready each process that is "
               "PROCESS_BLOCKED for this reason.")
def wake(plan: Plan) -> None:
    kinds = [EVEN] * 5 + [ODD] * 3 + [SLEEPING] * 2 + [ENDED] * 2 + [UNUSED] * 2
    plan.values.shuffle(kinds)
    kinds.append(EVEN)                  # the last place as well
    evens = plan.values.sample(range(2, 999, 2), PLACES)
    odds = plan.values.sample(range(3, 999, 2), PLACES)
    pids = [even if kind == EVEN or kind != ODD and plan.values.randrange(2) else odd
            for kind, even, odd in zip(kinds, evens, odds)]

    def states(evens: int) -> str:
        return " ".join(f"{pid} {STATES[evens if kind == EVEN else BLOCKED if kind == ODD else kind]}"
                        for pid, kind in zip(pids, kinds) if kind != UNUSED)
    _kernel_unit(plan, "wake", (*pids, *({SLEEPING: 1, ENDED: 2, UNUSED: 3}.get(kind, 0) for kind in kinds)),
                 f"all wait: {states(BLOCKED)}", f"other reasons: {states(BLOCKED)}",
                 f"their reason: {states(READY)}",
                 *(f"pid {pid} goes on" for pid, kind in zip(pids, kinds) if kind == EVEN))


@lab.test("6.5", "counts ticks and wakes sleepers", points=3,
          hint="What does scheduler_tick count, and how do you compare two counts that wrap around? It "
               "counts `ticks` and the ticks of current, then wakes each sleeping process whose tick has "
               "come. The difference, read as a signed number, is right even when the count has wrapped "
               "around.")
def tick(plan: Plan) -> None:
    pids = plan.values.sample(range(2, 999), PLACES)
    blocked, ended, unused = plan.values.sample(range(PLACES - 1), 3)
    sleeps = [(plan.values.randint(100, 9999), 1), (plan.values.getrandbits(31), plan.values.randint(20, 50)),
              (2 ** 32 - plan.values.randint(5, 19), plan.values.randint(20, 50)),
              (2 ** 31 - plan.values.randint(5, 19), plan.values.randint(20, 50)),
              (plan.values.getrandbits(32), plan.values.randint(40000, 70000))]
    plan.values.shuffle(sleeps)
    longest = plan.values.getrandbits(32)
    resting = {blocked: BLOCKED, ended: ENDED}

    def states(others: int) -> str:
        return " ".join(f"{pid} {STATES[resting.get(place, others)]}" for place, pid in enumerate(pids)
                        if place != unused)
    times = (number for sleep in (*sleeps, (longest, 2 ** 31 - 1)) for number in sleep)
    used = sum(count for _, count in sleeps) + LONGEST_SEEN
    _kernel_unit(plan, "sleep", (blocked + 1, ended + 1, unused + 1, *times, *pids),
                 *(f"tick {start + count & 0xffffffff:#x}, slept: {states(READY)}"
                   for start, count in sleeps),
                 f"tick {longest + LONGEST_SEEN & 0xffffffff:#x}, slept: {states(SLEEPING)}",
                 f"idle: {used} ticks", f"pid {pids[blocked]}: ticks 1")


@lab.test("6.5", "runs three processes in turn", points=2,
          hint="Which process is next? schedule takes the next ready process after current in the table. "
               "The switch must restore exactly what it saves.")
def turns(plan: Plan) -> None:
    run, code = _boot_kernel(plan, "turns", tick=SLOWEST_TICK)
    run.must(_round_robin(code))
    run.must(_answers(code.line("turns are over") + PROMPT))
    run.exits(0)


def _round_robin(code: LineCode) -> Condition:
    """turns.c prints abcabc..., some as capitals; a timer interrupt now and then may change whose turn it is.
    """
    turns = {letter: [letter.upper() if code.number(bytes([ord(letter), turn])) >> 31 else letter
                      for turn in range(40)] for letter in "abc"}

    def condition(outcome: Outcome) -> Mismatch | None:
        found = re.search(r"turns\n([abcABC]+)\n", outcome.stdout)
        text = found[1] if found else ""
        letters = text.lower()
        breaks = sum(b != {"a": "b", "b": "c", "c": "a"}[a] for a, b in zip(letters, letters[1:]))
        if breaks <= 40 and all([each for each in text if each.lower() == letter] == turns[letter]
                                for letter in "abc"):
            return None
        return Mismatch("three processes that yield after each letter do not take turns",
                        "".join(a + b + c for a, b, c in zip(*turns.values())), text or outcome.stdout)
    return condition


@lab.test("6.5", "preempts a process that never yields", points=3,
          hint="What takes the processor from a process that never yields? Each timer interrupt calls "
               "schedule: the next ready process after current has its turn, wrapping around the table's "
               "end. Interrupts are on in a program only if its first EFLAGS say so.")
def preemption(plan: Plan) -> None:
    word = plan.values.word()
    run, code = _boot_kernel(plan, "race", f"say {word}")
    look = "".join(map(code.line, ("idle leaves them the time", "0 gets on", "1 gets on", "2 gets on")))
    run.must(_answers(look, look, code.line("the race is over"), f"\n{code.line(word)}{PROMPT}"))
    for text in ("spinning {}", "{} has taken turns"):
        run.must(_shows_all(*(code.line(text.format(number)) for number in range(3))))
    run.exits(0)


@lab.test("6.5", "wakes sleepers on time", points=1,
          hint="When does a sleeping process become ready? When its tick is now or earlier: scheduler_tick "
               "counts first, then compares, even after the count has wrapped around.")
def sleepers(plan: Plan) -> None:
    times = plan.values.sample(range(500, 2001, 500), 4)
    run, code = _boot_kernel(plan, "naps " + " ".join(map(str, times)), args=["--stats"])
    slept = "".join(code.line(f"slept {time}") for time in sorted(times))
    run.must(_answers(f"\n{slept}{code.line('all are awake')}{PROMPT}"))
    run.must(_halts)
    run.exits(0)


@lab.test("6.5", "spends no processor time on waiting processes", points=2,
          hint="Which processes may be chosen? One that is blocked or asleep never is. Idle is chosen when "
               "no other is ready, and the tick is counted for current, whichever that is.")
def waiting(plan: Plan) -> None:
    run, code = _boot_kernel(plan, "quiet", args=["--stats"])
    run.must(_answers(*map(code.line, ("slept long enough", "cost nothing", "idle ran"))))
    run.must(_halts)
    run.exits(0)


@lab.test("6.5", "wakes the process that waits for the keyboard", points=1,
          hint="Which processes does process_wake make ready? Exactly those that are blocked for the same "
               "reason.")
def keyboard(plan: Plan) -> None:
    words = [plan.values.word() for _ in range(4)]
    run, code = _boot_kernel(plan, "lines", *words, "q", "say more")
    run.must(_answers(*(f"> {word}\n{code.line(word)}" for word in words), "> q\n" + PROMPT,
                      code.line("more")))
    run.exits(0)


# ---------------------------------------------------------------- 6.6 the end of a process

@lab.test("6.6", "ends a process", points=3,
          hint="Who must learn that a process has ended? Its parent: process_end sets state and status, and "
               "wakes the parent, which waits for its own struct process. The children go to the shell; if "
               "it inherits one that has ended, wake it as well. process_end only changes the table: it "
               "returns even for `current`.")
def end(plan: Plan) -> None:
    parent, one, two, stranger, *children = plan.values.sample(range(2, 999), PLACES - 1)
    status = _signed(plan.values.getrandbits(32))
    family = [(SHELL_PID, IDLE_PID, BLOCKED), (parent, SHELL_PID, BLOCKED), (two, parent, BLOCKED),
              (one, parent, SLEEPING), (children.pop(), one, UNUSED),
              (stranger, two, plan.values.choice((READY, SLEEPING, ENDED))),
              *((child, one, state) for child, state in zip(children, (*STATES, *STATES, *STATES)))]
    last = family.pop()
    plan.values.shuffle(family)
    family.append(last)
    after = [(pid, ENDED if pid == one else READY if pid in (parent, SHELL_PID) else state)
             for pid, _, state in family if state != UNUSED]
    both = [(pid, BLOCKED if pid == parent else ENDED if pid == two else state) for pid, state in after]
    numbers = (number for member in family for number in member)
    all_three = [(pid, ENDED if pid == parent else state) for pid, state in both]
    _kernel_unit(plan, "end", (one, two, status & 0xffffffff, parent, *numbers),
                 *(f"pid {pid}, parent {SHELL_PID if above == one else above}, "
                   f"status {status if pid == one else 0}" for pid, above, state in family
                   if state != UNUSED),
                 "one has ended: " + " ".join(f"{pid} {STATES[state]}" for pid, state in after),
                 "both have ended: " + " ".join(f"{pid} {STATES[state]}" for pid, state in both),
                 "the parent has ended itself: "
                 + " ".join(f"{pid} {STATES[state]}" for pid, state in all_three))


def _signed(number: int) -> int:
    return number - (number >> 31 << 32)


@lab.test("6.6", "finds an ended child", points=2,
          hint="Which three cases are there? A child has ended: release it, return its pid and set its "
               "status. There are children but none has ended: block, or return 0 with WAIT_NO_HANG. There "
               "is no such child: ERROR_NOT_FOUND, even with WAIT_NO_HANG. WAIT_NO_HANG is one bit of the "
               "flags: others may be set as well.")
def wait(plan: Plan) -> None:
    parent, first, second, stranger, third = plan.values.sample(range(2, 999), 5)
    statuses = [plan.values.getrandbits(31), -plan.values.randint(100, 2 ** 31),
                _signed(plan.values.getrandbits(32))]
    plan.values.shuffle(statuses)
    second_place, first_place = sorted(plan.values.sample(range(1, PLACES), 2))     # the third has the last
    other_places = plan.values.sample(sorted({*range(1, PLACES)} - {first_place, second_place}), 2)
    waits = ((0, UNSET), *[(NOT_FOUND, UNSET)] * 3, (first, statuses[0]), *[(0, UNSET)] * 2,
             (second, statuses[1]), (third, statuses[2]), (NOT_FOUND, UNSET), (NOT_FOUND, UNSET))
    facts = [f"wait: {got}, status {status}" for got, status in waits]
    facts.insert(7, f"pid {parent} is blocked, its reason is itself")
    _kernel_unit(plan, "wait", (parent, first, second, stranger,
                                *(each & 0xffffffff for each in statuses[:2]),
                                2 ** 32 - plan.values.randint(2, 999), plan.values.randint(5, 20),
                                plan.values.getrandbits(31) << 1, third, statuses[2] & 0xffffffff,
                                other_places[0], first_place, second_place, other_places[1]), *facts)


@lab.test("6.6", "releases everything that a process owns", points=2,
          hint="What does a process own, and what may be missing? Its pages, their page tables, the "
               "directory and the kernel stack; directory and kernel stack may be NULL. Entries from "
               "KERNEL_FIRST_SLOT on are the kernel's.")
def release(plan: Plan) -> None:
    slots = [0, 511, *(plan.values.getrandbits(9) for _ in range(plan.values.randint(20, 40)))]
    pages = {slot << 10 | plan.values.getrandbits(10) for slot in slots}
    pages |= {slot << 10 | entry for slot in (0, slots[2], 511) for entry in (0, 1023)}     # a table's ends
    tables = {page >> 10 for page in pages}
    _kernel_unit(plan, "release", (len(pages), *(page << 12 for page in pages), plan.values.number()),
                 f"{len(pages) + len(tables) + 2} pages came back", "0 pages are lost")


@lab.test("6.6", "waits for the right child", points=3,
          hint="Which child does the parent wait for? Only that one counts. If it has ended, release it and "
               "return its pid; if not, block, or return 0 with WAIT_NO_HANG; if there is no such child, "
               "ERROR_NOT_FOUND.")
def family(plan: Plan) -> None:
    number = plan.values.randint(1, 1000)
    run, code = _boot_kernel(plan, f"family {number}")
    run.must(_answers(*map(code.line, (
        f"second: right, status {number + 1}", f"first: right, status {number}", "once more: -3",
        "a stranger: -3, myself: -3", "too early: 0", "any: right, status 0", "none: -3",
        "killed: right, status -1"))))
    run.exits(0)


@lab.test("6.6", "frees every page", points=3,
          hint="What does a process own? Its pages, their page tables, the directory and the kernel stack; "
               "not the kernel's part of the directory.")
def pages(plan: Plan) -> None:
    count = plan.values.randint(150, 200)
    # The kernel only says how many pages are free. Here a page less per program is more than there are.
    run, code = _boot_kernel(plan, f"stress {count}", pages_free=80)
    run.must(_answers(code.line(f"{count} programs, 0 pages lost")))
    run.exits(0)
    run, code = _boot_kernel(plan, "full-table", "stress 20")
    run.must(_answers(*map(code.line, (
        "13 programs more, then: too many processes", "0 left, 0 pages lost", "20 programs, 0 pages lost"))))
    run.exits(0)


@lab.test("6.6", "reparents orphans to the shell", points=2,
          hint="Who releases a child whose parent has ended? The shell: process_end makes it the parent of "
               "all children, and wakes it if one has already ended; it waits for them before it prompts.")
def orphans(plan: Plan) -> None:
    run, code = _boot_kernel(plan, "family 1", "nap 1500", "", "names")
    run.must(_answers(code.line("slept 1500"), "has ended with status 0\n",
                      code.line("processes: idle shell names")))
    run.exits(0)


# ---------------------------------------------------------------- what mistakes look like

def _vmm_symptoms(run: Planned) -> None:
    run.symptom(lambda o: "EBX is" in o.stdout,
                "The kernel found no boot information where EBX points. Which address does boot_prepare "
                "pass to paging_enter for EBX?")
    run.symptom(lambda o: "the boot information at" in o.stdout,
                "The kernel read something other than the boot information. Are magic and size set, and "
                "was the structure written to BOOT_INFO_OFFSET?")
    run.symptom(lambda o: "the archive is damaged" in o.stdout,
                "The archive overlaps the kernel's .bss, or its length is wrong. Where does the kernel end "
                "in memory, and where does the archive start?")
    run.symptom(lambda o: o.status == STATUS_CRASHED and not o.stdout,
                "The guest crashed before the kernel printed anything: make explain shows where. Are the "
                "segments at p_paddr, is the entry point that of the file, and is the stack in RAM?")


def _kernel_symptoms(run: Planned) -> None:
    run.symptom(lambda o: o.status == STATUS_CRASHED,
                "Which of the process's four things is wrong: current, CR3, TSS.esp0, ESP? make explain "
                "shows which access failed, the post-mortem CR3, ESP, TSS.esp0 and the active functions.")
    run.symptom(lambda o: o.status == STATUS_PANIC and "panic: the shell" in o.stdout,
                "The kernel killed the shell itself: compare EIP, CR2 and CR3 in the panic. If a test of a "
                "single function failed, start there. If not, a wrong CR3 causes a page fault at the "
                "shell's first instruction, a wrong TSS.esp0 one at a system call; any other comes from a "
                "register or a stack that a switch lost.")
    run.symptom(lambda o: o.status == STATUS_PANIC,
                "The kernel panicked. The last lines of its console list the functions that were active.")
    run.symptom(lambda o: o.hung and PROMPT not in o.stdout,
                "The shell printed no prompt: it never ran, never returned from its first wait, or was not "
                "woken.")
    run.symptom(lambda o: o.hung,
                "Nothing runs any more: a process never became ready again, or was lost in a switch. If a "
                "test of a single function failed, start there.")
