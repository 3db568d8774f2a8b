"""The report of `make explain`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

from grader.commands.explain.causes import likely
from grader.commands.explain.faults import Link, Processor, chain
from grader.commands.explain.instructions import Executor, decode
from grader.commands.explain.state import Instruction, Record

SHOWN = 16  # instructions
WIDTH = 100
CHANGES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "cr0", "cr3", "cr4", "gdt_base",
           "idt_base")
Place = Callable[[Instruction], str]


def changes(before: Instruction, after: Instruction) -> str:
    """The registers that an instruction changed, with their new values."""
    def name(register: str) -> str:
        return f"e{register[1:]}" if register[0] == "r" else register.replace("_base", "")
    found = [f"{name(register)}={after[register] & 0xffffffff:x}" for register in CHANGES
             if before[register] != after[register]]
    found += [f"{register}={after.segments[register].selector:04x}" for register in ("cs", "ds", "es", "ss")
              if before.segments[register].selector != after.segments[register].selector]
    return " ".join(found)


def history(record: Record, place: Place) -> Iterator[str]:
    """The last instructions, with what each changed."""
    shown = record.history[-SHOWN:]
    for state, after in zip(shown, [*shown[1:], None]):
        if state.handler:
            yield "  (the processor calls a handler)"
        decoded = decode(state)
        where = (f"{state.segments['cs'].selector:04x}:{state['rip']:04x}" if state.real
                 else f"{state.linear:08x}")
        again = f" ({state.repeated} times)" if state.repeated > 1 else ""
        line = f"  {where}  {decoded.text}{again}"
        changed = changes(state, after) if after else ""
        source = place(state)
        comment = f"; {source}" if source and source != decoded.text else ""
        yield f"{line:<52} {changed:<28} {comment}".rstrip()


def events(record: Record) -> list[Link] | None:
    """The chain of events after the last instruction; None: no fault of it is known."""
    processor = Processor(record.last, record.memory)
    executor = Executor(processor)
    if record.interrupt >= 0:
        return list(chain(processor, None, interrupt=record.interrupt))
    fault, vector = executor.fault(), executor.software_interrupt()
    if fault is None and vector < 0:
        return None
    return list(chain(processor, fault, software=vector))


def report(record: Record, place: Place) -> Iterator[str]:
    """All lines."""
    if not record.same:
        yield "It did not end in the same way a second time, so what follows may differ from the crash."
    yield f"The last instructions of vcpu{record.vcpu}, of {record.count} since it was last entered:"
    yield from history(record, place)
    yield ""
    if not record.last.covered:
        yield "PAE paging and long mode are not explained yet."
        return
    links = events(record) if record.reason == "KVM_EXIT_SHUTDOWN" else None
    if links is None:
        yield f"It ended with {record.reason}: see handouts/reference/exit-reasons.md."
        return
    yield "How it ended:"
    for index, link in enumerate(links):
        yield textwrap.fill(link.text, WIDTH, initial_indent="  " if index == 0 else "  -> ",
                            subsequent_indent="     ", break_long_words=False)
    cause = likely([link.topic for link in links])
    if cause:
        yield ""
        yield textwrap.fill(f"Likely cause: {cause.text}", WIDTH, break_long_words=False)
        yield f"Read: {cause.read}"
