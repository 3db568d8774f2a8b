"""The likely cause of a crash in the learner's terms, and where to read about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """What to look for."""

    text: str
    read: str


LAB4, LAB5, LAB6 = ("handouts/lab4-interrupts.md", "handouts/lab5-paging.md", "handouts/lab6-1k-os.md")
LAB7 = "handouts/lab7-long-mode.md"
STATE, DEBUGGING = "handouts/reference/x86.md", "handouts/reference/debugging.md"

# By the topic of a fault (faults.py, instructions.py).
CAUSES = {
    "no idt": Cause(
        "The guest has no handlers yet: lidt was not executed, or with a limit that is too "
        "small. The first exception or interrupt then ends it. If an exception was not "
        "expected, look at the first event of the chain.", LAB4),
    "no handler": Cause(
        "The table has no handler for this vector. Is the entry filled in before interrupts "
        "are enabled?", LAB4),
    "no vector": Cause(
        "The vector table has no handler for this vector: its entry is 0000:0000, so execution "
        "continues at the start of RAM. In window 0 the guest starts over. Is the entry filled in, "
        "and does lidt load the table's address?", LAB4),
    "idt address": Cause(
        "lidt takes a linear address, and with paging that page must be mapped, in each page "
        "directory that CR3 may hold.", LAB5),
    "gate type": Cause(
        "The entry of the IDT is not an interrupt gate (type 14). Is the table written where "
        "lidt points, and each field where the manual puts it?", STATE),
    "gate present": Cause(
        "The entry of the IDT is filled in, but its present bit (P) is 0.", STATE),
    "gate offset": Cause(
        "The entry of the IDT does not lead to a handler: are both halves of its address in the "
        "gate, and is that page mapped?", STATE),
    "gate dpl": Cause(
        "A gate that ring 3 calls with int needs DPL 3.", LAB6),
    "gate selector": Cause(
        "The gate's selector must be that of the kernel's code segment.", STATE),
    "trap stack": Cause(
        "An interrupt, exception or system call in ring 3 switches to the stack that the TSS "
        "names. TSS.esp0 must be set at each switch of processes, to the end of that "
        "process's kernel stack.", LAB6),
    "tss": Cause(
        "The processor finds the kernel's stack in the TSS, which TR must lead to.", STATE),
    "stack": Cause(
        "The stack is not usable: was ESP set, is its page mapped, did it overflow?", LAB5),
    "not mapped": Cause(
        "The page is not in the tables that CR3 leads to. Were the tables built for this "
        "address (both halves), and is CR3 right?", LAB5),
    "pse": Cause(
        "The entry is meant to map 4 MB, which it does only with CR4.PSE.", LAB5),
    "rights": Cause(
        "The page is mapped, but its rights forbid this. Rights of both levels count.", LAB5),
    "reserved": Cause(
        "A reserved bit is set: is the frame of a 4 MB page a multiple of 4 MB?", LAB5),
    "table outside": Cause(
        "An entry or CR3 leads to a table outside of RAM: is the address physical, and "
        "complete?", LAB5),
    "sse": Cause(
        "The compiler has produced SSE or floating-point instructions, and the guest has not "
        "enabled them: compile with -mno-sse -mno-80387, or set CR4.OSFXSR.", LAB6),
    "divide": Cause(
        "A division fault in the guest's own arithmetic, and no handler for it.", LAB4),
    "data": Cause(
        "Execution has run into data: a jump or return to a wrong address, or the end of the "
        "code was passed.", DEBUGGING),
    "zeros": Cause(
        "Execution has run into memory where nothing was loaded: a jump or return to a wrong "
        "address, or the end of the code was passed.", DEBUGGING),
    "loop": Cause(
        "Are these instructions the guest's own? If not, a jump or return went wrong. If they are, "
        "which instruction should end the loop, and is it reached?", DEBUGGING),
    "eintr": Cause(
        "If it was EINTR, nothing is wrong: a signal came, such as one of this command. What does the "
        "run loop do then?", "handouts/lab1-real-mode.md, section 1.5"),
    "outside": Cause(
        "A wrong segment register, pointer or page table entry, or too little --mem.", DEBUGGING),
    "alignment": Cause(
        "The compiler aligns the stack at each call, and relies on it: was ESP aligned at the start?",
        STATE),
    "control register": Cause(
        "The value is not valid for this register.", STATE),
    "ud2": Cause(
        "ud2 stands where code must never come, or it is the guest's own test.", DEBUGGING),
    "privileged": Cause(
        "A program in ring 3 has executed an instruction of the kernel.", LAB6),
    "iret": Cause(
        "The frame that iret pops is not right: EIP, CS and EFLAGS, and for another ring ESP "
        "and SS. Has the handler popped all that it pushed, and the error code of exceptions that "
        "have one?", LAB6),
    "selector": Cause(
        "The selector leads to the wrong descriptor: check the GDT that was loaded and the "
        "selector's index and RPL.", STATE),
    "descriptor present": Cause(
        "The descriptor's present bit (P) is 0.", STATE),
    "segment type": Cause(
        "The segment does not allow this kind of access.", STATE),
    "null selector": Cause(
        "A null selector was loaded, or the register was never set.", STATE),
    "null segment": Cause(
        "The segment register was never loaded.", STATE),
    "limit": Cause(
        "The address is past the end of its segment: in real mode a segment has 64 KB.", STATE),
}
# What is different in long mode.
CAUSES_64 = {
    **CAUSES,
    "idt address": Cause(
        "lidt takes a linear address of 64 bits, and that page must be mapped.", LAB7),
    "gate type": Cause(
        "The entry of the IDT is not an interrupt gate (type 14). In long mode each entry has 16 "
        "bytes: is the vector multiplied by 16?", LAB7),
    "gate offset": Cause(
        "The entry of the IDT does not lead to a handler: are all three parts of its 64-bit "
        "address in the gate, and is that page mapped and executable?", LAB7),
    "gate selector": Cause(
        "The gate's selector must be that of the kernel's 64-bit code segment, with L set.", LAB7),
    "gate dpl": Cause(
        "A gate that ring 3 calls with int needs DPL 3.", LAB7),
    "trap stack": Cause(
        "An interrupt or exception in ring 3 switches to the stack that the TSS names. TSS.rsp0, at "
        "offset 4, must be the end of a stack that is mapped and writable.", LAB7),
    "ist": Cause(
        "The gate names a stack of the IST, and that stack is not usable. TSS.ist1 is at offset 36; "
        "each of the seven must be the end of a stack before a gate names it.", LAB7),
    "tss": Cause(
        "The processor finds stacks in the TSS, which TR must lead to. A TSS descriptor has 16 "
        "bytes in long mode, with all 64 bits of the base.", LAB7),
    "stack": Cause(
        "The stack is not usable: was RSP set, is its page mapped, did it overflow?", LAB7),
    "canonical": Cause(
        "The address is not canonical: often a pointer that was overwritten or is not initialized, "
        "or a sum of an address in the higher half and another one.", LAB7),
    "not mapped": Cause(
        "The page is not in the tables that CR3 leads to. Were all levels filled in for this "
        "address, in both halves, and is CR3 right?", LAB7),
    "nx": Cause(
        "Execution has come to a page that holds data: a jump or return to a wrong address, or a "
        "page of code that was mapped with NX. NX in one level is enough.", LAB7),
    "rights": Cause(
        "The page is mapped, but its rights forbid this. Write and user access need the right in "
        "every level.", LAB7),
    "reserved": Cause(
        "A bit that must be 0 is set in this entry: NX without EFER.NXE, PAGE_LARGE in the PML4, a "
        "large page whose address is not a multiple of its size, or a virtual address in the place of "
        "a physical one.", LAB7),
    "table outside": Cause(
        "An entry or CR3 leads to a table outside of RAM: is the address physical, and complete?",
        LAB7),
    "syscall": Cause(
        "syscall and sysret are invalid until EFER.SCE is set.", LAB7),
    "sse": Cause(
        "64-bit compilers use SSE for all floating-point arithmetic. CR4.OSFXSR must be set and "
        "CR0.EM clear, or the guest compiled with -mno-sse.", LAB7),
    "iret": Cause(
        "The frame that iretq pops is not right: RIP, CS, RFLAGS, RSP and SS, 8 bytes each. Has the "
        "handler popped all that it pushed, and the error code of exceptions that have one?", LAB7),
}

# A handler was meant to be called, and could not be. That explains more than why it was to be called.
DELIVERY = ("idt address", "gate type", "gate present", "gate selector", "gate offset", "trap stack", "ist",
            "tss", "stack", "no vector")


def likely(topics: list[str], long: bool) -> Cause | None:
    """The cause for the topics of a chain, first to last."""
    known = [topic for topic in topics if topic]
    causes = CAUSES_64 if long else CAUSES
    return causes.get(next((topic for topic in known if topic in DELIVERY), known[0] if known else ""))
