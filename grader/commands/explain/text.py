"""The report of `make explain`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from grader.commands.explain.causes import likely
from grader.commands.explain.delivery import Delivery, Link, chain
from grader.commands.explain.faults import PF, Fault, name_of
from grader.commands.explain.instructions import Executor
from grader.commands.explain.operands import decode
from grader.commands.explain.processor import Processor
from grader.commands.explain.state import Instruction, Record

SHOWN = 16  # instructions
WIDTH = 100
DEVICES = (0x20, 0x21)  # TIMER_VECTOR, KEYBOARD_VECTOR of common/contract/abi.h
CHANGES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "cr0", "cr3", "cr4", "gdt_base",
           "idt_base")
CHANGES_64 = (*CHANGES, *(f"r{number}" for number in range(8, 16)))
Place = Callable[[Instruction], str]


def changes(before: Instruction, after: Instruction) -> str:
    """The registers that an instruction changed, with their new values."""
    wide = after.bits == 64

    def name(register: str) -> str:
        return f"e{register[1:]}" if register[0] == "r" and not wide else register.replace("_base", "")
    found = [f"{name(register)}={after[register] & (-1 if wide else 0xffffffff):x}"
             for register in (CHANGES_64 if wide else CHANGES) if before[register] != after[register]]
    found += [f"{register}={after.segments[register].selector:04x}" for register in ("cs", "ds", "es", "ss")
              if before.segments[register].selector != after.segments[register].selector]
    return " ".join(found)


def merged(history: list[Instruction]) -> list[Instruction]:
    """An instruction that jumps to itself is one of the history, repeated."""
    found: list[Instruction] = []
    for state in history:
        if found and state.linear == found[-1].linear and not state.handler:
            state = replace(state, repeated=found.pop().repeated + state.repeated)
        found.append(state)
    return found


def instructions(record: Record, place: Place) -> Iterator[str]:
    """The last instructions, with what each changed."""
    shown = merged(record.history)[-SHOWN:]
    for state, after in zip(shown, [*shown[1:], None]):
        if state.handler:
            yield "  (the processor calls a handler)"
        decoded = decode(state)
        where = (f"{state.segments['cs'].selector:04x}:{state['rip']:04x}" if state.real
                 else f"{state.linear:0{16 if state.bits == 64 else 8}x}")
        again = f" ({state.repeated} times)" if state.repeated > 1 else ""
        line = f"  {where}  {decoded.text}{again}"
        changed = changes(state, after) if after else ""
        source = place(state)
        comment = f"; {source}" if source and source != decoded.text else ""
        yield f"{line:<52} {changed:<28} {comment}".rstrip()


def shutdown(record: Record) -> list[Link]:
    """The chain of events after the last instruction."""
    processor = Processor(record.last, record.memory)
    executor = Executor(processor)
    if record.interrupt >= 0:
        return list(chain(processor, None, interrupt=record.interrupt))
    fault, vector = executor.fault() or too_high(record), executor.software_interrupt()
    if fault is None and vector < 0:
        return [Link(f"an exception that this command does not know: {executor.decoded.text}")
                ] if record.same else []
    return [*zeros(record.history[:-1]), *chain(processor, fault, software=vector)]


def too_high(record: Record) -> Fault | None:
    """The page fault of a physical address with more bits than the processor has: how many is unknown."""
    links = outside(record) if record.last.long else []
    return Fault(PF, f"{links[0].text}, and the processor rejects this address as one with reserved bits",
                 "reserved") if links else None


def zeros(history: list[Instruction]) -> list[Link]:
    """Whether the instructions come from memory that has nothing in it."""
    last = history[-SHOWN:]
    if len(last) < SHOWN or any(any(state.code[:2]) for state in last):
        return []
    return [Link("it executes zeros, where nothing was loaded", "zeros")]


def hang(record: Record) -> list[Link]:
    """What a guest that hangs is doing."""
    if zeros(record.history):
        return zeros(record.history)
    delivery = Delivery(Processor(record.last, record.memory))
    for vector in DEVICES if record.interrupts else ():
        with suppress(Fault):
            handler = delivery.deliver(vector)
            if handler.topic:
                return [Link(f"{name_of(vector)} arrives again and again"),
                        Link(handler.text, handler.topic)]
    return [Link("it neither halts nor talks to the VMM", "loop")]


def outside(record: Record) -> list[Link]:
    """An access to what is not RAM."""
    with suppress(Fault):
        return [Link(text, "outside") for text in Executor(Processor(record.last, record.memory)).outside()]
    return []


def internal_error(record: Record) -> list[Link]:
    """What KVM could not emulate: an access to what is not RAM, or an exception."""
    known = Executor(Processor(record.last, record.memory)).fault()
    return outside(record) or (shutdown(record) if known else [])


def no_exit(record: Record) -> list[Link]:
    """KVM_RUN has failed."""
    return [Link("KVM_RUN returned an error, so there was no exit: the VMM's message says which",
                 "eintr")]


EVENTS = {"KVM_EXIT_SHUTDOWN": shutdown, "hang": hang, "no exit": no_exit, "KVM_EXIT_MMIO": outside,
          "KVM_EXIT_INTERNAL_ERROR": internal_error}


def report(record: Record, place: Place) -> Iterator[str]:
    """All lines."""
    if not record.same:
        yield ("The second time it did not come to the same end, or not within 30 s. So what follows may "
               "differ from the crash.")
    if record.reason == "hang":
        yield (f"vcpu{record.vcpu} has run for some seconds without I/O and without HLT: it hangs, or "
               "computes for long. It was ended.")
    if record.reason in ("hang", "no exit"):
        yield "What it executes:"
    else:
        yield f"The last instructions of vcpu{record.vcpu}, of {record.count} since it was last entered:"
    yield from instructions(record, place)
    yield ""
    if not record.last.covered:
        yield "The tables of PAE paging and of five levels are not explained: see the post-mortem."
        return
    links = EVENTS[record.reason](record) if record.reason in EVENTS else []
    if not links:
        yield f"It ended with {record.reason}: see handouts/reference/exit-reasons.md."
        return
    yield "What is known:" if record.reason == "hang" else "How it ended:"
    for index, link in enumerate(links):
        yield textwrap.fill(link.text, WIDTH, initial_indent="  " if index == 0 else "  -> ",
                            subsequent_indent="     ", break_long_words=False)
    cause = likely([link.topic for link in links], record.last.long)
    if cause:
        yield ""
        yield textwrap.fill(f"Likely cause: {cause.text}", WIDTH, break_long_words=False)
        yield f"Read: {cause.read}"
