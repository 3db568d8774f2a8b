"""Lab 2, hypercalls: port 0x500 with its calls, and strings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from grader.core import random_code
from grader.core.expectations import Condition, Mismatch
from grader.core.framework import Demonstration, Lab
from grader.core.outcome import STATUS_CRASHED, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.runs import Ending, Step
from grader.core.values import letters

lab = Lab(2, "hypercalls", needs=("real",))

HYPERCALL_PORT, STRING_PORT = 0x500, 0x501
STATUS_GUEST_MAX = 63


# ---------------------------------------------------------------- 2.1 decode the exit

@lab.test("2.1", "decodes port, direction, size and count", points=6,
          hint="Where are the fields of the access, and where is its data (api.rst section 5, KVM_EXIT_IO)? "
               "The fields are in run->io; the data starts data_offset bytes after the start of kvm_run "
               "itself.")
def decode(plan: Plan) -> None:
    plan.unit("hypercall", "decode")


@lab.test("2.1", "reads operands of every size", points=5,
          hint="How many bytes has an operand, and where does operand number `index` start? Operands follow "
               "each other, `size` bytes each, lowest byte first. Don't touch the bytes after it, and clear "
               "the bits above it.")
def operands(plan: Plan) -> None:
    plan.unit("hypercall", "operands")


@lab.test("2.1", "writes answers of every size", points=4,
          hint="How many bytes has the answer? Exactly `size`: no other byte may change.")
def answers(plan: Plan) -> None:
    plan.unit("hypercall", "answers")


# ---------------------------------------------------------------- 2.2 EXIT and PUTCHAR

@lab.test("2.2", "ends with the guest's exit status", points=4,
          hint="Which register holds the status, and what do you return? The status is BL, the low byte of "
               "RBX. vcpu_end only records it; the vCPU stops when you return its result, STEP_END.")
def exit_status(plan: Plan) -> None:
    for status in (0, plan.values.randint(1, 30), plan.values.randint(31, 63)):
        run = plan.boot(plan.guest("hello", TEXT="", STATUS=status))
        run.exits(status)
        _common_symptoms(run)
    _computed(plan, letters=0)


@lab.test("2.2", "clamps an exit status above 63, and reports it", points=2,
          hint="Which statuses may a guest give? Those above STATUS_GUEST_MAX are reserved for the VMM: end "
               "with STATUS_GUEST_MAX, and report the guest's status with fail. STATUS_GUEST_MAX itself is "
               "a guest's.")
def status_cut(plan: Plan) -> None:
    for status in (64, plan.values.randint(65, 127), plan.values.randint(128, 255)):
        run = plan.boot(plan.guest("hello", TEXT="", STATUS=status))
        run.exits(63)
        run.must(_names_status(status))
        run.symptom(_seen_as_negative,
                    "Which type has the status? A guest may give up to 255: in a type of 8 bits with a sign, "
                    "128 and more are negative, and seem to be less than any limit.")
        _common_symptoms(run)
    for status in (0, plan.values.randint(1, 62), STATUS_GUEST_MAX):
        run = plan.boot(plan.guest("hello", TEXT="", STATUS=status))
        run.exits(status)
        run.must(_reports_nothing(status))
        _common_symptoms(run)
    _computed(plan, letters=0, large=True)


@lab.test("2.2", "prints a line", points=5,
          hint="Which register holds the character, and which function prints it? It is BL, the low byte of "
               "RBX; stage.console_write prints it.")
def putchar(plan: Plan) -> None:
    text = plan.values.text(8)
    run = plan.boot(plan.guest("hello", TEXT=text))
    run.prints(text + "\n")
    run.exits(0)
    run.symptom(lambda o: o.stdout != "" and len(set(o.stdout)) == 1,
                "It is always the same character. Which register holds the character to print? It is in BL "
                "(RBX); AL has the number of the call.")
    _common_symptoms(run)
    _computed(plan)


@lab.test("2.2", "accepts 8, 16 and 32 bits, whatever else the registers hold", points=4,
          hint="How wide is the call's number, and how wide are its arguments? The number is the operand, "
               "as wide as io.size says. The character and the status are BL alone, not all of RBX.")
def widths(plan: Plan) -> None:
    text, status = plan.values.word(3), plan.values.randint(1, 63)
    garbage = plan.values.number(32) & 0xffffff00
    run = plan.boot(plan.guest("widths", TEXT=text, STATUS=status, GARBAGE=garbage))
    run.prints(text + "\n")
    run.exits(status)
    _common_symptoms(run)
    _computed(plan, MIXED=None)


@lab.test("2.2", "runs counter, fibonacci and multiplication", points=3,
          hint="Is every PUTCHAR printed once, and in order?")
def classics(plan: Plan) -> None:
    first = plan.values.randint(1, 900)
    counter = plan.boot(plan.guest("counter", FIRST=first, LAST=first + 9, DELAY=50))
    counter.prints("".join(f"{n}\n" for n in range(first, first + 10)))
    a, b = plan.values.randint(1, 9), plan.values.randint(10, 99)
    numbers = [a, b]
    while numbers[-1] + numbers[-2] <= 5000:
        numbers.append(numbers[-1] + numbers[-2])
    fibonacci = plan.boot(plan.guest("fibonacci", A=a, B=b, LIMIT=5000))
    fibonacci.prints(" ".join(map(str, numbers)) + "\n")
    start = plan.values.randint(2, 90)
    factors = range(start, start + 4)
    table = plan.boot(plan.guest("multiplication", FROM=start, TO=start + 3))
    table.prints("".join(" ".join(f"{x}x{y}={x * y}" for y in factors) + "\n" for x in factors))
    for run in (counter, fibonacci, table):
        run.exits(0)
        _common_symptoms(run)
    _computed(plan, letters=plan.values.randint(100, 200))


@lab.test("2.2", "reads the registers without KVM_CAP_SYNC_REGS", points=2,
          hint="Has KVM copied the registers into kvm_run (api.rst 6.74)? The bits of kvm_valid_regs show "
               "it. If it has not, read them with KVM_GET_REGS.")
def registers(plan: Plan) -> None:
    plan.unit("hypercall", "registers", kvm=True).symptom(
        lambda o: ", with KVM_SYNC_X86_REGS" in o.stdout,
        "Which registers has KVM copied into kvm_run (api.rst 6.74)? All of struct kvm_regs, as "
        "KVM_GET_REGS would read them: pass on each one, and not only those that the calls use.")


@lab.test("2.2", "ends the vCPU when its registers can't be read", points=2,
          hint="What happens if KVM_GET_REGS fails? vcpu_registers reports it with fail and returns "
               "STATUS_CRASHED; its caller must end the vCPU (vcpu_end) with that status.")
def registers_failed(plan: Plan) -> None:
    plan.unit("hypercall", "registers_failed", kvm=True)


@lab.test("2.2", "prints through stage.console_write", points=2,
          hint="Where does the character go? Everything that a guest prints goes through "
               "stage.console_write: lab 3 installs another function there.")
def console_stage(plan: Plan) -> None:
    plan.unit("hypercall", "console_stage", kvm=True)


@lab.test("2.2", "handles each call of an exit, up to EXIT", points=2,
          hint="How many operands can one exit have, and which type counts them? io.count is 32 bits wide. "
               "If one operand returns STEP_END, don't handle those after it.")
def each_operand(plan: Plan) -> None:
    plan.unit("hypercall", "each_operand", kvm=True)


# ---------------------------------------------------------------- 2.3 GETCHAR

@lab.test("2.3", "reads characters with 8, 16 and 32 bits", points=6,
          hint="Which of the two steps takes the character? The OUT only records that the call was made. "
               "The IN that follows takes a character and passes it to the guest (io_answer).")
def getchar(plan: Plan) -> None:
    for width in (8, 16, 32):
        text = plan.values.text(5) + "\n"
        key = plan.values.randint(1, 15)
        run = plan.boot(plan.guest("echo", WIDTH=width, KEY=key), stdin=text.encode())
        changed = "".join(chr(ord(c) ^ key) for c in text)
        run.prints(changed)
        run.exits(0)
        run.symptom(lambda o, changed=changed: o.hung and o.stdout == changed,  # type: ignore[misc]
                    "All characters arrived, but the end of input did not: after the last character the "
                    "guest must get GETCHAR_END (-2), not GETCHAR_NOTHING (-1).")
        _getchar_symptoms(run)
        _computed_from_input(plan, width, text.encode())


@lab.test("2.3", "distinguishes 'nothing yet' from 'end of input'", points=5,
          hint="What does stage.getchar return while there is no input, and what after the last character? "
               "GETCHAR_NOTHING (-1) and GETCHAR_END (-2). Pass both to the guest unchanged, in the "
               "operand's width.")
def waits(plan: Plan) -> None:
    for width in (8, 16, 32):
        first, second = plan.values.word(4), plan.values.word(5)
        key = plan.values.randint(1, 15)
        changed = ["".join(chr(ord(c) ^ key) for c in word) for word in (first, second)]
        steps = (Step(send=first.encode()), Step(after=changed[0].encode(), send=second.encode()),
                 Step(after=changed[1].encode(), close=True))
        run = plan.boot(plan.guest("echo", WIDTH=width, KEY=key), hold_stdin=True, steps=steps)
        run.prints("".join(changed))
        run.exits(0)
        run.symptom(lambda o: o.status == 0 and o.result.steps_done == 1,
                    "The guest mistook a moment without input for the end of input: GETCHAR_NOTHING is -1, "
                    "all bits of the operand set, and GETCHAR_END is -2.")
        _getchar_symptoms(run)
        _computed_from_input(plan, width, (first + second).encode())


@lab.test("2.3", "passes every byte value", points=4,
          hint="Which type holds a character? One from 0 to 255: a char would be negative from 128 on, and "
               "look like GETCHAR_NOTHING or GETCHAR_END. 0 is a character too, and ends no string here.")
def all_bytes(plan: Plan) -> None:
    text = bytes(plan.values.sample(range(256), 256))
    run = plan.boot(plan.guest("echo", WIDTH=32), stdin=text)
    run.prints(text.decode("latin-1"))
    run.exits(0)
    _computed_from_input(plan, 32, text)


@lab.test("2.3", "rejects a read without a preceding call", points=3,
          hint="Was there a GETCHAR before this `in`? One call allows one answer: an `in` without a call "
               "before it, or a second one after the same call, is the guest's mistake. See "
               "vcpu->getchar_called.")
def uncalled_read(plan: Plan) -> None:
    answered = ("The guest never called GETCHAR, but its read was answered. If vcpu->getchar_called is not "
                "set, a read is the guest's error: end the guest.",
                "The guest called GETCHAR once and read twice, and both reads were answered: the first "
                "answer must clear vcpu->getchar_called.")
    unit = plan.unit("hypercall", "uncalled_read", kvm=True)
    unit.symptom(lambda o: _went_on(o) and "had not called" in o.stdout, answered[0])
    unit.symptom(lambda o: _went_on(o) and "after one GETCHAR" in o.stdout, answered[1])
    for calls, ignored in enumerate(answered):
        _dies(plan, None, ignored=ignored, WIDTH=32, READ=None, CALLS=calls)


@lab.test("2.3", "reads one character per IN, for the calling vCPU", points=3,
          hint="What does the OUT do, and what the IN? The OUT only sets vcpu->getchar_called, of the vCPU "
               "that makes the call; the IN takes one character from stage.getchar.")
def getchar_steps(plan: Plan) -> None:
    unit = plan.unit("hypercall", "getchar_steps", kvm=True)
    unit.symptom(lambda o: "two calls of GETCHAR" in o.stdout or "the read got" in o.stdout,
                 "What do two calls of GETCHAR before one IN leave? The same as one: "
                 "vcpu->getchar_called is set. The character is taken at the IN.")
    unit.symptom(lambda o: "post-mortems" in o.stdout,
                 "What if one read of an exit ends the guest? The reads after it are not served: go on only "
                 "while the answer is STEP_RUN.")


# ---------------------------------------------------------------- 2.4 strings

@lab.test("2.4", "prints what rep outsb sends, even more than a page", points=4,
          hint="Is each character sent to STRING_PORT printed, and in order?")
def string_port(plan: Plan) -> None:
    text, typed, status = plan.values.text(), plan.values.text(), plan.values.randint(0, 63)
    calls = plan.boot(plan.guest("hctest", TEXT=text, STATUS=status), stdin=typed.encode())
    calls.prints(f"PUTCHAR: 8wd\nstring:  {text}\nWRITE:   {text}\n"
                 f"GETCHAR: characters {len(typed)}, sum {sum(typed.encode())}\n")
    calls.exits(status)
    _common_symptoms(calls)
    for length in (plan.values.randint(20, 60), plan.values.randint(4200, 4600)):
        seed = plan.values.getrandbits(16)
        run = plan.boot(plan.guest("strings", SEED=seed, LENGTH=length))
        run.prints(letters(seed, length) + "\n")
        run.exits(0)
        _common_symptoms(run)
    _pieces(plan, OUTSB=None)


@lab.test("2.4", "prints a string sent with the direction flag set", points=2,
          hint="In which order does the processor send the characters when DF is set? The last one first: "
               "print them in the order in which they arrive.")
def backwards(plan: Plan) -> None:
    seed, length = plan.values.getrandbits(16), plan.values.randint(30, 90)
    run = plan.boot(plan.guest("strings", SEED=seed, LENGTH=length, BACKWARDS=None))
    run.prints(letters(seed, length)[::-1] + "\n")
    run.exits(0)
    _common_symptoms(run)
    _pieces(plan, OUTSB=None, BACKWARDS=None)


@lab.test("2.4", "prints strings through stage.console_write", points=1,
          hint="Where do the bytes of strings go? Everything that a guest prints goes through "
               "stage.console_write: lab 3 installs another function there.")
def strings_stage(plan: Plan) -> None:
    plan.unit("hypercall", "strings_stage", kvm=True).symptom(
        lambda o: " 0 went to stage.console_write, and 0 to standard output" in o.stdout,
        "Why is nothing of this string printed? It lies in RAM, in 16-bit code: DS's base plus SI, CX "
        "bytes. Is the address right, and what does your check of RAM's end say?")


@lab.test("2.4", "prints every character of an exit with a count", points=2,
          hint="How many characters does one exit have? See io.count: they follow each other in the data, "
               "and a 0 among them is a character like any other.")
def string_count(plan: Plan) -> None:
    plan.unit("hypercall", "string_count", kvm=True)


@lab.test("2.4", "prints a WRITE in one exit, across pages", points=4,
          hint="At which linear address does the string start, and how far does one translation reach? In "
               "16-bit code it is CX bytes from DS's base plus SI on. vcpu_translate is valid only up to "
               "the end of a page.")
def write(plan: Plan) -> None:
    short, long = plan.values.randint(20, 60), plan.values.randint(8300, 9000)
    for length, offset in ((short, 0x800), (long, 0xfe0)):
        seed, garbage = plan.values.getrandbits(16), plan.values.number(15)
        run = plan.boot(plan.guest("write", SEED=seed, LENGTH=length, TEXT_OFFSET=offset, GARBAGE=garbage))
        run.prints(letters(seed, length) + "\n")
        run.exits(0)
        run.symptom(lambda o: o.said("not in RAM"),
                    "Which registers does 16-bit code use? SI and CX: ignore the upper halves of ESI and "
                    "ECX.")
        _common_symptoms(run)
    _pieces(plan)


@lab.test("2.4", "translates each page of a WRITE, in 16- and 32-bit code", points=5,
          hint="How wide are the address and the length, and how far does one translation reach? "
               "sregs.cs.db says whether SI and CX or ESI and ECX count; the string starts at DS's base "
               "(sregs.ds.base) plus that. What vcpu_translate returns is valid only up to the end of its "
               "page.")
def write_pages(plan: Plan) -> None:
    unit = plan.unit("hypercall", "write_pages", kvm=True)
    unit.symptom(lambda o: "a length has no sign" in o.stdout, _LENGTH)
    unit.symptom(lambda o: "a linear address has 32 bits" in o.stdout,
                 "How wide is the sum of DS's base and ESI, and the address of each later part? A linear "
                 "address of 32-bit code has 32 bits: cut off what is above them before you call "
                 "vcpu_translate.")


@lab.test("2.4", "rejects a WRITE that reaches outside RAM, and no other", points=2,
          hint="Before you print a part: did vcpu_translate find it, and is all of it in RAM (ram_bytes)? "
               "If not, end the guest by vcpu_crash: otherwise it reads the VMM's memory. A string may end "
               "at the last byte of RAM.")
def write_outside(plan: Plan) -> None:
    unit = plan.unit("hypercall", "write_outside", kvm=True)
    unit.symptom(lambda o: "a length has no sign" in o.stdout, _LENGTH)
    unit.symptom(lambda o: "more than 20 bits" in o.stdout,
                 "Where does that string begin? Where RAM ends: is your check of its end right if no byte of "
                 "it is in RAM? A difference of unsigned numbers is never below 0. Or is the address cut "
                 "to 20 bits, as an 8086 does? A linear address has 32 bits, even in 16-bit code.")
    unit.symptom(lambda o: "all 64 bits of *phys count" in o.stdout,
                 "Which type holds the address that vcpu_translate finds? It has 64 bits: one above 4 GB is "
                 "not in RAM, even if its lower half alone would be.")


@lab.test("2.4", "ends the guest when the registers of a WRITE can't be read", points=1,
          hint="Which calls of the handler can fail, and what does it know after that? After a failed "
               "KVM_GET_SREGS it knows neither DS nor CS: end the guest by vcpu_crash, with the reason from "
               "errno.")
def write_failed(plan: Plan) -> None:
    plan.unit("hypercall", "write_failed", kvm=True)


@lab.test("2.4", "shares no state between the calls of different vCPUs", points=1,
          hint="In lab 3 up to four threads run this handler at once: which of its variables do they share? "
               "A static variable exists once for all threads; a local one belongs to the call.")
def vcpus_apart(plan: Plan) -> None:
    plan.unit("hypercall", "vcpus_apart", kvm=True)


# ---------------------------------------------------------------- 2.5 unknown accesses

@lab.test("2.5", "rejects unknown calls", points=6,
          hint="What does your code do with a call number that it does not know? End the guest by "
               "vcpu_crash, with the number and the guest's RIP in the message.")
def unknown_call(plan: Plan) -> None:
    known = 1                        # PUTCHAR in the low byte
    cut = ("How much of the operand is the call's number? All of it: a number whose low byte is that of a "
           "call is still a different number, and unknown. " + _IGNORED)
    first_unknown = 4
    unit = plan.unit("hypercall", "unknown_calls", kvm=True)
    unit.symptom(lambda o: _went_on(o) and "low byte alone" in o.stdout, cut)
    unit.symptom(_went_on, _IGNORED)
    unit.symptom(_without_rip, _RIP)
    for width, number in ((8, first_unknown),
                          (8, plan.values.randint(50, 255)),
                          (16, plan.values.randint(4, 255) << 8 | known),
                          (32, plan.values.randint(4, 65535) << 16 | known)):
        _dies(plan, number, ignored=_IGNORED if width == 8 else cut, WIDTH=width, NUMBER=number)


@lab.test("2.5", "rejects unknown I/O ports", points=5,
          hint="What does your code do with a port other than HYPERCALL_PORT and STRING_PORT? End the guest "
               "by vcpu_crash, with the port and the guest's RIP in the message.")
def unknown_port(plan: Plan) -> None:
    unit = plan.unit("hypercall", "unknown_ports", kvm=True)
    unit.symptom(_went_on, _IGNORED)
    unit.symptom(_without_rip, _RIP)
    unit = plan.unit("hypercall", "unknown_unread", kvm=True)
    unit.symptom(lambda o: "KVM_GET_REGS failed" in o.stdout,
                 "Which register does the message about an unknown call or port need, and what if it can't "
                 "be read? When vcpu_registers fails, not even RIP is known: end the vCPU (vcpu_end) with "
                 "the status that it returned.")
    for width, port in ((8, HYPERCALL_PORT - 1), (8, STRING_PORT + 1),
                        (32, plan.values.randint(0x510, 0xfff0))):
        _dies(plan, port, WIDTH=width, PORT=port, NUMBER=1)


@lab.test("2.5", "rejects reads from other ports", points=3,
          hint="Which ports can a guest read from? Only HYPERCALL_PORT answers: an `in` from any other port "
               "ends the guest by vcpu_crash.")
def unknown_read(plan: Plan) -> None:
    answered = ("The guest continued after the read: only HYPERCALL_PORT can be read. A guest can write "
                "strings to the string port, but a read from it is unknown. Does the handler return "
                "vcpu_crash's result?")
    unit = plan.unit("hypercall", "unknown_reads", kvm=True)
    unit.symptom(_went_on, answered)
    unit.symptom(_without_rip, _RIP)
    for width, port in ((16, plan.values.randint(0x510, 0xfff0)), (8, STRING_PORT)):
        _dies(plan, port, ignored=answered, WIDTH=width, PORT=port, READ=None)


@lab.test("2.5", "rejects wide accesses to the string port", points=2,
          hint="How wide is a character? One byte: an access of 2 or 4 bytes to STRING_PORT is unknown.")
def unknown_size(plan: Plan) -> None:
    plan.unit("hypercall", "unknown_sizes", kvm=True).symptom(_went_on, _IGNORED)
    for width in (16, 32):
        _dies(plan, STRING_PORT, WIDTH=width, PORT=STRING_PORT)


_LENGTH = ("Which type holds the length? ECX (in 16-bit code CX) is a number without a sign: in a type with "
           "one, a large length is negative, and seems to be less than any limit.")
_RIP = ("Does the message of vcpu_crash contain the guest's address, all of it? It must give RIP, which has "
        "64 bits, in hexadecimal.")
_IGNORED = ("The guest continued after the access: ignoring an unknown access hides a typing error in a "
            "guest. Does the handler return vcpu_crash's result?")


def _went_on(outcome: Outcome) -> bool:
    """A unit test's guest made an access that should have ended it."""
    return "the guest went on" in outcome.stdout


def _without_rip(outcome: Outcome) -> bool:
    """A unit test's guest was ended by a message that does not say where it was."""
    return "does not give that RIP" in outcome.stdout


def _seen_as_negative(outcome: Outcome) -> bool:
    """A status that is negative in 8 bits was not clamped."""
    return outcome.status in range(128, 256)


def _reports_nothing(status: int) -> Condition:
    """No message of the VMM about a status that a guest may give."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if not outcome.said("^vmm: "):
            return None
        return Mismatch(f"a guest may give the status {status}, and the VMM has a message about it")
    return condition


def _names_status(status: int) -> Condition:
    """A message names this status of a guest; it does not list all that there are."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if not outcome.said(rf"\b(?:{_number(status)})\b"):
            return Mismatch(f"standard error does not mention the status that the guest gave, {status}")
        named = {number for number in map(int, re.findall(r"\b\d{2,3}\b", outcome.stderr))
                 if STATUS_GUEST_MAX < number < 256}
        if len(named) > 8:
            return Mismatch(f"the guest gave the status {status}, and standard error mentions {len(named)}")
        return None
    return condition


def _number(number: int) -> str:
    """A pattern of the number, decimal or hexadecimal."""
    return rf"{number}|(?:0x)?0*{number:x}"


def _dies(plan: Plan, refused: int | None, *, ignored: str = _IGNORED, **defines: object) -> None:
    """An access at a random address ends a guest. The message names that and, unless None, `refused`."""
    place, text = plan.values.randrange(0x100, 0x8000), plan.values.text(3)
    run = plan.boot(plan.guest("unknown", ADDRESS=place, TEXT=text, **defines))  # type: ignore[arg-type]
    run.symptom(lambda o: "ignored" in o.stdout, ignored)
    run.prints(text + "\n")
    run.exits(STATUS_CRASHED)
    crashed = "crashed: .*"
    if refused is None:
        run.says(crashed, what="by vcpu_crash that the guest crashed")
        return
    # KVM reports RIP at the access, or after its 1 to 2 bytes.
    places = "|".join(f"{place + skipped:x}" for skipped in (0, 1, 2))
    run.says(crashed + rf"\b(?:0x)?0*(?:{places})\b",
             what=f"the guest's address, about 0x{place:x}",
             hint="Does the message of vcpu_crash contain the guest's address? It must give RIP, which "
                  "vcpu_registers returns, in hexadecimal.")
    run.says(crashed + rf"\b(?:{_number(refused)})\b",
             what="what was refused",
             hint="Does the message of vcpu_crash say what was rejected? It must give the call's number, "
                  "or the port.")


_COMPUTED_STATUS = ("All characters are right, but the exit status is not: EXIT ends the vCPU with the "
                    "status in BL. See exercise 2.2.")


def _computed(plan: Plan, letters: int = 12, large: bool = False, **defines: None) -> None:
    """A guest whose letters and status are nowhere in memory: only its exits show them."""
    value, code = plan.values.getrandbits(32), random_code.steps(plan.values)
    if large:
        defines["LARGE"] = None
    run = plan.boot(plan.guest("computed", SEED=value, LENGTH=letters, STEPS=random_code.machine_code(code),
                               **defines))
    status = _prints_computed(run, value, code, [0] * letters)
    if large:
        status |= STATUS_GUEST_MAX + 1
        run.must(_names_status(status))
    run.exits(min(status, STATUS_GUEST_MAX), _COMPUTED_STATUS if letters else "")
    _common_symptoms(run)


def _computed_from_input(plan: Plan, width: int, text: bytes) -> None:
    """The same, from what the guest reads."""
    value, code = plan.values.getrandbits(32), random_code.steps(plan.values)
    run = plan.boot(plan.guest("computed", SEED=value, INPUT=width, STEPS=random_code.machine_code(code)),
                    stdin=text)
    run.exits(_prints_computed(run, value, code, text), _COMPUTED_STATUS)
    _getchar_symptoms(run)


def _prints_computed(run: Planned, value: int, code: Sequence[random_code.Step], added: Iterable[int]) -> int:
    """Expects the letters; the guest's status."""
    letters = ""
    for number in added:
        value = random_code.run(code, value + number & random_code.MASK)
        letters += chr(ord("a") + (value >> 16) % 26)
    run.prints(letters)
    return random_code.run(code, value) >> 8 & STATUS_GUEST_MAX


def _pieces(plan: Plan, **defines: None) -> None:
    """A guest whose memory is full of letters: only its exits show which of them it prints."""
    seed, value, count = plan.values.getrandbits(16), plan.values.getrandbits(32), 12
    code = random_code.steps(plan.values)
    run = plan.boot(plan.guest("pieces", SEED=seed, START=value, PIECES=count,
                               STEPS=random_code.machine_code(code), **defines))
    memory, printed = letters(seed, 0x1000 + 64), ""
    for _ in range(count):
        value = random_code.run(code, value)
        start, length = value & 0xfff, (value >> 16 & 63) + 1
        printed += memory[start:start + length][::-1 if "BACKWARDS" in defines else 1]
    run.prints(printed)
    run.exits(random_code.run(code, value) >> 8 & STATUS_GUEST_MAX)
    _common_symptoms(run)


def _common_symptoms(run: Planned) -> None:
    run.symptom(lambda o: o.said("there is no device") or o.said("unknown I/O"),
                "The access was treated as one to an unknown port. Which port and size does io_decode "
                "return? See also --trace.")
    run.symptom(lambda o: o.said("unknown hypercall"),
                "A call was treated as unknown: its number is the operand, `size` bytes of the data.")


def _getchar_symptoms(run: Planned) -> None:
    def ate_half(outcome: Outcome) -> bool:
        expected = len(run.run.stdin)
        return bool(expected) and outcome.stdout != "" and len(outcome.stdout) <= expected // 2 + 1

    def cut(outcome: Outcome) -> bool:
        return max(run.run.stdin, default=0) < 128 and any(c >= "\xf0" for c in outcome.stdout)

    run.symptom(cut,
                "The guest mistakes 'nothing yet' for character 255: GETCHAR_NOTHING is -1, in all bits of "
                "the operand. Truncated to 8 bits it is a character.")
    run.symptom(lambda o: o.hung and o.stdout == "",
                "The guest never gets a character. Is the answer written to the data of the IN? An OUT "
                "returns nothing: the guest reads the answer with the IN that follows.")
    run.symptom(lambda o: o.result.ending in (Ending.TIMEOUT, Ending.OUTPUT),
                "The guest gets characters that were not typed. An OUT returns nothing: the guest reads "
                "with the IN that follows, and that exit's data must hold the character.")
    run.symptom(lambda o: o.hung,
                "The guest waits for the end of its input, which never comes: after the last character "
                "stage.getchar returns GETCHAR_END, -2, and the IN must pass it on.")
    run.symptom(ate_half,
                "About half of the characters were lost: the OUT takes one, and the IN takes another. Only "
                "the IN may take one.")
    _common_symptoms(run)


# ---------------------------------------------------------------- what `make lab2` boots

CLASSICS = ("hello", "counter", "fibonacci", "multiplication")

lab.demonstrations = [
    *(Demonstration(f"One guest: {name}", (name,)) for name in CLASSICS),
    Demonstration("Every hypercall, with the input abc", ("hctest",), stdin=b"abc"),
]
