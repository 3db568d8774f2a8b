"""Lab 5, paging: descriptors, page tables, the jump into protected mode, the walk, address spaces.

Guests with paging are flat images: --mode=paging. --map and --unmap say which pages are mapped where.
"""

from __future__ import annotations

import re
from pathlib import Path

from grader.core.expectations import Condition, Mismatch
from grader.core.framework import Demonstration, Lab
from grader.core.line_code import KERNEL, LineCode
from grader.core.guests import Define
from grader.core.outcome import STATUS_CRASHED, Outcome
from grader.core.plan import Plan, Planned
from grader.core.values import Values

lab = Lab(5, "paging", needs=("real", "paging32", "protected"))

PAGE, LARGE_PAGE = 0x1000, 0x400000
HIGHER_HALF, LOAD_DEFAULT = 0x80000000, 0x100000
RAM = 16 << 20                  # the VMM's default
FREE = 0x200000                 # from here to the end of RAM no guest of this lab has code or stack
TABLES = 0x3000, 0x20000        # where page tables may be
PRESENT, LARGE = 1, 1 << 7
STATUS_USAGE = 64
STATUS_STRAY = 62               # of guests/protected.inc
STATUS_NOT_PAGED = 61           # the same
PAGING = "--mode=paging"


def _hex(*numbers: int) -> str:
    """As guests print them."""
    return " ".join(f"{number & 0xffffffff:08x}" for number in numbers)


def _coded(plan: Plan, name: str, **defines: Define) -> tuple[Path, LineCode]:
    """A guest whose lines end with a number that only the guest computes."""
    code = LineCode(plan.values, KERNEL)
    return plan.guest(name, LINE_CODE=list(code.image), **defines), code


def _pages(values: Values, start: int, end: int, count: int) -> list[int]:
    """Different pages in random order."""
    return [page * PAGE for page in values.sample(range(start // PAGE, end // PAGE), count)]


# ---------------------------------------------------------------- 5.1 descriptors

@lab.test("5.1", "encodes a descriptor", points=5,
          hint="Into which bits does each piece of base and limit go (SDM vol. 3, 3.4.5, figure 3-8)? A "
               "limit of over 1 MB is stored in pages, and G says so.")
def encode(plan: Plan) -> None:
    plan.unit("paging", "encode")


@lab.test("5.1", "loads a segment register like the processor", points=5,
          hint="Which descriptor does a selector name, and in which unit is the register's limit? Its index "
               "is the bits above the low three (selector >> 3). In the register the limit counts bytes, "
               "even with G. Every other field of the descriptor has a counterpart in struct kvm_segment.")
def load(plan: Plan) -> None:
    plan.unit("paging", "load")


@lab.test("5.1", "writes the GDT", points=4,
          hint="Which descriptor is at the place that each selector in abi.h names? Null, kernel code and "
               "data, user code and data (DPL 3), TSS. The TSS itself is 104 zero bytes; its limit is the "
               "last valid offset.")
def gdt(plan: Plan) -> None:
    plan.unit("paging", "gdt")


# ---------------------------------------------------------------- 5.2 the directory

@lab.test("5.2", "maps all guest memory in both halves", points=8,
          hint="Which physical address does entry i map, and which other entry maps the same? Entry i maps "
               "the i-th 4 MB of the guest's memory, large, writable and present; so does the entry as far "
               "above that of HIGHER_HALF. All others are 0.")
def directory(plan: Plan) -> None:
    plan.unit("paging", "directory")


# ---------------------------------------------------------------- 5.3 single pages

@lab.test("5.3", "maps and unmaps 4 KB pages", points=5,
          hint="Which entry grants the rights, and which restricts them? The directory entry points to a "
               "page table and grants every right; the table's entry has the page and its rights. Its index "
               "is bits 12 to 21 of the address. Entries hold guest-physical addresses: subtract "
               "space->base to find a table in `memory`.")
def map_pages(plan: Plan) -> None:
    plan.unit("paging", "map")


@lab.test("5.3", "splits a 4 MB page and keeps its other pages", points=5,
          hint="What must the other 1023 entries of a new table say? The same as the 4 MB page: the same "
               "memory with the same rights. Only then change the one.")
def split(plan: Plan) -> None:
    plan.unit("paging", "split")


@lab.test("5.3", "keeps the tables of two guests apart", points=2,
          hint="What do your functions remember from one call to the next? Everything about a guest is in "
               "its struct address_space; a static variable is the same one for all guests.")
def two_spaces(plan: Plan) -> None:
    plan.unit("paging", "two_spaces")


@lab.test("5.3", "rejects addresses that are not a page of the guest", points=3,
          hint="Which addresses are not pages of this guest? Both must be multiples of PAGE_BYTES, and the "
               "physical one must be below space->bytes. If not, return EINVAL before anything is changed, "
               "even with flags 0.")
def refused(plan: Plan) -> None:
    plan.unit("paging", "refused")


@lab.test("5.3", "reports when no page table is left", points=3,
          hint="Where does the next table come from, and where is the last one? From space->next_table on; "
               "a table that would end past TABLES_END does not exist: return ENOMEM.")
def exhausted(plan: Plan) -> None:
    plan.unit("paging", "exhausted")


# ---------------------------------------------------------------- 5.4 the jump

@lab.test("5.4", "computes the start state", points=4,
          hint="Does each value match the table in section 5.4 of the handout? CR0, CR3, CR4 and EFER; "
               "IDTR's limit; RIP, RSP, RFLAGS and the other general registers. What else is in `sregs` "
               "stays as KVM returned it.")
def state(plan: Plan) -> None:
    plan.unit("paging", "state")


@lab.test("5.4", "loads the segment registers, TR and GDTR", points=3,
          hint="Where do the hidden parts come from? Load each register with segment_load from the GDT in "
               "memory: kernel code for CS, kernel data for the other five, the TSS for TR. GDTR's base is "
               "linear, its limit the last valid byte.")
def descriptors_loaded(plan: Plan) -> None:
    plan.unit("paging", "descriptors_loaded")


@lab.test("5.4", "passes Intel's VM-entry checks", points=5,
          hint="Which rule of SDM vol. 3, 27.3.1 does the state break? A loaded segment is accessed (type "
               "bit 0), a TSS in use is busy (type 11), and limits agree with G. An LDTR that is not used "
               "is `unusable`.")
def entry_checks(plan: Plan) -> None:
    plan.unit("paging", "entry_checks")


@lab.test("5.4", "sets the state in its vCPU, with EBX", points=2,
          hint="What does paging_enter change in the vCPU? The state that KVM_GET_SREGS has just returned "
               "for this vCPU, as paging_state changes it, goes back with KVM_SET_SREGS. Only paging_enter "
               "knows `ebx`: it must be in RBX before KVM_SET_REGS.")
def ebx(plan: Plan) -> None:
    plan.unit("paging", "ebx", kvm=True)


@lab.test("5.4", "reports a failure to set the start state", points=2,
          hint="Which calls of paging_enter can fail? KVM_GET_SREGS, KVM_SET_SREGS and KVM_SET_REGS: then "
               "fail with STATUS_NO_KVM and a message that names the call. map_options can fail as well: "
               "then return its status.")
def enter_failure(plan: Plan) -> None:
    plan.unit("paging", "enter_failure", kvm=True)


@lab.test("5.4", "starts a guest in the higher half", points=4,
          hint="What does a guest in the higher half need at its first instruction? CR0.PE and CR0.PG, CR3 "
               "with the directory's address, CR4.PSE for 4 MB pages, and RIP in the higher half.")
def high(plan: Plan) -> None:
    values = plan.values
    for address in (LOAD_DEFAULT, values.randrange(FREE, RAM - 0x10000, PAGE)):
        text, offset = values.text(), values.randrange(0, 256)
        guest, code = _coded(plan, "high", LOAD=address, ENTRY=offset, TEXT=text)
        run = plan.boot(guest, args=[PAGING, f"--load={address:#x}",
                                     f"--entry={HIGHER_HALF + address + offset:#x}"])
        run.prints(code.line(f"{_hex(HIGHER_HALF + address)} {text}"))
        run.exits(0)
        _symptoms(run)


@lab.test("5.4", "sets a start state that the guest reads back", points=3,
          hint="Which register differs? The guest prints its selectors, control registers, GDTR and flags; "
               "then it loads all segment registers and TR again from the GDT.")
def start_state(plan: Plan) -> None:
    text = plan.values.text()
    guest, code = _coded(plan, "start-state", TEXT=text)
    run = plan.boot(guest, args=[PAGING])
    state_lines = [("cs", 8), *((name, 0x10) for name in ("ss", "ds", "es", "fs", "gs")), ("tr", 0x28),
                   ("cr0", 0x80010031), ("cr3", 0x2000), ("cr4", 0x10), ("gdt limit", 0x2f),
                   ("gdt base", 0x80001000), ("eflags", 2)]
    expected = [f"{name} {_hex(value)}" for name, value in state_lines]
    stack = f"esp {_hex(HIGHER_HALF + LOAD_DEFAULT)}"
    run.prints(code.lines([*expected, stack, text]))
    run.exits(0)
    _symptoms(run)


@lab.test("5.4", "maps the same memory in both halves", points=2,
          hint="Which byte is at an address, and which at HIGHER_HALF above it? The same one, up to the end "
               "of RAM.")
def halves(plan: Plan) -> None:
    values = plan.values
    ram = values.choice([8, 16, 32]) << 20
    addresses = [FREE, ram - 4, *(values.randrange(FREE, ram - 4, 4) for _ in range(6))]
    marks = [values.number() for _ in addresses]
    guest, code = _coded(plan, "halves", ADDRESSES=addresses, VALUES=marks)
    run = plan.boot(guest, args=[PAGING, f"--mem={ram}"])
    run.prints(code.lines([_hex(mark, ~mark) for mark in marks]))
    run.exits(0)
    _symptoms(run)


@lab.test("5.4", "maps a random permutation of pages", points=4,
          hint="Where does each page of --map point to, and what happens to the neighbours of a page that "
               "--unmap removes? The guest numbers physical pages and reads them where they are mapped. The "
               "neighbours keep their mapping when the 4 MB page is split.")
def permutation(plan: Plan) -> None:
    values = plan.values
    region = values.randrange(0x40000000, 0x70000000, LARGE_PAGE)
    inside = values.randrange(FREE + 16 * PAGE, LARGE_PAGE, PAGE)      # in a 4 MB page of the kernel's own
    physical = _pages(values, LARGE_PAGE, RAM, 26)
    virtual = [*_pages(values, region, region + 3 * LARGE_PAGE, 25), HIGHER_HALF + inside]
    mark, addend, offset = values.number(), values.number(20), values.randrange(0, PAGE, 4)
    order = list(range(len(virtual)))
    values.shuffle(order)
    guest, code = _coded(plan, "pages", PAGES=physical, VIRTUAL=[virtual[i] for i in order], MARK=mark,
                         ADDEND=addend, OFFSET=offset)
    maps = [f"--map={v:#x}:{p:#x}:w" for v, p in zip(virtual, physical)]
    run = plan.boot(guest, args=[PAGING, *maps])
    run.prints(code.lines([_hex(mark + i) for i in order]
                          + [_hex(mark + addend + i) for i in range(len(physical))]))
    run.exits(0)
    _symptoms(run)


@lab.test("5.4", "raises the page faults that the access rights require", points=4,
          hint="Which bits of the error code differ? Bit 0: the page was present; bit 1: it was a write. In "
               "ring 0 a write to a read-only page faults only with CR0.WP.")
def faults(plan: Plan) -> None:
    values = plan.values
    nowhere, readable, writable = _pages(values, 0x40000000, 0x70000000, 3)
    hole = HIGHER_HALF + values.randrange(LARGE_PAGE, RAM, PAGE)
    nowhere, hole = (page + values.randrange(0, PAGE, 4) for page in (nowhere, hole))
    first, second = _pages(values, FREE, LARGE_PAGE, 2)
    guest, code = _coded(plan, "faults", READS=[nowhere, readable, hole],
                         WRITES=[writable, readable, hole, nowhere])
    run = plan.boot(guest, args=[PAGING, f"--map={readable:#x}:{first:#x}",
                                 f"--map={writable:#x}:{second:#x}:w", f"--unmap={hole & -PAGE:#x}"])
    run.symptom(lambda o: f"wrote {_hex(readable)}" in o.stdout,
                "The kernel wrote to a read-only page without a fault. Is CR0.WP (bit 16) set? Without it "
                "ring 0 may write to every page.")
    run.prints(code.lines([_hex(nowhere, 0), f"read {_hex(readable)}", _hex(hole, 0),
                           f"wrote {_hex(writable)}", _hex(readable, 3), _hex(hole, 2), _hex(nowhere, 2),
                           "divide error"]))
    run.exits(0)
    _symptoms(run)


@lab.test("5.4", "lets a guest enter ring 3 and return", points=4,
          hint="What does the processor read on the way from ring 3 to ring 0, and what does ring 3 need to "
               "access a page? It reads the TSS of the GDT. An access from ring 3 needs PAGE_USER in both "
               "levels; bit 2 of the error code says that it came from there.")
def ring3(plan: Plan) -> None:
    values = plan.values
    code, stack, readable, nowhere, kernel = _pages(values, 0x40000000, 0x70000000, 5)
    stack_page, data_page, kernel_page = _pages(values, FREE, LARGE_PAGE, 3)
    guest, line_code = _coded(plan, "ring3", USER_CODE=code, USER_STACK=stack,
                              READS=[readable, HIGHER_HALF + FREE, nowhere],
                              WRITES=[stack, readable, kernel, nowhere])
    maps = [(code, LOAD_DEFAULT + PAGE, "u"), (stack, stack_page, "wu"), (readable, data_page, "u"),
            (kernel, kernel_page, "w")]
    run = plan.boot(guest, args=[PAGING, *(f"--map={v:#x}:{p:#x}:{flags}" for v, p, flags in maps)])
    run.prints(line_code.lines([f"went well {_hex(readable, 3)}", f"fault {_hex(HIGHER_HALF + FREE, 5, 3)}",
                                f"fault {_hex(nowhere, 4, 3)}", f"went well {_hex(stack, 3)}",
                                f"fault {_hex(readable, 7, 3)}", f"fault {_hex(kernel, 7, 3)}",
                                f"fault {_hex(nowhere, 6, 3)}"]))
    run.exits(0)
    _symptoms(run)


@lab.test("5.4", "delivers interrupts in protected mode", points=3,
          hint="Which selector does the guest's IDT name? SELECTOR_KERNEL_CODE: that descriptor must be in "
               "the GDT, with the right DPL. Lab 4's module needs no change.")
def devices(plan: Plan) -> None:
    values = plan.values
    ticks, step, key = values.randint(3, 6), values.randint(2, 999), values.randint(1, 15)
    text = values.text()
    changed = "".join(chr(ord(c) ^ key) for c in text)
    guest, code = _coded(plan, "devices", TICKS=ticks, STEP=step, KEY=key)
    run = plan.boot(guest, args=[PAGING], stdin=text.encode())
    run.prints(code.lines([*(_hex(step * tick) for tick in range(1, ticks + 1)), changed]))
    run.exits(0)
    _symptoms(run)


# ---------------------------------------------------------------- 5.5 the walk

@lab.test("5.5", "walks through both levels", points=4,
          hint="Which bits of the address choose the entry at each level, and which rights result? Bits 22 "
               "to 31 choose the directory entry, bits 12 to 21 the table entry; an entry has 4 bytes. A "
               "right is granted only if both levels grant it.")
def walks(plan: Plan) -> None:
    plan.unit("paging", "walks")


@lab.test("5.5", "handles 4 MB pages, and CR4.PSE", points=3,
          hint="When does PAGE_LARGE count, and how wide is the offset then? Only with CR4.PSE. Then bits "
               "22 to 31 of the entry are the frame, and bits 0 to 21 of the address the offset.")
def walks_large(plan: Plan) -> None:
    plan.unit("paging", "walks_large")


@lab.test("5.5", "reports why there is no page", points=2,
          hint="Which four cases are there? The directory entry or the table entry is not present; the "
               "directory or the table is outside of RAM. The reason must say which it was; return the "
               "entries that were read as well.")
def walks_nowhere(plan: Plan) -> None:
    plan.unit("paging", "walks_nowhere")


@lab.test("5.5", "reads up to the end of RAM, but not beyond it", points=1,
          hint="Can the sum in your check wrap around? The VMM must not read outside of `ram`, whatever CR3 "
               "and the directory say. read_entry makes this check for you.")
def walks_edges(plan: Plan) -> None:
    plan.unit("paging", "walks_edges")


@lab.test("5.5", "reads a string from scattered pages", points=3,
          hint="Where do the addresses of a WRITE come from? HC_WRITE calls vcpu_translate for each page of "
               "the string, and that calls your page_walk.")
def string_pages(plan: Plan) -> None:
    values = plan.values
    length, offset, number = values.randint(5000, 9000), values.randrange(1, PAGE), 0
    virtual = values.randrange(0x40000000, 0x70000000, PAGE)
    pages = _pages(values, FREE, RAM, (offset + length - 1) // PAGE + 1)
    maps = [f"--map={virtual + i * PAGE:#x}:{page:#x}:w" for i, page in enumerate(pages)]
    guest, code = _coded(plan, "string-pages", VIRTUAL=virtual, OFFSET=offset, LENGTH=length)
    run = plan.boot(guest, args=[PAGING, *maps])
    letters = ""
    for _ in range(length):
        number = code.after(number, 0)
        letters += chr(ord("a") + (number >> 16) % 26)
    run.prints(f"{letters} [{number:08x}]\n")
    run.exits(0)
    _symptoms(run)


@lab.test("5.5", "reports the unmapped page in the post-mortem", points=2,
          hint="What does page_walk return when there is no page? The post-mortem prints its reason and the "
               "entries that it read: set them even then.")
def post_mortem(plan: Plan) -> None:
    values = plan.values
    entry = HIGHER_HALF + LOAD_DEFAULT
    run = plan.boot(plan.guest("high"), args=[PAGING, f"--unmap={entry:#x}"])
    run.exits(STATUS_CRASHED)
    run.must(_walks_to_table(entry))
    for mapped in values.sample((True, False), 2):
        _walk_of_own_tables(plan, mapped)
    virtual, page = values.randrange(0x40000000, 0x70000000, PAGE), values.randrange(FREE, RAM, PAGE)
    guest, code = _coded(plan, "string-pages", VIRTUAL=virtual, OFFSET=PAGE - 4, LENGTH=8, BLIND=None)
    string = plan.boot(guest, args=[PAGING, f"--map={virtual:#x}:{page:#x}:w"])
    string.must(lambda o: None if o.stdout.startswith(code.line(_hex(virtual))) else
                Mismatch("the guest did not print its first line", code.line(_hex(virtual)), o.stdout))
    string.exits(STATUS_CRASHED)
    string.says(rf"^vmm: vcpu0 \(.*\) crashed: .*0x0*{virtual + PAGE:x}\b",
                what="the address of the unmapped page")


def _walks_to_table(address: int) -> Condition:
    """The post-mortem shows the directory entry of a page table that the module made, and no page."""
    def condition(outcome: Outcome) -> Mismatch | None:
        found = re.search(rf"^  page walk of 0x{address:08x}: .*\[{address // LARGE_PAGE}\] = "
                          r"([0-9a-f]{8}).*: not mapped: (?!\(null\))\S", outcome.stderr, re.M)
        entry = int(found[1], 16) if found else 0
        if TABLES[0] <= entry < TABLES[1] and entry & PRESENT and not entry & LARGE:
            return None
        return Mismatch("standard error does not mention the page walk of the guest's first instruction: its "
                        "directory entry, which leads to a page table, `not mapped:`, and page_walk's reason")
    return condition


def _walk_of_own_tables(plan: Plan, mapped: bool) -> None:
    """A guest crashes in a page that entries of its own lead to, or no longer lead to."""
    values = plan.values
    away, (table, page) = values.randrange(0x40000000, 0x70000000, PAGE), _pages(values, FREE, RAM, 2)
    directory_entry, table_entry = table | 0x21 | values.randrange(4) * 2, page | 0x60 | mapped
    guest, code = _coded(plan, "high", TEXT=values.text(), AWAY=away, PAGE=page,
                         DIRECTORY_ENTRY=directory_entry, TABLE_ENTRY=table_entry)
    run = plan.boot(guest, args=[PAGING])
    run.exits(STATUS_CRASHED)
    end = f"at 0x{page // PAGE:x}..., " if mapped else r"not mapped: (?!\(null\))\S"
    run.says(rf"^  page walk of 0x{away // PAGE:05x}...: .*\[{away // LARGE_PAGE}\] = {directory_entry:08x}, "
             rf".*\[{away // PAGE % 1024}\] = {table_entry:08x}: {end}",
             what="the page walk of the guest's last instruction, with the entries that the guest wrote")


# ---------------------------------------------------------------- 5.6 isolated guests

@lab.test("5.6", "gives each guest its part of RAM", points=2,
          hint="Which part of RAM does each guest get? All of it if it is alone in its VM; otherwise "
               "SLOT_BYTES, starting from as many slots as its index in the VM says, if RAM reaches that "
               "far.")
def spaces(plan: Plan) -> None:
    plan.unit("paging", "spaces")


@lab.test("5.6", "isolates the guests of one VM", points=3,
          hint="Which directory does each guest's CR3 point to, and what does it map? Each guest has its "
               "own, in its own 4 MB, which maps those 4 MB and nothing else.")
def apart(plan: Plan) -> None:
    values = plan.values
    for count in (4, 2):
        offset, beyond = values.randrange(FREE, 0x2e0000, 4), values.randrange(LARGE_PAGE, RAM, 4)
        marks = [values.number(31) for _ in range(count)]
        guests, codes = zip(*(_coded(plan, "apart", MARK=mark, OFFSET=offset, BEYOND=beyond)
                              for mark in marks))
        # For each guest in its own tables: one that is new, then one that is there already.
        maps = [f"--map={0x40000000 + i * PAGE:#x}:{FREE + i * PAGE:#x}" for i in range(2)]
        run = plan.boot(*guests, args=[PAGING, f"--mem={count * 4}M", *maps])
        run.symptom(lambda o: o.status == STATUS_USAGE,
                    f"The VMM has refused the guests, and its RAM is enough: {count} times 4 MB. A guest's "
                    "part may end exactly where RAM ends; space_open refuses only a part that ends after it.")
        run.symptom(lambda o: any(f"vcpu{vcpu}: {_hex(marks[0] + 8)}" in o.stdout
                                  for vcpu in range(1, 4)),
                    "Another guest prints what vcpu0 should print: they share one page directory. Do CR3 "
                    "and each entry of the directory include space->base?")
        run.prints_lines([f"vcpu{vcpu}: {codes[vcpu].line(line)[:-1]}" for vcpu, mark in enumerate(marks)
                          for line in [*(_hex(mark + i) for i in range(8, 0, -1)), _hex(beyond, 0),
                                       _hex(HIGHER_HALF + beyond, 2)]])
        run.exits(0)
        _symptoms(run)
    small = plan.boot(*[plan.guest("high")] * 3, args=[PAGING, "--mem=8M"])
    small.exits(STATUS_USAGE, hint="How much RAM do three guests need? 12 MB: with less, fail with "
                                   "STATUS_USAGE.")


# ---------------------------------------------------------------- symptoms of this lab

def _symptoms(run: Planned) -> None:
    def died_at_once(outcome: Outcome) -> bool:
        return outcome.said("KVM_EXIT_SHUTDOWN") and outcome.said("What follows is from the start")

    run.symptom(lambda o: o.status == STATUS_NOT_PAGED,
                "The guest ran, and no table leads to where it ran, or to what it read. Does paging_enter "
                "set CR0.PG, and CR3 to the directory's address? Do the directory's entries lead to the "
                "physical addresses, and those of --map to tables?")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor rejected the start state: check each segment's type, S, P, DPL, G and "
                "limit, and CR0. Test 5.4-entry-checks names the field.")
    run.symptom(lambda o: died_at_once(o) and o.said(": not mapped: "),
                "The guest crashed before its first exit: its first instruction is not mapped. The page "
                "walk in the post-mortem shows at which level. If it follows the entry of a 4 MB page (bit "
                "7) to a page table, check CR4.PSE.")
    if any(word.startswith("--map=") for word in run.run.argv):
        run.symptom(died_at_once,
                    "The guest crashed before its first exit, although its code is mapped. Are the pages of "
                    "--map mapped? paging_enter must call map_options after directory_build, which "
                    "writes all of the directory. (If a test without --map fails, fix that first.)")
    run.symptom(died_at_once,
                "The guest crashed before its first exit, although its code is mapped. make explain shows at "
                "which instruction. Check CR4.PSE, CS (base, limit, D/B) and the stack.")
    run.symptom(lambda o: o.status == STATUS_STRAY,
                "The guest got an exception that it did not expect. Which descriptor is wrong: that of a "
                "segment that it loads, the kernel code segment of its gates, or the TSS? See exercise "
                "5.1.")


# ---------------------------------------------------------------- what `make lab5` boots

lab.demonstrations = [
    Demonstration("A guest in the higher half", ("high",), ("--mode=paging",)),
    Demonstration("The state in which a guest starts", ("start-state",), ("--mode=paging",)),
    Demonstration("Ring 3 and back, by two page faults", ("ring3",),
                  ("--mode=paging", "--map=0x40000000:0x101000:u", "--map=0x40001000:0x200000:wu")),
    Demonstration("Two guests, each in its own memory", ("apart",) * 2, ("--mode=paging",)),
]
