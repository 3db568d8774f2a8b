"""Lab 7, long mode: four-level tables, the start state, rings, CPUID, ELF64, the walk.

64-bit guests are ELF64 files that nasm writes without a linker: guests/long.inc.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from grader.core.expectations import Condition, Mismatch, registers
from grader.core.framework import Demonstration, Lab
from grader.core.guests import Define
from grader.core.line_code import KERNEL, LineCode
from grader.core.outcome import STATUS_CRASHED, STATUS_GUEST_FILE, Outcome
from grader.core.plan import Plan, Planned
from grader.core.values import Values, letters
from grader.execution.runs import Ending

lab = Lab(7, "long mode", needs=("real", "paging32", "protected", "longmode"))

PAGE, LARGE_PAGE, SLOT = 0x1000, 0x200000, 0x400000
HIGHER_HALF = 0xffffffff80000000
LOAD_DEFAULT = 0x100000
RAM = 16 << 20                  # the VMM's default
FREE = 0x200000                 # from here to the end of RAM no guest of this lab has code or stack
BOOT_WORDS = 0x18 << 32 | 0x534f4b31    # of struct boot_info: magic and size
STATUS_USAGE = 64
STATUS_STRAY = 62               # of guests/long-print.inc
STATUS_NOT_PAGED = 61           # the same
MASK = (1 << 64) - 1
USER_DATA, USER_CODE = 0x1b, 0x23
PAGE_FAULT, PROTECTION_FAULT = 14, 13


def _hex(*numbers: int) -> str:
    """As guests print them."""
    return " ".join(f"{number & MASK:016x}" for number in numbers)


def _coded(plan: Plan, name: str, **defines: Define) -> tuple[Path, LineCode]:
    """A guest whose lines end with a number that only the guest computes."""
    code = LineCode(plan.values, KERNEL)
    return plan.guest(name, LINE_CODE=list(code.image), **defines), code


def _pages(values: Values, start: int, end: int, count: int) -> list[int]:
    """Different pages in random order."""
    return [page * PAGE for page in values.sample(range(start // PAGE, end // PAGE), count)]


def _anywhere(values: Values, count: int) -> list[int]:
    """Different canonical pages in random order, in both halves, far from each other and from all memory."""
    slots = values.sample([*range(1, 256), *range(256, 511)], count)     # entries of the PML4
    return [((slot << 39 | values.getrandbits(27) << 12) ^ 1 << 47) - (1 << 47) & MASK for slot in slots]


# ---------------------------------------------------------------- 7.1 tables

@lab.test("7.1", "maps all guest memory in both halves", points=5,
          hint="Which tables lead to 0, and which to HIGHER_HALF_64? Compute the four indices of both "
               "addresses. Each 2 MB of memory has a PD entry in each half: large, writable and present. "
               "Every entry that you don't write is 0.")
def tables(plan: Plan) -> None:
    plan.unit("long_mode", "tables")


@lab.test("7.1", "maps and unmaps 4 KB pages", points=5,
          hint="Which entry grants the rights, and which restricts them? Entries that lead to a table grant "
               "write and user, and never have PAGE_NX; the page table's entry has the page and its "
               "rights. Entries hold guest-physical addresses: subtract space->base to find a table in "
               "`memory`.")
def map_pages(plan: Plan) -> None:
    plan.unit("long_mode", "map")


@lab.test("7.1", "splits a 2 MB page and keeps its other pages", points=4,
          hint="What must the other 511 entries of a new page table say? The same as the 2 MB page: the same "
               "memory with the same rights, PAGE_NX among them. Only then change the one.")
def split(plan: Plan) -> None:
    plan.unit("long_mode", "split")


@lab.test("7.1", "keeps the tables of two guests apart", points=2,
          hint="What do your functions remember from one call to the next? Everything about a guest is in "
               "its struct address_space; a static variable is the same one for all guests.")
def two_spaces(plan: Plan) -> None:
    plan.unit("long_mode", "two_spaces")


@lab.test("7.1", "rejects addresses that are not a page of the guest", points=2,
          hint="Which addresses are not pages of this guest? Both must be multiples of PAGE_BYTES, the "
               "virtual one canonical, and the physical one below space->bytes. If not, return EINVAL "
               "before anything is changed, even with flags 0.")
def refused(plan: Plan) -> None:
    plan.unit("long_mode", "refused")


@lab.test("7.1", "reports when no table is left", points=2,
          hint="Where does the next table come from, and where is the last one? From space->next_table on; "
               "a table that would end past TABLES_END does not exist: return ENOMEM, and change no "
               "mapping.")
def exhausted(plan: Plan) -> None:
    plan.unit("long_mode", "exhausted")


# ---------------------------------------------------------------- 7.2 the start state

@lab.test("7.2", "writes the 64-bit GDT", points=3,
          hint="Which bit makes a code segment 64-bit, and what must D/B be then? L is bit 53 "
               "(DESCRIPTOR_LONG); D/B must be 0. All entries that are not written are 0.")
def gdt(plan: Plan) -> None:
    plan.unit("long_mode", "gdt")


@lab.test("7.2", "computes the start state", points=6,
          hint="Does each value match the table in section 7.2 of the handout? CR0, CR3, CR4, EFER and the "
               "APIC base; IDTR's limit; RIP, RSP, RFLAGS and the other general registers. What else is in "
               "`sregs` stays as KVM returned it.")
def state(plan: Plan) -> None:
    plan.unit("long_mode", "state")


@lab.test("7.2", "loads the segment registers and GDTR", points=3,
          hint="Where do the hidden parts come from? Load each register with segment_load from the GDT in "
               "memory. GDTR's base is linear, its limit the last valid byte. LDTR has the type TYPE_LDT.")
def segments(plan: Plan) -> None:
    plan.unit("long_mode", "segments")


# ---------------------------------------------------------------- 7.3 rings

@lab.test("7.3", "adds the descriptors of ring 3 and of the TSS", points=4,
          hint="In which order does SYSRET find its two segments, and how long is a TSS descriptor? Data "
               "comes before code. The TSS descriptor has 16 bytes, and its upper half holds bits 32 to 63 "
               "of the base. TR is what the descriptor says, with all 64 bits of the base. Nothing else "
               "changes.")
def rings(plan: Plan) -> None:
    plan.unit("long_mode", "rings")


@lab.test("7.3", "passes Intel's VM-entry checks", points=4,
          hint="Which rule of SDM vol. 3, 27.3.1 does the state break? A loaded segment is accessed (type "
               "bit 0), the TSS in use is busy (type 11), D/B is 0 where L is 1, and limits agree with G.")
def entry_checks(plan: Plan) -> None:
    plan.unit("long_mode", "entry_checks")


@lab.test("7.3", "lets a guest enter ring 3 and return by int", points=3,
          hint="What does the processor read on the way from ring 3 to ring 0, and what does ring 3 need to "
               "access a page? It reads rsp0 of the TSS. An access from ring 3 needs PAGE_USER in all four "
               "levels; bit 2 of the error code says that it came from there.")
def ring3(plan: Plan) -> None:
    values = plan.values
    code, stack, readable, nowhere, kernel = _anywhere(values, 5)
    stack_page, data_page, kernel_page = _pages(values, FREE, RAM, 3)
    guest, line_code = _coded(plan, "long-ring3", USER_CODE=code, USER_STACK=stack,
                              READS=[readable, HIGHER_HALF + FREE, nowhere],
                              WRITES=[stack, readable, kernel, nowhere])
    maps = [(code, LOAD_DEFAULT + PAGE, "u"), (stack, stack_page, "wu"), (readable, data_page, "u"),
            (kernel, kernel_page, "w")]
    run = plan.boot(guest, args=_maps(maps))
    ring, selector = 3, USER_DATA
    run.prints(line_code.lines([f"went well {_hex(readable, ring, selector)}",
                                f"fault {_hex(HIGHER_HALF + FREE, 5, ring, selector)}",
                                f"fault {_hex(nowhere, 4, ring, selector)}",
                                f"went well {_hex(stack, ring, selector)}",
                                f"fault {_hex(readable, 7, ring, selector)}",
                                f"fault {_hex(kernel, 7, ring, selector)}",
                                f"fault {_hex(nowhere, 6, ring, selector)}"]))
    run.exits(0)
    _symptoms(run, _AT_ONCE_BY_TSS)


@lab.test("7.3", "makes the round trip of SYSCALL and SYSRET", points=3,
          hint="Which bit enables SYSCALL, and which selectors does SYSRET load? EFER.SCE. SYSRET adds 8 for "
               "SS and 16 for CS to one selector, so the user data segment comes first.")
def syscall(plan: Plan) -> None:
    values = plan.values
    code, stack = _anywhere(values, 2)
    numbers, factor = [values.number(64) for _ in range(values.randint(3, 6))], values.getrandbits(31) | 1
    guest, line_code = _coded(plan, "long-syscall", USER_CODE=code, USER_STACK=stack, NUMBERS=numbers,
                              FACTOR=factor)
    stack_page, = _pages(values, FREE, RAM, 1)
    run = plan.boot(guest, args=_maps([(code, LOAD_DEFAULT + PAGE, "u"), (stack, stack_page, "wu")]))
    passed = [*numbers, sum(numbers) * factor]
    run.prints(line_code.lines(_hex(number, USER_CODE, USER_DATA, 0x08, 0x10) for number in passed))
    run.exits(0)
    _symptoms(run)


@lab.test("7.3", "gives a handler its own stack from the IST", points=2,
          hint="Where does the processor find the TSS? TR must lead to it: its base, in the descriptor and "
               "in the register, and its limit of 103.")
def ist(plan: Plan) -> None:
    values = plan.values
    broken, = _anywhere(values, 1)
    stack = HIGHER_HALF + values.randrange(FREE, RAM, PAGE)
    guest, code = _coded(plan, "long-ist", BROKEN=broken, STACK=stack, IST=values.randint(1, 7))
    run = plan.boot(guest)
    run.prints(code.line(_hex(broken - 8, 6 * 8)))
    run.exits(0)
    _symptoms(run, _AT_ONCE_BY_TSS)


# ---------------------------------------------------------------- 7.4 CPUID

@lab.test("7.4", "shows a hypervisor, the APIC id, and no local APIC", points=4,
          hint="Which bits of which leaves change, and does every other bit stay? The table in section 7.4 "
               "of the handout lists them. A leaf may be there several times, with an index each.")
def features(plan: Plan) -> None:
    plan.unit("long_mode", "features")


@lab.test("7.4", "replaces KVM's hypervisor leaves by the signature", points=3,
          hint="Which of KVM's leaves are about the hypervisor? All from 0x40000000 to 0x4fffffff: the guest "
               "is shown one, with the signature of abi.h, whose EAX is the last leaf of its range.")
def signature(plan: Plan) -> None:
    plan.unit("long_mode", "signature")


@lab.test("7.4", "reports a table without room, and failures of KVM", points=2,
          hint="How many entries have room, and which calls can fail? The signature needs one entry. Each "
               "ioctl that fails is STATUS_NO_KVM, with a message. The memory of the table is freed on every "
               "way out.")
def cpuid_failure(plan: Plan) -> None:
    plan.unit("long_mode", "no_room")
    plan.unit("long_mode", "cpuid_failure", kvm=True)


@lab.test("7.4", "lets guests read what they are shown", points=5,
          hint="Which number is the APIC id, and when does KVM take the table? It is vcpu->index, the place "
               "in the VM; the table has to be set before the vCPU's first KVM_RUN.")
def cpuid(plan: Plan) -> None:
    texts = [plan.values.text() for _ in range(4)]
    guests, codes = zip(*(_coded(plan, "long-cpuid", TEXT=text) for text in texts))
    for args, ids in ((["--mem=16M"], range(4)), (["--isolate"], [0] * 4)):
        run = plan.boot(*guests, args=args)
        run.must(_cpuid_shown(codes, ids, texts))
        run.exits(0)
        _symptoms(run)


def _cpuid_shown(codes: Sequence[LineCode], ids: Sequence[int], texts: Sequence[str]) -> Condition:
    def condition(outcome: Outcome) -> Mismatch | None:
        for vcpu, apic_id in enumerate(ids):
            prefix = f"vcpu{vcpu}: "
            lines = [line[len(prefix):] for line in outcome.stdout.splitlines() if line.startswith(prefix)]
            # A processor without leaf 0xb shows 0 there.
            accepted = [[f"{_hex(0x40000000)} Mini-KVM Lab", f"{_hex(1, apic_id, 0, 0, 0, topology, 1)} "]
                        for topology in {apic_id, 0}]
            wanted = [[codes[vcpu].line(line)[:-1] for line in two] for two in accepted]
            if lines[:2] not in wanted:
                return Mismatch(f"vcpu{vcpu} does not print the CPUID that it should be shown: signature, "
                                "then hypervisor bit, APIC id, local APIC, x2APIC, TSC deadline, x2APIC id, "
                                "long mode", "\n".join(wanted[0]) + "\n", "\n".join(lines[:2]) + "\n")
            last = codes[vcpu].line(texts[vcpu])
            if lines[2:] != [last[:-1]]:
                return Mismatch(f"vcpu{vcpu} did not end well: CPUID shows what the VMM does not have", last,
                                "\n".join(lines[2:]) + "\n")
        return None
    return condition


# ---------------------------------------------------------------- 7.5 ELF64 and the start

@lab.test("7.5", "loads each segment at its physical address", points=2,
          hint="Which bytes of the file go where? For each PT_LOAD segment, p_filesz bytes from p_offset on "
               "go to physical address p_paddr; the rest, up to p_memsz, is zeros.")
def loads(plan: Plan) -> None:
    plan.unit("long_mode", "loads")


@lab.test("7.5", "rejects files of another type and truncated files", points=2,
          hint="Which fields say what kind of file this is, and does the file have all the bytes that its "
               "headers promise? Sums of two 64-bit fields can wrap around: subtract instead.")
def wrong_files(plan: Plan) -> None:
    plan.unit("long_mode", "wrong_files")
    plan.unit("long_mode", "cut_files")


@lab.test("7.5", "rejects segments and entry points that are in the wrong place", points=2,
          hint="Which physical addresses may a segment have, and which virtual ones lead to it? From "
               "LOAD_MIN on, from the end of the segment before on, up to memory_bytes; the same address, "
               "or HIGHER_HALF_64 above it. All 64 bits of each field count: in fewer bits a wrong segment "
               "passes for a right one, and is then copied out of bounds. The entry point is in a segment "
               "with PF_X.")
def wrong_places(plan: Plan) -> None:
    plan.unit("long_mode", "wrong_places")
    plan.unit("long_mode", "wrong_entry")
    broken = bytearray(plan.guest("long-hello").read_bytes())
    broken[18] = 3                          # e_machine: EM_386
    name = f"{plan.values.word()}.elf"
    run = plan.boot(plan.file(name, bytes(broken)))
    run.exits(STATUS_GUEST_FILE)
    run.says(name, what="the file that can't be loaded")


@lab.test("7.5", "passes boot information and a stack", points=2,
          hint="Which registers does the guest get, and where does each field come from? RDI is "
               "BOOT_INFO_OFFSET; memory_bytes is the space's size, tick_ms comes from the options; without "
               "an archive its fields are 0. If a step fails, return its status.")
def boot_information(plan: Plan) -> None:
    plan.unit("long_mode", "boot_information", kvm=True)
    plan.unit("long_mode", "enter_failure", kvm=True)


@lab.test("7.5", "starts a guest in the higher half", points=2,
          hint="What does a guest in the higher half need at its first instruction? EFER with LME and LMA, "
               "CR0.PG and CR4.PAE together, CR3 with the PML4's address, RIP in the higher half.")
def hello(plan: Plan) -> None:
    values = plan.values
    megabytes = values.randint(4, 64)
    for address in (LOAD_DEFAULT, values.randrange(FREE, (megabytes << 20) - 0x10000, PAGE)):
        text = values.text()
        guest, code = _coded(plan, "long-hello", LOAD=address, ENTRY=values.randrange(0, 256), TEXT=text)
        run = plan.boot(guest, args=[f"--mem={megabytes}M"])
        run.prints(code.line(f"{_hex(HIGHER_HALF + address, BOOT_WORDS, megabytes << 20)} {text}"))
        run.exits(0)
        _symptoms(run)


@lab.test("7.5", "sets a start state that the guest reads back", points=2,
          hint="Which register differs? The guest prints its selectors, control registers, EFER, GDTR and "
               "flags; then it loads all segment registers and TR again from the GDT.")
def start_state(plan: Plan) -> None:
    text = plan.values.text()
    guest, code = _coded(plan, "long-state", TEXT=text)
    run = plan.boot(guest)
    lines = [("cs", 8), *((name, 0x10) for name in ("ss", "ds", "es", "fs", "gs")), ("tr", 0x28),
             ("cr0", 0x80010031), ("cr3", 0x2000), ("cr4", 0x620), ("efer", 0xd01), ("gdt limit", 0x37),
             ("gdt base", HIGHER_HALF + 0x1000), ("rflags", 2), ("rsp", HIGHER_HALF + 0x30000)]
    run.must(_prints_but_stack(code.lines([*(f"{name} {_hex(value)}" for name, value in lines), text])))
    run.exits(0)
    _symptoms(run)


def _prints_but_stack(expected: str) -> Condition:
    """The lines of long-state; where its stack is, is the module's choice."""
    def condition(outcome: Outcome) -> Mismatch | None:
        def without(text: str) -> list[str]:
            return [line for line in text.splitlines() if not line.startswith("rsp ")]
        if without(outcome.stdout) == without(expected) and "\nrsp ffffffff8" in outcome.stdout:
            return None
        return Mismatch("the output differs from what the guest prints", expected, outcome.stdout)
    return condition


@lab.test("7.5", "runs 64-bit instructions with r8 to r15", points=1,
          hint="Which segment register decides that code is 64-bit? CS: L is 1. RIP-relative addresses and "
               "r8 to r15 exist only there.")
def long_registers(plan: Plan) -> None:
    values = plan.values
    numbers, factor = [values.number(64) for _ in range(8)], values.number(64)
    guest, code = _coded(plan, "long-registers", VALUES=numbers, FACTOR=factor)
    run = plan.boot(guest, args=["--regs"])
    found: list[int] = []
    for number, value in zip(range(8, 16), numbers):
        value = value * factor & MASK
        value = (value << number | value >> 64 - number) & MASK
        found.append(value + (found[-1] if found else 0) & MASK)
    run.prints(code.lines(map(_hex, found)))
    run.must(registers(0, **{f"r{number}": value for number, value in zip(range(8, 16), found)}))
    run.exits(0)
    _symptoms(run)


@lab.test("7.5", "maps a random permutation of pages", points=2,
          hint="Where does each page of --map point to, and what happens to the neighbours of a page in a 2 "
               "MB page? The guest numbers physical pages and reads them where they are mapped.")
def permutation(plan: Plan) -> None:
    values = plan.values
    region = values.randrange(0x40000000, 0x70000000, LARGE_PAGE)
    inside = values.randrange(FREE + 16 * PAGE, SLOT, PAGE)      # in a 2 MB page of the kernel's own
    physical = _pages(values, SLOT, RAM, 24)
    virtual = [*_pages(values, region, region + 3 * LARGE_PAGE, 18), *_anywhere(values, 5),
               HIGHER_HALF + inside]
    mark, addend, offset = values.number(64), values.number(20), values.randrange(0, PAGE, 8)
    order = list(range(len(virtual)))
    values.shuffle(order)
    guest, code = _coded(plan, "long-pages", PAGES=physical, VIRTUAL=[virtual[i] for i in order], MARK=mark,
                         ADDEND=addend, OFFSET=offset)
    run = plan.boot(guest, args=_maps([(v, p, "w") for v, p in zip(virtual, physical)]))
    run.prints(code.lines([_hex(mark + i) for i in order]
                          + [_hex(mark + addend + i) for i in range(len(physical))]))
    run.exits(0)
    _symptoms(run)


@lab.test("7.5", "raises the faults that rights, NX and reserved bits require", points=2,
          hint="Which bits of the error code differ? Bit 0: the page was present; bit 1: a write; bit 3: a "
               "reserved bit; bit 4: an instruction fetch, which PAGE_NX denies if EFER.NXE is set. An "
               "address that is not canonical is a general protection fault.")
def faults(plan: Plan) -> None:
    values = plan.values
    nowhere, readable, writable, data, code_page, reserved = _anywhere(values, 6)
    hole = HIGHER_HALF + values.randrange(SLOT, RAM, PAGE)
    nowhere, hole = (page + values.randrange(0, PAGE, 8) for page in (nowhere, hole))
    crooked = 1 << 47 | values.getrandbits(46)
    first, second, code_phys = _pages(values, FREE, SLOT, 3)
    guest, code = _coded(plan, "long-faults", READS=[nowhere, readable, hole, reserved, crooked],
                         WRITES=[writable, readable, hole, crooked], JUMPS=[code_page, data, nowhere],
                         CODE=code_phys, RESERVED=reserved)
    run = plan.boot(guest, args=[*_maps([(readable, first, ""), (writable, second, "wn"),
                                         (code_page, code_phys, ""), (data, code_phys, "wn")]),
                                 f"--unmap={hole & -PAGE:#x}"])
    run.symptom(lambda o: f"executed {_hex(data)}" in o.stdout,
                "The guest executed a page with PAGE_NX. Does the page's own entry have the bit, and is "
                "EFER.NXE set?")
    run.symptom(lambda o: f"wrote {_hex(readable)}" in o.stdout,
                "The kernel wrote to a read-only page without a fault. Is CR0.WP (bit 16) set?")
    run.prints(*(code.lines([_hex(PAGE_FAULT, 0, nowhere), f"read {_hex(readable)}",
                             _hex(PAGE_FAULT, 0, hole), _hex(PAGE_FAULT, reserved_bit, reserved),
                             _hex(PROTECTION_FAULT, 0), f"wrote {_hex(writable)}",
                             _hex(PAGE_FAULT, 3, readable), _hex(PAGE_FAULT, 2, hole),
                             _hex(PROTECTION_FAULT, 0), f"executed {_hex(code_page)}",
                             _hex(PAGE_FAULT, 0x11, data), _hex(PAGE_FAULT, 0x10, nowhere)])
                 for reserved_bit in (9, 8)))       # 8: of QEMU's processor, in the lab VM
    run.exits(0)
    _symptoms(run)


@lab.test("7.5", "runs SSE2", points=1,
          hint="Which bit of CR4 permits SSE? OSFXSR (bit 9). Without it each SSE instruction is an invalid "
               "opcode.")
def sse(plan: Plan) -> None:
    values = plan.values
    integers = [values.getrandbits(64) for _ in range(values.randrange(4, 20, 2))]
    doubles = [values.uniform(0.5, 2.0) for _ in range(values.randrange(4, 20, 2))]
    products = [1.0, 1.0]
    for i, number in enumerate(doubles):
        products[i % 2] *= number
    guest, code = _coded(plan, "long-sse", INTEGERS=integers, DOUBLES=[_bits(number) for number in doubles])
    run = plan.boot(guest)
    run.prints(code.lines(map(_hex, [sum(integers[0::2]), sum(integers[1::2]), *map(_bits, products)])))
    run.exits(0)
    _symptoms(run)


def _bits(number: float) -> int:
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return bits


@lab.test("7.5", "delivers interrupts in long mode", points=2,
          hint="Which selector does the guest's IDT name? SELECTOR_KERNEL_CODE: that descriptor must be in "
               "the GDT, 64-bit, with the right DPL. Lab 4's module needs no change.")
def devices(plan: Plan) -> None:
    values = plan.values
    ticks, step, key = values.randint(3, 6), values.randint(2, 999), values.randint(1, 15)
    text = values.text()
    changed = "".join(chr(ord(c) ^ key) for c in text)
    guest, code = _coded(plan, "long-devices", TICKS=ticks, STEP=step, KEY=key)
    run = plan.boot(guest, stdin=text.encode())
    run.prints(code.lines([*(_hex(step * tick) for tick in range(1, ticks + 1)), changed]))
    run.exits(0)
    _symptoms(run)


@lab.test("7.5", "runs four guests in one VM, and each in its own", points=2,
          hint="Which PML4 does each guest's CR3 point to, and what do its entries include? Each guest has "
               "its own tables, in its own part of RAM: entries and CR3 include space->base.")
def apart(plan: Plan) -> None:
    values = plan.values
    for args in ([f"--mem={4 * SLOT}"], ["--isolate", f"--mem={SLOT}"]):
        offset, beyond = values.randrange(FREE, 0x2e0000, 8), values.randrange(SLOT, 2 * SLOT, 8)
        marks = [values.number(63) for _ in range(4)]
        guests, codes = zip(*(_coded(plan, "long-apart", MARK=mark, OFFSET=offset, BEYOND=beyond)
                              for mark in marks))
        run = plan.boot(*guests, args=args)
        run.prints_lines([f"vcpu{vcpu}: {codes[vcpu].line(line)[:-1]}" for vcpu, mark in enumerate(marks)
                          for line in [*(_hex(mark + i) for i in range(8, 0, -1)), _hex(beyond, 0),
                                       _hex(HIGHER_HALF + beyond, 2)]])
        run.exits(0)
        _symptoms(run)


# ---------------------------------------------------------------- 7.6 the walk

@lab.test("7.6", "walks through four levels", points=3,
          hint="Which bits of the address choose the entry at each level, and which rights result? Nine bits "
               "for each, from bit 39, 30, 21 and 12 on; an entry has 8 bytes. Write and user need all four "
               "levels; PAGE_NX at one of them is enough.")
def walks(plan: Plan) -> None:
    plan.unit("long_mode", "walks")


@lab.test("7.6", "handles pages of 2 MB and 1 GB", points=2,
          hint="At which levels does PAGE_LARGE count, and how wide is the offset then? 30 bits in a PDPT "
               "entry, 21 in a PD entry; the bits of the entry below that are not part of the address.")
def walks_large(plan: Plan) -> None:
    plan.unit("long_mode", "walks_large")


@lab.test("7.6", "reports why there is no page", points=2,
          hint="Which cases are there? An entry is not present; a table is outside of RAM; the address is "
               "not canonical. Return the entries that were read, how many, and the reason.")
def walks_nowhere(plan: Plan) -> None:
    plan.unit("long_mode", "walks_nowhere")


@lab.test("7.6", "finds reserved bits", points=2,
          hint="Which bits must be 0 in an entry that is present? PAGE_NX without EFER.NXE; PAGE_LARGE in "
               "the PML4; in the entry of a large page the address bits that are in the page, but for bit "
               "12.")
def walks_reserved(plan: Plan) -> None:
    plan.unit("long_mode", "walks_reserved")


@lab.test("7.6", "reads up to the end of RAM, but not beyond it", points=1,
          hint="Where does the table end? The VMM must not read outside of `ram`, whatever CR3 and the "
               "entries say.")
def walks_edges(plan: Plan) -> None:
    plan.unit("long_mode", "walks_edges")


@lab.test("7.6", "writes a string from scattered pages", points=4,
          hint="Which registers have the address and the length of a WRITE in 64-bit code? All of RSI and "
               "RCX. Ask vcpu_translate for each page of the string, and check that the part is in RAM. The "
               "guests of earlier labs are hypercall_io's.")
def string_pages(plan: Plan) -> None:
    values = plan.values
    virtual, = _anywhere(values, 1)
    virtual = virtual & ~0xffffff               # its pages have one page table
    length, offset, number = values.randint(5000, 9000), values.randrange(1, PAGE), 0
    pages = _pages(values, FREE, RAM, (offset + length - 1) // PAGE + 1)
    guest, code = _coded(plan, "long-string", VIRTUAL=virtual, OFFSET=offset, LENGTH=length)
    run = plan.boot(guest, args=_maps([(virtual + i * PAGE, page, "w") for i, page in enumerate(pages)]))
    text = ""
    for _ in range(length):
        number = code.after(number, 0)
        text += chr(ord("a") + (number >> 16) % 26)
    run.prints(f"{text} [{number:08x}]\n")
    run.exits(0)
    _symptoms(run)
    _strings_outside(plan, virtual, _maps([(virtual, pages[0], "w")]))
    plan.unit("long_mode", "write_unread", kvm=True)
    plan.unit("long_mode", "strings", kvm=True)
    seed, length, word = values.getrandbits(16), values.randint(100, 2000), values.text()
    real = plan.boot(plan.guest("write", SEED=seed, LENGTH=length))     # as before
    real.prints(letters(seed, length) + "\n")
    real.exits(0)
    guest, code = _coded(plan, "high", TEXT=word)
    paging = plan.boot(guest, args=["--mode=paging"])
    paging.prints(code.line(f"{HIGHER_HALF + LOAD_DEFAULT & 0xffffffff:08x} {word}"))
    paging.exits(0)


def _strings_outside(plan: Plan, virtual: int, maps: Sequence[str]) -> None:
    """Strings that are not all in RAM; then one that is empty. `maps` maps the one page at `virtual`."""
    ram = plan.values.randint(8, 64) * LARGE_PAGE
    beyond: dict[str, Define] = {"VIRTUAL": HIGHER_HALF + ram, "PD_ENTRY": ram | 0x83}   # not RAM
    cases: list[tuple[dict[str, Define], int | None, str]] = [
        ({"VIRTUAL": virtual, "OFFSET": PAGE - 4, "LENGTH": 8}, virtual + PAGE, "the unmapped page"),
        ({"VIRTUAL": virtual, "OFFSET": PAGE - 64,
          "LENGTH": 1 << plan.values.randint(32, 63) | plan.values.randint(0, 60)},
         virtual + PAGE, "the unmapped page, because all 64 bits of RCX count"),
        ({**beyond, "OFFSET": 0, "LENGTH": 8}, HIGHER_HALF + ram, "the page that is mapped, but not to RAM"),
        ({**beyond, "OFFSET": -4, "LENGTH": 8}, HIGHER_HALF + ram, "the page that is mapped, but not to RAM"),
        ({"VIRTUAL": virtual + PAGE, "OFFSET": plan.values.randrange(PAGE), "LENGTH": 0}, None, "")]
    for defines, crashes_at, what in cases:
        guest, code = _coded(plan, "long-string", BLIND=None, **defines)
        run = plan.boot(guest, args=[f"--mem={ram}", *maps])
        first_line = code.line(_hex(int(str(defines["VIRTUAL"]))))
        if crashes_at is None:
            run.prints(first_line + code.line(""), hint="Which page does an empty string have? None: there "
                       "is nothing to translate, wherever RSI points to.")
            run.exits(0)
            continue
        run.symptom(lambda o: o.result.ending is Ending.SIGNAL,
                    "Where does RAM end, and which part of the string does WRITE print? Before that, check "
                    "that the part is in RAM: the guest's tables may map what is not.")
        run.must(_begins_with(first_line))
        run.exits(STATUS_CRASHED)
        run.says(rf"^vmm: vcpu0 \(.*\) crashed: .*0x0*{crashes_at:x}\b", what=f"the address of {what}")


def _begins_with(first_line: str) -> Condition:
    def condition(outcome: Outcome) -> Mismatch | None:
        if outcome.stdout.startswith(first_line):
            return None
        return Mismatch("the guest did not print its first line", first_line, outcome.stdout)
    return condition


@lab.test("7.6", "shows broken tables in the post-mortem", points=2,
          hint="What does long_walk return when there is no page? The post-mortem prints its reason and the "
               "entries that it read: set them even then.")
def post_mortem(plan: Plan) -> None:
    values = plan.values
    not_mapped = r"not mapped: (?!\(null\))\S"
    load, page = values.randrange(FREE, RAM - LARGE_PAGE, PAGE), values.randrange(RAM, 1 << 31, LARGE_PAGE)
    virtual = HIGHER_HALF + load
    index = {level: f"{name}\\[{virtual >> 12 + 9 * level & 511}\\]"
             for level, name in ((3, "PML4"), (2, "PDPT"), (1, "PD"))}
    moved = page | 0x83 | values.getrandbits(11) << 52 | 1 << 63       # in the PD: no execute
    cases = [*((level, values.getrandbits(64) & ~1, not_mapped) for level in index),    # not present
             (3, values.getrandbits(64) | 0x81, not_mapped),                            # a reserved bit
             (1, moved, f"at 0x{(page | load % LARGE_PAGE) // PAGE:x}[0-9a-f]{{3}}, .*, no execute")]
    for level, entry, found in cases:
        text = values.text()
        guest, code = _coded(plan, "long-broken", LOAD=load, LEVEL=level, CLEAR=MASK, SET=entry, TEXT=text)
        run = plan.boot(guest)
        run.prints(code.line(text))
        run.exits(STATUS_CRASHED)
        run.says(rf"^  page walk of 0x{virtual // PAGE:x}[0-9a-f]{{3}}: .*{index[level]} = "
                 f"{entry:016x}: {found}",
                 what=f"the page walk of the guest's code, with its new entry {entry:016x}, "
                      "and what is wrong")


# ---------------------------------------------------------------- helpers, and what mistakes look like

def _maps(pages: Sequence[tuple[int, int, str]]) -> list[str]:
    """--map options."""
    return [f"--map={virtual:#x}:{physical:#x}" + (f":{flags}" if flags else "")
            for virtual, physical, flags in pages]


_AT_ONCE = ("The guest crashed before its first exit, although its code is mapped. Check CS (L, D/B), EFER, "
            "the stack, and that KVM_SET_REGS gets RIP and all other registers.")
_AT_ONCE_BY_TSS = ("The guest crashed before its first exit, although its code is mapped: probably where the "
                   "processor takes a stack from the TSS. The guest has loaded TR again (`ltr`), so where "
                   "does the TSS descriptor in the GDT lead? Its upper 8 bytes hold bits 32 to 63 of the "
                   "base.")


def _symptoms(run: Planned, at_once: str = _AT_ONCE) -> None:
    def died_at_once(outcome: Outcome) -> bool:
        return outcome.said("KVM_EXIT_SHUTDOWN") and not outcome.said("the exit before: ")

    run.symptom(lambda o: o.said("KVM rejects the start state|KVM_SET_SREGS: Invalid"),
                "KVM_SET_SREGS returned EINVAL. Are EFER.LME, EFER.LMA, CR0.PG and CR4.PAE all set? LMA "
                "without one of the others is not a state that a processor can have.")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor rejected the start state: check each segment's type, S, P, DPL, L, D/B, G "
                "and limit. Test 7.3-entry-checks names the field.")
    run.symptom(lambda o: o.said(r"CS\.L is 0"),
                "Is the code segment one of 64-bit code? CS.L is 0: the processor uses only 32 bits of RIP, "
                "and the page walk in the post-mortem is of that address. See DESCRIPTOR_LONG in exercise "
                "7.2.")
    run.symptom(lambda o: died_at_once(o) and o.said(": not mapped: "),
                "The guest crashed before its first exit: its first instruction is not mapped. The page "
                "walk in the post-mortem shows at which level.")
    run.symptom(died_at_once, at_once)
    run.symptom(lambda o: o.status == STATUS_NOT_PAGED,
                "The guest found a page's number where no entries of 4 KB pages lead to that page. Does "
                "--map write the last table's entry? The guest reads the tables itself.")
    run.symptom(lambda o: o.status == STATUS_STRAY,
                "The guest got an exception that it did not expect. Which descriptor is wrong: the kernel "
                "code segment of its gates, or the TSS? An SSE instruction needs CR4.OSFXSR.")


# ---------------------------------------------------------------- what `make lab7` boots

_RING3 = ("--map=0x40000000:0x101000:u", "--map=0x40001000:0x200000:wu")
lab.demonstrations = [
    Demonstration("A 64-bit guest in the higher half", ("long-hello",)),
    Demonstration("The state in which a guest starts", ("long-state",)),
    Demonstration("What two guests see of their processors", ("long-cpuid",) * 2),
    Demonstration("Ring 3 and back by SYSCALL and SYSRET", ("long-syscall",), _RING3),
    Demonstration("A small 64-bit kernel in C", ("kernel64",), (), b"threads\nmemory\nexit\n"),
]
