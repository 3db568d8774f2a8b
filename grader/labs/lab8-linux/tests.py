"""Lab 8, Linux: a bus, the devices of a small PC, and an unmodified kernel on it.

The devices are judged register by register (units/devices.c) and by guests that are started as Linux is:
guests/linux.inc. Debian's kernel is booted twice.
"""

from __future__ import annotations

import re
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grader.core.expectations import Condition, Mismatch
from grader.core.framework import Demonstration, Lab
from grader.core.guests import Define
from grader.core.line_code import LineCode
from grader.core.outcome import STATUS_CRASHED, STATUS_GUEST_FILE, Outcome
from grader.core.plan import Plan, Planned
from grader.core.values import Values
from grader.course import ROOT
from grader.execution.labvm import initrd
from grader.execution.labvm.linux_guest import linux_kernel
from grader.execution.runs import Ending, Limits, Step

lab = Lab(8, "Linux", needs=("real", "paging32", "protected", "longmode"))

STATUS_USAGE, STATUS_SIGNAL = 64, 128
STATUS_STRAY = 62               # of guests/long-print.inc
PAGE, MIB = 0x1000, 1 << 20
KERNEL_OFFSET, LOW_RAM_END, ZERO_PAGE = 0x100000, 0x9fc00, 0x20000
BOOT, USER = (0x10, 0x18), (0x33, 0x2b)         # selectors in CS and SS: at the start, and in Linux's ring 3
SIGNATURE = (0x696e694d, 0x4d564b2d, 0x62614c20)        # EBX, ECX, EDX of CPUID_SIGNATURE

UART, UART_IRQ, PIT_IRQ = 0x3f8, 4, 0
RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(UART, UART + 8)
RECEIVED, TRANSMITTER = 1, 2                    # of IER
FIFOS, IIR_NONE, IIR_RECEIVED, IIR_TRANSMITTER = 0xc0, 1, 4, 2
DTR, RTS, OUT2, LOOPBACK = 1, 2, 8, 0x10        # of MCR
PIC, SLAVE, EOI = 0x20, 0xa0, 0x20
PIT, PIT_CONTROL, PIT_GATE, GATE_OUTPUT = 0x40, 0x43, 0x61, 0x20
KEYBOARD, RESET = 0x64, 0xfe

# A boot of Linux takes up to a minute in the lab VM of a loaded machine, and most of it prints nothing. Its
# end takes a second.
LINUX_LIMITS = Limits(wall=300, no_output=200, after_steps=40, deadlock=0, spin=250)


def _hex(*numbers: int) -> str:
    """As guests print them."""
    return " ".join(f"{number:016x}" for number in numbers)


def _coded(plan: Plan, name: str, **defines: Define) -> tuple[Path, LineCode]:
    """A guest whose lines end with a number that only the guest computes."""
    code = LineCode(plan.values, BOOT)
    return plan.guest(name, LINE_CODE=list(code.image), **defines), code


class Script:
    """The commands of guests/linux-ports.asm, and what they print."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.printed: list[tuple[bool, str]] = []       # is it a line of the guest, or from the serial port?

    def _add(self, what: int, where: int = 0, value: int = 0) -> None:
        self.numbers += [what, where, value]

    def _prints(self, line: str) -> None:
        self.printed.append((True, line))

    def out(self, port: int, *values: int, size: int = 1) -> None:
        for value in values:
            self._add(size, port, value)

    def reads(self, port: int, value: int, size: int = 1) -> None:
        """IN, which must give this value."""
        self._add(16 + size, port)
        self._prints(_hex(value))

    def loads(self, address: int, value: int, size: int) -> None:
        """A read from memory, which must give this value."""
        self._add(32 + size, address)
        self._prints(_hex(value))

    def stores(self, address: int, value: int, size: int) -> None:
        self._add(48 + size, address, value)

    def halts(self, vector: int) -> None:
        """HLT until this interrupt comes."""
        self._add(64)
        self._prints(_hex(vector))

    def sleeps(self) -> None:
        """HLT from which nothing wakes it."""
        self._add(64)

    def takes(self, vector: int) -> None:
        """Enables interrupts for a moment: this one is pending; 0: none."""
        self._add(65)
        self._prints(_hex(vector))

    def halts_masked(self) -> None:
        self._add(66)

    def polls(self, port: int, bit: int) -> None:
        self._add(67, port, bit)

    def sends(self, *texts: str) -> None:
        """Bytes for THR, one OUT each."""
        for text in texts:
            self.out(RBR, *text.encode())
            self.printed.append((False, text))

    def sends_string(self, text: str) -> None:
        """REP OUTSB of the start of TEXT to THR, and a newline."""
        self._add(80, RBR, len(text))
        self.printed.append((False, text))
        self.sends("\n")

    def reads_string(self, port: int, values: bytes) -> None:
        """REP INSB."""
        self._add(81, port, len(values))
        self._prints(_hex(int.from_bytes(values, "little")))

    def fills(self, count: int) -> None:
        """A line of dots for THR."""
        self._add(82, RBR, count)
        self.printed.append((False, "." * count))
        self.sends("\n")

    def receives(self, count: int, text: str) -> None:
        """So many bytes from the serial port, which it prints as this."""
        self._add(83, 0, count)
        self._prints(text)

    def exits(self, status: int) -> None:
        self._add(96, 0, status)

    def starts_pics(self, bases: tuple[int, int], masks: tuple[int, int]) -> None:
        """ICW1 to ICW4 and OCW1 of both."""
        for port, base, connection, mask in zip((PIC, SLAVE), bases, (4, 2), masks):
            self.out(port, 0x11)
            self.out(port + 1, base, connection, 1, mask)

    def starts_counter(self, number: int, mode: int, count: int) -> None:
        self.out(PIT_CONTROL, number << 6 | 0x30 | mode << 1)
        self.out(PIT + number, count & 0xff, count >> 8 & 0xff)

    def boot(self, plan: Plan, *, status: int = 0, defines: Mapping[str, Define] | None = None,
             waits: str = "", **keywords: Any) -> tuple[Planned, list[str]]:
        """A guest that executes it and ends with this status; the run, and what is printed, in parts. `waits`
        is the hint if the guest never ends."""
        guest, code = _coded(plan, "linux-ports", SCRIPT=self.numbers, **(defines or {}))
        parts = [code.line(text) if is_line else text for is_line, text in self.printed]
        run = plan.boot(guest, **keywords)
        run.prints("".join(parts))
        run.exits(status)
        _symptoms(run, waits)
        return run, parts


def _bases(values: Values) -> tuple[int, int]:
    """Vectors of IRQ 0 and IRQ 8."""
    master, slave = values.sample(range(32, 256, 8), 2)
    return master, slave


# ---------------------------------------------------------------- 8.1 the bus

@lab.test("8.1", "passes an access to the device whose range contains it", points=3,
          hint="What does a handler get? The access as it came, and the `device` of its range: see struct "
               "bus_range in lab8.h. Ports and memory are two spaces: what is at a number of the one says "
               "nothing about the other.")
def reaches(plan: Plan) -> None:
    plan.unit("devices", "bus_reaches")


@lab.test("8.1", "reads all ones where no range contains the whole access", points=2,
          hint="How far does an access reach that begins at a range's last byte? Only what is in one range "
               "as a whole reaches a device; all else is a hole. Which of your sums wraps around at the end "
               "of a space? All ones means `size` bytes of them.")
def holes(plan: Plan) -> None:
    plan.unit("devices", "bus_holes")


@lab.test("8.1", "refuses ranges that are empty, too high, overlapping or too many", points=2,
          hint="Which address is the last of a range, and for which ranges can you compute it? The address "
               "after it may be 2^64, which no variable holds. Check everything before the bus changes. If "
               "several errors apply, the contract's order decides.")
def refuses(plan: Plan) -> None:
    plan.unit("devices", "bus_refuses")


@lab.test("8.1", "passes each operand of an exit to the bus", points=3,
          hint="How many operands does one KVM_EXIT_IO carry, and how many bytes one KVM_EXIT_MMIO? api.rst "
               "section 5 describes the fields of io and mmio. Each operand is an access of its own, and "
               "its answer has a place of its own. In how many bits does the address of memory fit?")
def operands(plan: Plan) -> None:
    plan.unit("linux", "io_operands")
    plan.unit("linux", "mmio")


@lab.test("8.1", "lets a guest find devices and holes", points=2,
          hint="Which of the two spaces has a device there, and which sizes reach it? Compare what the "
               "guest prints with the list of ranges in platform_start. The hypercalls' two ports are not "
               "on the bus.")
def finds(plan: Plan) -> None:
    values = plan.values
    script, ones = Script(), {1: 0xff, 2: 0xffff, 4: 0xffffffff}
    scratch, line_format = values.getrandbits(8), values.getrandbits(7)
    script.out(SCR, scratch)
    for size in (1, 2, 4):
        port = values.randrange(0x1000, 0xf000)
        script.reads(port, ones[size], size)
        script.out(port, values.getrandbits(8 * size), size=size)
        script.reads(0x3f0, ones[size], size)
    for size in (1, 2, 4, 8):
        address = 0xd0000000 + values.randrange(0, 2 * MIB, 8)
        script.stores(address, values.getrandbits(32), size)
        script.loads(address, (1 << 8 * size) - 1, size)
    script.out(LCR, line_format)
    script.reads(LCR, line_format, 2)       # the register, and a byte of zeros
    script.reads(LSR, ones[4], 4)           # past the device
    script.reads(SCR, scratch)
    script.reads_string(SCR, bytes([scratch] * 8))
    text = values.text()
    script.sends_string(text)
    status = values.randint(1, 63)
    script.exits(status)
    script.boot(plan, defines={"TEXT": text}, status=status)


# ---------------------------------------------------------------- 8.2 the serial port

@lab.test("8.2", "keeps what is written to its registers", points=2,
          hint="Which register is at this port in a read, in a write, and with LCR_DLAB set? Section 8.2 of "
               "the handout begins with a table of them. Of a wider access the low byte counts.")
def registers(plan: Plan) -> None:
    plan.unit("devices", "uart_registers")
    plan.unit("devices", "uart_wide")


@lab.test("8.2", "sends each byte at once", points=2,
          hint="When is THR empty, and which bits of LSR say so? `transmit` has taken a byte before the "
               "guest's next access, so the guest never sees another state.")
def transmits(plan: Plan) -> None:
    plan.unit("devices", "uart_transmits")


@lab.test("8.2", "receives when the guest is ready, and loses no byte", points=2,
          hint="When may a byte be taken from the line? Section 8.2 has the conditions, RTS among them. "
               "Each can come true by an access of the guest: at which places in your code can there be "
               "room again?")
def receives(plan: Plan) -> None:
    plan.unit("devices", "uart_receives")


@lab.test("8.2", "has a FIFO of 16 bytes, if that is enabled", points=2,
          hint="How much room is there with FCR_ENABLE, and without? Compare what FCR was with what is "
               "written: it is a command to clear, or FCR_ENABLE changes, and else nothing that was "
               "received is lost.")
def fifo(plan: Plan) -> None:
    plan.unit("devices", "uart_fifo")


@lab.test("8.2", "computes the interrupt line from what is pending and enabled", points=2,
          hint="What is the line when a byte came first, and the interrupt is enabled later? Where in your "
               "code is that decided? A level is not raised at some moment: it follows from the state, "
               "whenever somebody asks.")
def received_line(plan: Plan) -> None:
    plan.unit("devices", "uart_received_line")


@lab.test("8.2", "interrupts when THR is empty, and reports it once", points=3,
          hint="When is this interrupt due, and what ends it? See the row \"THR is empty\" in section 8.2. "
               "There are two beginnings, one of them without a byte: IER_TRANSMITTER was set. A read of "
               "IIR is the end, but only one that reports it. LSR has nothing to do with it.")
def transmitter_line(plan: Plan) -> None:
    plan.unit("devices", "uart_transmitter_line")


@lab.test("8.2", "returns bytes in loopback mode", points=2,
          hint="Where does a byte for THR go in loopback mode? It goes the way of a byte that was received, "
               "with the same FIFO and the same interrupts, and the line learns nothing of it.")
def loopback(plan: Plan) -> None:
    plan.unit("devices", "uart_loopback")


@lab.test("8.2", "reports an overrun until LSR is read", points=1,
          hint="What happens to a byte without room, and who learns of it? See the first row of the table "
               "of causes: IIR_LINE, until LSR is read. Which bytes are in the FIFO then?")
def overruns(plan: Plan) -> None:
    plan.unit("devices", "uart_overruns")


@lab.test("8.2", "reports the modem's inputs and their changes", points=2,
          hint="Which outputs are which inputs in loopback mode? Section 8.2 has the pairs. Bits 3 to 0 of "
               "MSR collect changes until MSR is read; of RI only falling counts. What is compared with "
               "what, and when?")
def modem(plan: Plan) -> None:
    plan.unit("devices", "uart_modem")


@lab.test("8.2", "serves a guest that polls it", points=2,
          hint="Which is the first number that the guest should not have read? The order is: LSR, MSR, the "
               "divisor, IIR, a byte in loopback mode. The test above that is about this register says "
               "more. What the guest sends goes to stage.console_write.")
def polled(plan: Plan) -> None:
    values = plan.values
    script, text = Script(), values.text()
    low, high, scratch, byte = (values.randint(1, 255) for _ in range(4))
    script.reads(LSR, 0x60)
    script.reads(MSR, 0xb0)
    script.out(LCR, 0x83)
    script.out(RBR, low)
    script.out(IER, high)
    script.reads(RBR, low)
    script.reads(IER, high)
    script.out(LCR, 3)
    script.reads(IER, 0)
    script.out(SCR, scratch)
    script.out(IIR, 1)
    script.reads(IIR, FIFOS | IIR_NONE)
    script.out(MCR, LOOPBACK | DTR)
    script.reads(MSR, 0x29)                 # DSR; CTS and DCD fell
    script.out(RBR, byte)
    script.reads(LSR, 0x61)
    script.reads(RBR, byte)
    script.reads(RBR, 0)
    script.out(MCR, DTR)
    script.sends(text, "\n")
    script.reads(SCR, scratch)
    script.exits(0)
    script.boot(plan)


# ---------------------------------------------------------------- 8.3 interrupts and time

@lab.test("8.3", "initializes the 8259s by ICW1 to ICW4", points=2,
          hint="Which write of the data port is which ICW, and when is it OCW1 again? The chip has to "
               "remember how far it is, and whether ICW4 was announced. What survives ICW1? ICW1 clears "
               "much, but not the levels: a line that is high has to rise again.")
def pic_init(plan: Plan) -> None:
    plan.unit("devices", "pic_init")


@lab.test("8.3", "requests an interrupt when a line rises", points=2,
          hint="What does the chip remember of a line? Its level, to see it rise, and the request. What "
               "ends the request: the line falls, or something else? A masked request waits.")
def pic_lines(plan: Plan) -> None:
    run = plan.unit("devices", "pic_lines")
    run.symptom(lambda o: "after an EOI, a write" in o.stdout,
                "Which input does an EOI end that names none? See OCW2 in part 1 of section 8.3. Only the "
                "specific one has an input in its bits 2 to 0.")


@lab.test("8.3", "serves the lowest input first, and nests", points=3,
          hint="What keeps a request waiting? Compare its input with those in service, itself among them. "
               "If several are in service, which does an EOI end that names none? The lowest in service.")
def pic_priorities(plan: Plan) -> None:
    plan.unit("devices", "pic_priorities")


@lab.test("8.3", "distinguishes the commands of the even port", points=1,
          hint="Which bits distinguish ICW1, OCW2 and OCW3? pc.h has them. What does each command leave as "
               "it is? OCW3 chooses a register only if OCW3_READ is set.")
def pic_commands(plan: Plan) -> None:
    plan.unit("devices", "pic_commands")


@lab.test("8.3", "connects the slave to input 2 of the master", points=3,
          hint="What does the master see when the slave has a second request? To the master the slave is a "
               "line like the others. Which accesses can change what the slave asks for? After each of them "
               "work its output out again.")
def pic_cascade(plan: Plan) -> None:
    plan.unit("devices", "pic_cascade")


@lab.test("8.3", "ends interrupts automatically if asked to, and survives spurious ones", points=2,
          hint="What does pic_acknowledge change? With automatic EOI nothing stays for an EOI to end. And "
               "if there is no request any more? Then there is still a vector, and it changes nothing.")
def pic_automatic(plan: Plan) -> None:
    run = plan.unit("devices", "pic_automatic")
    run.symptom(lambda o: "the slave's second request" in o.stdout,
                "How does the master learn of the slave's second request? By an edge of its input 2, as "
                "from any line. With automatic EOI the slave asks for the second at once: does its output "
                "fall in between? See PIC_CASCADE in part 1 of section 8.3.")


@lab.test("8.3", "counts down with the time", points=2,
          hint="How many pulses have passed since the count was written? On the way there is a product, "
               "which needs more than 64 bits after some hours. Then look at the modes: which begin again, "
               "and which goes on below 0? And mode 3 counts by two.")
def pit_counts(plan: Plan) -> None:
    plan.unit("devices", "pit_counts")


@lab.test("8.3", "reads and writes counts by bytes, and latches them", points=2,
          hint="Which byte is next? With ACCESS_BOTH the low one is the first; reads and writes don't "
               "disturb each other. What begins again with a control word? A latched value stays until all "
               "of it is read: how many reads are that?")
def pit_access(plan: Plan) -> None:
    plan.unit("devices", "pit_access")
    plan.unit("devices", "pit_latch")


@lab.test("8.3", "computes when counter 0's output rises", points=3,
          hint="When is it next? Count from the counter's start, never from the time when somebody looked. "
               "In which modes does the output rise once? Round so that at pit->next it has happened.")
def pit_rises(plan: Plan) -> None:
    plan.unit("devices", "pit_rises")
    plan.unit("devices", "pit_quiet")


@lab.test("8.3", "gates counter 2 and shows its output", points=2,
          hint="What does Linux do at port 0x61? It opens the gate, writes a count in mode 0, and polls "
               "GATE_OUTPUT. What does a closed gate do to the counter, and from where does it go on?")
def pit_gate(plan: Plan) -> None:
    plan.unit("devices", "pit_gate")


@lab.test("8.3", "injects what the 8259s ask for when the guest can take it", points=3,
          hint="When is the request acknowledged? Not before the guest can take it: which two fields of "
               "kvm_run say that (4.2)? How many does KVM take before one entry, and what does "
               "request_interrupt_window ask it for? Part 3 of section 8.3 says what else belongs to an "
               "injection.")
def delivers(plan: Plan) -> None:
    plan.unit("linux", "delivers")
    plan.unit("linux", "delivers_again")


@lab.test("8.3", "starts the timer's thread, and stops it", points=1,
          hint="What must be undone, and which calls can fail? In which call does the timer's thread sleep, "
               "and what makes that call return? Section 8.3 has the fact in part 3.")
def start_and_stop(plan: Plan) -> None:
    plan.unit("linux", "start_and_stop")
    plan.unit("linux", "start_failure")


# What a guest that waits forever shows.
_SECTION = "See \"When it goes wrong\" in the handout; --stats counts the interrupts."
_NEEDS_EDGE = ("The 8259 takes an edge for a request: what has to happen to the line between two expirations "
               "of the timer?")
_HALT_STOPS = ("What ends the wait when the VMM stops? interrupt_halt returns then, again and again, and no "
               "interrupt comes: what else does platform_halt have to look at?")


@lab.test("8.3", "halts until the 8259s ask for an interrupt", points=2,
          hint="What ends interrupt_halt, and what ends HLT? Any news ends the first, but only an interrupt "
               "the second. Who clears the news, so that the next wait does not end at once? With IF = 0 no "
               "interrupt can come.")
def halts(plan: Plan) -> None:
    unit = plan.unit("linux", "halts")
    unit.symptom(lambda o: "not ok" in o.stdout and "the VMM stops" in o.stdout, _HALT_STOPS)
    unit.symptom(lambda o: o.hung and o.result.ending is not Ending.DEADLOCK,
                 "interrupt_halt returns at once, again and again: because news is still pending, or because "
                 "the VMM stops? What does platform_halt have to look at besides the 8259s?")
    plan.unit("linux", "halts_disabled")
    values = plan.values
    script, bases, text = Script(), _bases(values), values.text()
    script.starts_pics(bases, (0xff & ~(1 << PIT_IRQ), 0xff))
    script.out(MCR, RTS)                    # bytes come, and their interrupt is disabled
    for _ in range(3):
        script.starts_counter(0, 0, values.randint(20000, 50000))
        script.halts(bases[0] + PIT_IRQ)
        script.out(PIC, EOI)
    script.takes(0)
    script.halts_masked()                   # ends the guest
    script.boot(plan, stdin=text.encode(),
                waits=f"HLT has not ended: did IRQ 0 come, and did it come again? {_NEEDS_EDGE} {_SECTION}")
    script = Script()
    script.reads(LSR, 0x60)
    script.sleeps()
    guest, code = _coded(plan, "linux-ports", SCRIPT=script.numbers)
    line = code.line(script.printed[0][1])
    run = plan.boot(guest, hold_stdin=True, steps=(Step(after=line.encode(), signal=signal.SIGTERM),))
    run.prints(line)
    run.exits(STATUS_SIGNAL + signal.SIGTERM, hint=_HALT_STOPS)
    _symptoms(run, _HALT_STOPS)


@lab.test("8.3", "computes the serial port's interrupt line at each entry", points=2,
          hint="When can IRQ 4's line change? The guest writes IER, reads IIR, or sends a byte, and none of "
               "these calls the 8259. At which place do you learn of all of them before the guest goes on? "
               "The 8259 sees an edge each time the line rises.")
def serial_interrupts(plan: Plan) -> None:
    values = plan.values
    script, bases = Script(), _bases(values)
    vector, bit = bases[0] + UART_IRQ, 1 << UART_IRQ
    script.starts_pics(bases, (0xff & ~bit, 0xff))
    script.takes(0)
    script.out(IER, TRANSMITTER)
    script.takes(vector)
    script.reads(PIC + 1, 0xff & ~bit)
    script.reads(IIR, IIR_TRANSMITTER)
    script.reads(IIR, IIR_NONE)
    script.takes(0)
    for letter in values.word(4) + "\n":
        script.sends(letter)
        script.takes(0)                     # not before EOI
        script.out(PIC, EOI)
        script.takes(vector)
        script.reads(IIR, IIR_TRANSMITTER)
    script.sends("\n")
    script.out(IER, 0)
    script.out(PIC, EOI)
    script.takes(0)                         # the line fell before it was taken
    script.out(IER, TRANSMITTER)
    script.halts(vector)                    # and rose again
    script.out(PIC, EOI, 0x0b)
    script.reads(PIC, 0)                    # ISR
    script.takes(0)                         # the line stayed high
    script.out(PIC + 1, 0xff)
    script.out(IER, 0, TRANSMITTER)
    script.takes(0)                         # masked
    script.out(PIC, 0x0a)
    script.reads(PIC, bit)                  # IRR
    script.out(PIC + 1, 0)
    script.takes(vector)
    script.exits(0)
    script.boot(plan, waits="HLT has not ended: did IRQ 4's line fall when IER was cleared, and rise when it "
                            f"was set again? The 8259 takes only a rise for a request. {_SECTION}")


@lab.test("8.3", "raises IRQ 0 when counter 0's output rises", points=2,
          hint="Who sets the timer, and who raises the line? Follow one expiration: pit->next, the timer, "
               "its thread, vcpu->pending, pit_expired, the 8259. Which of these steps does not happen a "
               "second time? The 8259 needs an edge for each.")
def timer(plan: Plan) -> None:
    run = plan.unit("linux", "sets_timer")
    run.symptom(lambda o: "not ok" in o.stdout,
                "When does platform_deliver have to set the timer, and to what? Compare pit.next with "
                "timer_at: only if they differ, and PIT_NEVER disarms it.")
    values = plan.values
    script, bases = Script(), _bases(values)
    vector = bases[0] + PIT_IRQ
    script.starts_pics(bases, (0xff & ~(1 << PIT_IRQ | 1 << UART_IRQ), 0xff))
    script.out(PIT_GATE, 1)
    script.starts_counter(0, 0, values.randint(12000, 20000))
    script.halts(vector)
    script.out(PIC, EOI)
    script.starts_counter(2, 0, 60000)
    script.polls(PIT_GATE, GATE_OUTPUT)
    script.takes(0)                         # in mode 0 it rises once
    script.out(IER, TRANSMITTER)
    script.takes(bases[0] + UART_IRQ)
    script.starts_counter(0, 4, values.randint(12000, 20000))
    script.halts(vector)                    # while IRQ 4 is in service
    script.out(PIC, 0x0b)
    script.reads(PIC, 1 << PIT_IRQ | 1 << UART_IRQ)
    script.out(PIC, EOI)
    script.reads(PIC, 1 << UART_IRQ)
    script.out(PIC, EOI)
    script.reads(PIC, 0)
    for mode in values.sample((2, 3), 2):
        count = values.randint(12000, 16000)
        script.starts_counter(2, 0, 4 * count - 1000)
        script.starts_counter(0, mode, count)
        for _ in range(5):                  # one may have waited since the other mode
            script.halts(vector)
            script.out(PIC, EOI)
        script.reads(PIT_GATE, 1 | GATE_OUTPUT)         # four periods have passed, not less
    script.exits(0)
    script.boot(plan, waits="IRQ 0 has not come, or not again: how many lines were printed? "
                            f"{_NEEDS_EDGE} {_SECTION}")


@lab.test("8.3", "receives input by interrupts", points=2,
          hint="How does a byte reach the guest? Follow one: lab 4's thread, KEYBOARD_VECTOR, uart_receive, "
               "IER, the line, the 8259. Which of these steps does not happen? What does not fit stays with "
               "lab 4 until there is room.")
def received(plan: Plan) -> None:
    values = plan.values
    texts = [values.text(60), values.text(), values.text()]
    key = values.randint(1, 15)
    script, bases = Script(), _bases(values)
    script.reads(LSR, 0x60)                 # no byte is taken before RTS is set
    script.starts_pics(bases, (0xff & ~(1 << UART_IRQ), 0xff))
    script.out(IIR, values.choice((0, 1)))
    script.out(IER, RECEIVED)
    script.out(MCR, RTS | OUT2)
    for text in texts:
        script.receives(len(text), "".join(chr(ord(c) ^ key) for c in text))
    script.reads(LSR, 0x60)
    script.exits(0)
    guest, code = _coded(plan, "linux-ports", SCRIPT=script.numbers, KEY=key)
    lines = [code.line(text) for _, text in script.printed]
    steps = tuple(Step(after=line.encode(), send=text.encode()) for line, text in zip(lines, texts))
    run = plan.boot(guest, steps=steps, hold_stdin=True)
    run.prints("".join(lines))
    run.exits(0)
    _symptoms(run, "The guest waits for a byte: did the line of IRQ 4 rise for it, and fall when RBR was "
                   "read? Several bytes may be one rise. Or does the vCPU's thread wait for a lock that it "
                   f"holds? 8.3-delivers tests that. {_SECTION}")


# ---------------------------------------------------------------- 8.4 the kernel's file

@lab.test("8.4", "accepts a bzImage and finds its two parts", points=2,
          hint="Where does the header begin and end, and how long is the real-mode part? Boot.rst, "
               "\"Details of Header Fields\": setup_sects, for which 0 means 4, and jump.")
def bzimage(plan: Plan) -> None:
    plan.unit("linux", "bzimage_right")


@lab.test("8.4", "rejects files that are not a complete 64-bit kernel", points=2,
          hint="Which fields say that the kernel can be started here, and are all of its bytes there? "
               "Section 8.4 lists what to reject. In how many bits does a size that the file claims fit? "
               "Read nothing past the file.")
def wrong_files(plan: Plan) -> None:
    plan.unit("linux", "bzimage_wrong")
    broken = bytearray(plan.guest("linux-state").read_bytes())
    broken[0x236] = 0                       # no 64-bit entry point
    run = plan.boot(plan.file("broken.bin", bytes(broken)))
    run.exits(STATUS_GUEST_FILE)
    run.says(r"broken\.bin", what="the file that can't be loaded")


@lab.test("8.4", "rejects a kernel that RAM has no room for", points=2,
          hint="How far does the kernel reach when it runs? It has two places in RAM: where it is loaded, "
               "and the init_size bytes where it unpacks itself to. Where do both end, and can you always "
               "add up the second?")
def room(plan: Plan) -> None:
    plan.unit("linux", "bzimage_room")


@lab.test("8.4", "places the initrd as high as it may be", points=2,
          hint="Which three limits are there? Two above, of which initrd_addr_max is the address of a last "
               "byte, and the kernel below. What must the address be a multiple of? See a page.")
def initrd_places(plan: Plan) -> None:
    plan.unit("linux", "initrd")


@lab.test("8.4", "fills in the zero page", points=2,
          hint="What is in the zero page, and where does each part come from? The file's header, the fields "
               "of the loader, the e820 map: RAM up to LOW_RAM_END, and from KERNEL_OFFSET to its end. What "
               "is in all the rest?")
def zero_page(plan: Plan) -> None:
    plan.unit("linux", "zero_page")


@lab.test("8.4", "passes the command line, and limits it", points=2,
          hint="How long may it be? There are two limits: cmdline_size, which does not count the zero at "
               "its end, and LOAD_MIN. What is it without --cmdline? See LINUX_TSC in lab8.h.")
def command_line(plan: Plan) -> None:
    plan.unit("linux", "command_line")
    size = plan.values.randint(30, 100)
    guest = plan.guest("linux-state", CMDLINE_SIZE=size)
    run = plan.boot(guest, args=[f"--cmdline={'w' * (size + 1)}"])
    run.exits(STATUS_USAGE)


@lab.test("8.4", "loads kernel, initrd and command line", points=2,
          hint="Which of the three does the guest not find? It prints the zero page's fields, and numbers "
               "computed from all of the initrd and from the end of the kernel.")
def loads(plan: Plan) -> None:
    values = plan.values
    plan.unit("linux", "load_failure")
    for limited in (True, False):
        megabytes, ramdisk = values.randint(8, 64), values.randbytes(values.randint(1, 200000))
        end = values.randrange(4 * MIB, megabytes * MIB - 300000) if limited else megabytes * MIB
        _loads_one(plan, megabytes, ramdisk, end if limited else 0x80000000,
                   (min(megabytes * MIB, end) - len(ramdisk)) // PAGE * PAGE)
    _loads_one(plan, values.randint(8, 64), b"", 0x80000000, 0)
    run = plan.boot(plan.guest("linux-state"), args=[f"--initrd={plan.file('large', bytes(3 * MIB // 2))}",
                                                     "--mem=4M"])
    run.exits(STATUS_GUEST_FILE)
    run.says("large", what="the initrd that does not fit")


def _loads_one(plan: Plan, megabytes: int, ramdisk: bytes, limit: int, start: int) -> None:
    values = plan.values
    tail = [values.getrandbits(32) for _ in range(4 * values.randint(1, 9))]
    payload, words = values.number(), values.text()
    guest, code = _coded(plan, "linux-zero-page", SETUP_SECTS=values.randint(1, 40), INITRD_MAX=limit - 1,
                         PAYLOAD_LENGTH=payload, TAIL=tail)
    args = [f"--mem={megabytes}M", f"--cmdline={words}"]
    if ramdisk:
        args.append(f"--initrd={plan.file(f'ramdisk{start:x}', ramdisk)}")
    run = plan.boot(guest, args=args)
    tail_bytes = b"".join(number.to_bytes(4, "little") for number in tail)
    run.prints(code.lines([_hex(0xff), _hex(payload), _hex(2), _hex(0, LOW_RAM_END, 1),
                           _hex(KERNEL_OFFSET, megabytes * MIB - KERNEL_OFFSET, 1), _hex(start, len(ramdisk)),
                           _hex(_sum(ramdisk)), _hex(_sum(tail_bytes)), words]))
    run.exits(0)
    _symptoms(run)


def _sum(text: bytes) -> int:
    """As guests/linux-zero-page.asm computes it."""
    number = 0
    for byte in text:
        number = ((number << 5 | number >> 27) + byte) & 0xffffffff
    return number


# ---------------------------------------------------------------- 8.5 the start

@lab.test("8.5", "computes the start state", points=3,
          hint="What differs from lab 7's start state? Compare with the table in section 8.5: RIP is 0x200 "
               "past the kernel, RSI takes the place of RDI. A selector is a place in the GDT: what is at "
               "the two new ones? And what is in memory below RSP?")
def start_state(plan: Plan) -> None:
    plan.unit("linux", "state")


@lab.test("8.5", "sets CPUID, an MSR, and the state, and reports failures", points=2,
          hint="Which calls can fail, and how do they say so? KVM_GET_MSRS and KVM_SET_MSRS return a "
               "number. What becomes of the other bits of IA32_MISC_ENABLE?")
def enters(plan: Plan) -> None:
    plan.unit("linux", "enter", kvm=True)
    plan.unit("linux", "enter_failure", kvm=True)


@lab.test("8.5", "starts a kernel in this state", points=3,
          hint="Which value differs? The guest prints its registers, loads all segment registers again from "
               "the GDT, and reads CPUID and the MSR.")
def state_of_guest(plan: Plan) -> None:
    values = plan.values
    megabytes, mark, text = values.randint(4, 64), values.number(64), values.text()
    guest, code = _coded(plan, "linux-state", RAM_BYTES=megabytes * MIB, MARK=mark, TEXT=text)
    run = plan.boot(guest, args=[f"--mem={megabytes}M"])
    code_selector, data_selector = BOOT
    lines = [("rip", KERNEL_OFFSET + 0x200), ("rsi", ZERO_PAGE), ("others", 0), ("flags", 2),
             ("cs", code_selector), *((name, data_selector) for name in ("ss", "ds", "es", "fs", "gs")),
             ("cr0", 0x80000001), ("cr3", 0x2000), ("cr4", 0x20), ("efer", 0x500), ("memory", mark),
             ("signature", SIGNATURE[0]), ("hypervisor", 1), ("apic", 0), ("strings", 1)]
    run.prints(code.lines([*(f"{name} {_hex(value)}" for name, value in lines), text]))
    run.exits(0)
    _symptoms(run)


# ---------------------------------------------------------------- 8.6 the end, and Linux

@lab.test("8.6", "ends when the guest resets the PC", points=2,
          hint="Which write is a reset? One command at one port, and no other. Does the guest execute "
               "another instruction after it? And without a panic it has not failed.")
def reset(plan: Plan) -> None:
    plan.unit("linux", "commands_end")
    values = plan.values
    script, text = Script(), values.text()
    script.sends(text, "Kernel panic - not\n")          # not all of the words
    script.out(KEYBOARD, *values.sample([*values.sample(range(0xfd), 3), 0xfd, 0xff], 5))
    script.out(KEYBOARD + 1, RESET)
    script.reads(LSR, 0x60)
    script.out(KEYBOARD, RESET)
    script.exits(values.randint(1, 63))
    script.boot(plan)


@lab.test("8.6", "reports a panic with the kernel's last lines", points=3,
          hint="How do a panic and a reboot differ, if both reset the PC? Only in what was printed before: "
               "where is that kept, and does PANIC occur in it? A guest that crashed ends as in all labs, "
               "with a post-mortem.")
def panic(plan: Plan) -> None:
    plan.unit("linux", "panic_in_log")
    values = plan.values
    many = values.randint(1100, 3000)       # more than the log has room for
    for before, after in ((values.randint(10, 400), 0), (many, many)):
        script, text = Script(), f"Kernel panic - not syncing: {values.text()}"
        last = values.text()
        script.fills(before)
        script.sends_string(text)
        script.sends(last, "\n")
        script.fills(after)
        script.out(KEYBOARD, RESET)
        script.exits(values.randint(1, 63))
        run, _ = script.boot(plan, status=STATUS_CRASHED, defines={"TEXT": text})
        run.says(re.escape(text), what="the panic, which the guest printed")
        run.says(re.escape(last), what="the line that the guest printed after that")


_RESET = "With reboot=k it writes KEYBOARD_RESET to the keyboard controller: what does your code do then?"


def _linux(plan: Plan, *, args: Sequence[str], steps: Sequence[Step], **defines: Define) -> Planned:
    """Debian's kernel with guests/linux/words.asm as its only process."""
    program, folder = stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755
    init = plan.guest("linux/words", **defines).read_bytes()
    archive = plan.file("init.cpio", initrd.archive([("dev", folder, b""), ("init", program, init)]))
    return plan.boot(linux_kernel(), args=[f"--initrd={archive}", *args], steps=tuple(steps), hold_stdin=True,
                     limits=LINUX_LIMITS)


def _shows(lines: Sequence[str]) -> Condition:
    """The lines of process 1 are in the output, in this order; Linux may print others."""
    def condition(outcome: Outcome) -> Mismatch | None:
        printed = outcome.stdout.replace("\r\n", "\n").split("\n")
        found = [line + "\n" for line in printed if line + "\n" in lines]
        if found == list(lines):
            return None
        return Mismatch("the output does not have the lines of Linux's first process", "".join(lines),
                        outcome.stdout)
    return condition


def _sent(line: str) -> bytes:
    """A line as Linux sends it. Before its end, an echo may come in between."""
    return line.replace("\n", "\r\n").encode()


def _command_line() -> str:
    """LINUX_COMMAND_LINE of lab8.h."""
    text = (ROOT / "common/contract/lab8.h").read_text()
    found = re.search(r"#define LINUX_COMMAND_LINE((?:\s*\\\n|\s*\"[^\"]*\")+)", text)
    assert found
    return "".join(re.findall(r'"([^"]*)"', found[1]))


@lab.test("8.6", "boots Debian's kernel, which runs a program", points=4,
          hint="How far does Linux come? Boot it with `make linux`, and ARGS=\"--cmdline=console=ttyS0\" "
               "for all of its log; then see the table of symptoms at the end of the handout.")
def linux(plan: Plan) -> None:
    values = plan.values
    code = LineCode(values, USER, SIGNATURE)
    words, typed = [values.word() for _ in range(3)], [values.text() for _ in range(3)]
    lines = [code.line(text) for text in (*words, *typed)]
    steps = [Step(after=_sent(line), send=f"{text}\n".encode())
             for line, text in zip(lines[len(words) - 1:], (*typed, "."))]
    # Any frequency: time is not measured here.
    options = f"--cmdline={_command_line()} tsc_early_khz=2000000 -- {' '.join(words)}"
    run = _linux(plan, args=[options], steps=steps, LINE_CODE=list(code.image))
    shown = _shows(lines)
    reset = f"When its process had printed all its lines, Linux was asked to reboot. {_RESET}"
    run.must(shown)
    run.exits(0, hint=reset)
    run.symptom(lambda o: o.hung and shown(o) is None, reset)
    _symptoms(run)


@lab.test("8.6", "reports a panic of Debian's kernel", points=3,
          hint="What does Linux do when its first process ends? It panics, and with panic=-1 and reboot=k "
               "it writes KEYBOARD_RESET. Does platform->log have its words then?")
def linux_panic(plan: Plan) -> None:
    values = plan.values
    code, text, status = LineCode(values, USER, SIGNATURE), values.text(), values.randint(1, 63)
    line = code.line(text)
    # The program reads when it runs: what is typed early waits.
    steps = [Step(send=f"{text}\n".encode()), Step(after=_sent(line), send=b".\n")]
    run = _linux(plan, args=["--mem=128M"], steps=steps, LINE_CODE=list(code.image), EXIT_CODE=status)
    run.must(_shows([line]))
    run.exits(STATUS_CRASHED)
    run.says(f"Kernel panic - not syncing: .*exitcode=0x0000{status:02x}00", what="the line of the panic")
    run.symptom(lambda o: o.hung and "Kernel panic" in o.stdout,
                f"Linux has panicked, and reboots because of panic=-1. {_RESET}")
    _symptoms(run)


# ---------------------------------------------------------------- what mistakes look like

def _symptoms(run: Planned, waits: str = "") -> None:
    """Known mistakes; `waits`: the hint if the guest hangs."""
    def died_at_once(outcome: Outcome) -> bool:
        return outcome.said("KVM_EXIT_SHUTDOWN") and not outcome.said("the exit before: ")

    run.symptom(lambda o: o.hung and not o.where,
                "The guest has ended, and the VMM has not: which thread does platform_stop wait for, and "
                "what does that thread wait for? See test 8.3-start-and-stop.")
    run.symptom(lambda o: o.said("KVM rejects the start state|KVM_SET_SREGS: Invalid"),
                "KVM_SET_SREGS returned EINVAL. Is it lab 7's state but for the selectors?")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor rejected the start state: test 8.5-start-state names the field.")
    run.symptom(died_at_once,
                "The guest crashed before its first exit. Is RIP 0x200 past the kernel, is the kernel "
                "there, and is the code segment at selector 0x10 one of 64 bits?")
    run.symptom(lambda o: o.status == STATUS_STRAY,
                "The guest got an exception or an interrupt that it did not expect. Which vector did "
                "KVM_INTERRUPT get? The one that pic_acknowledge returns.")
    run.symptom(lambda o: "tsc: Unable to calibrate" in o.stdout,
                "Linux could not measure time with the PIT: does counter 2 count down, and does its output "
                "rise?")
    run.symptom(lambda o: o.hung,
                waits or f"How far did the guest come, and what does it wait for? {_SECTION}")


lab.demonstrations = [
    Demonstration("Linux, which powers off", ("linux",), stdin=b"uname -a\npoweroff\n"),
]
