"""The verdict on a test: first the universal checks, then its expectations; and the hint."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from grader.core.exercises import handout_exercises
from grader.core.expectations import Mismatch
from grader.core.framework import Test
from grader.core.outcome import Outcome, Todo
from grader.core.plan import Planned
from grader.course import LABS
from grader.execution.budget import FACTOR
from grader.execution.runs import Ending, Result


class Kind(str, enum.Enum):
    """The result of a test."""

    OK = "ok"
    FAILED = "FAILED"
    TODO = "todo"
    CANNOT = "cannot"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a test. `failed` is the index of the failed run in the test."""

    test: Test
    kind: Kind
    hint: str = ""
    mismatch: Mismatch | None = None
    failed: int | None = None
    todo: Todo | None = None

    @property
    def points(self) -> int:
        return self.test.points if self.kind is Kind.OK else 0

    @property
    def text(self) -> str:
        """The hint, and what was wrong."""
        return self.hint + (f" [{self.mismatch.text}]" if self.mismatch else "")


VCPUS_MAX = 4

# Endings that no test expects: message and hint, unless a symptom of the test has a better hint.
_LIMITS = {
    Ending.TIMEOUT: ("wall-clock timeout: it was still running",
                     "It loops forever. Which exit is handled in such a way that the guest makes it again?"),
    Ending.NO_OUTPUT: ("no-output timeout: it hung without output, step or end",
                       "It waits for an event that never occurs, or enters the guest again and again. "
                       "--trace shows the last exit."),
    Ending.DEADLOCK: ("deadlock: every thread waits, and nothing can wake one",
                      "What does each thread wait for (see below), and which code would wake it? Is the main "
                      "thread notified when all guests have ended? Is every lock released on every return?"),
    Ending.SPIN: ("busy loop: it kept a processor busy without output",
                  "It loops forever. Does the guest repeat the same exit because of how it is handled? Or is "
                  "there an endless loop in your code? --trace and the lines below show where."),
    Ending.OUTPUT: ("output limit exceeded: it printed too much",
                    "Is the same exit handled again and again? Does each handler return the result of "
                    "vcpu_end or vcpu_crash? Does every loop over the bytes of an exit end?"),
    Ending.MEMORY: ("memory limit exceeded",
                    "Is something allocated at each exit and never freed? Is a size wrong?"),
    Ending.BUDGET: ("not run: all tests together took too long",
                    f"A submission may take {FACTOR:g} times as long as the solution. In which tests before "
                    "this one does it wait or compute without need?"),
    Ending.PROCESSES: ("process limit exceeded: it started too many processes or threads",
                       "This VMM needs only one thread per vCPU."),
}

# A vCPU whose next instruction is not mapped, though it has not crashed: KVM may look for the page forever.
_NOT_MAPPED = "code (not mapped)"
_NOT_MAPPED_HINT = ("Which page directory does CR3 point to? The processor finds no page for its next "
                    "instruction, and no way to its handlers. CR3 holds a physical address, inside RAM.")

THIRD_ARGUMENT = (
    "What is the third argument of that ioctl? KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_RUN and "
    "KVM_GET_VCPU_MMAP_SIZE take 0: if it is missing, the kernel gets whatever the register holds, and "
    "answers EINVAL.")

_MADE_UP = "# errors were made up\n"     # grader/labs/apart.h

# What the kernel's words mean, whatever the test is about.
_ERRORS = (
    (r"^vmm: .*Function not implemented",
     "Did you ask KVM for its own interrupt controller or timer (KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2)? A "
     "graded run refuses these: KVM would do the work of labs 4 and 8, and handle HLT itself, without an "
     "exit. It allows what is about memory, processors and their state."),
    (r"(?:KVM_RUN|KVM_CREATE_VM|KVM_GET_API_VERSION|KVM_GET_VCPU_MMAP_SIZE)\b.*Invalid argument",
     THIRD_ARGUMENT),
    (r"Inappropriate ioctl for device",
     "Which descriptor did that call go to? Calls on /dev/kvm go to vm->kvm_fd, those on a VM to vm->fd, "
     "those on a vCPU, KVM_RUN too, to vcpu->fd; on another one they fail with \"Inappropriate ioctl for "
     "device\"."),
)

_CRASH_HINT = ("The VMM itself crashed, not the guest. Which pointer was not set, or which index is too "
               "large? The command below with SANITIZE=address,undefined names the line; so does gdb.")
_HANG_HINT = "Which loop does not end, or which lock is taken twice or never released?"
_SANITIZER_HINT = "The sanitizer reports the line of the mistake and where the memory was allocated."


def judge(test: Test, planned: Sequence[Planned], results: Sequence[Result]) -> Verdict:
    """The verdict from the results of a test's runs."""
    for place, (plan, result) in enumerate(zip(planned, results)):
        outcome = Outcome(result)
        if result.ending in (Ending.MACHINE, Ending.NOT_STARTED):
            text = f"{result}" + (f": {result.diagnosis}" if result.diagnosis else "")
            return Verdict(test, Kind.CANNOT, mismatch=Mismatch(text), failed=place)
        if plan.unit and outcome.status and not outcome.sanitizer:
            text = f"the unit program itself failed: {result}"
            return Verdict(test, Kind.CANNOT, mismatch=Mismatch(text), failed=place)
        if outcome.todo and _in_use(outcome.todo.exercise, test):
            return Verdict(test, Kind.TODO, failed=place, todo=outcome.todo)
        found = (_never_returned(outcome, plan, test) or _universal(outcome, plan, test)
                 or _expected(outcome, plan, test) or _left_behind(outcome))
        if found:
            hint, mismatch = found
            return Verdict(test, Kind.FAILED, _known(outcome, plan) or hint, mismatch, place)
    return Verdict(test, Kind.OK)


def _in_use(exercise: str, test: Test) -> bool:
    """Whether a module of this test's lab or of one before it can have such an exercise."""
    number = int(exercise[0])
    return number in LABS and number <= test.lab and exercise in handout_exercises(LABS[number])


def _universal(outcome: Outcome, plan: Planned, test: Test) -> tuple[str, Mismatch] | None:
    """The universal checks: what is wrong whatever the test expects."""
    result = outcome.result
    if result.ending in _LIMITS:
        text, hint = _LIMITS[result.ending]
        where = "".join(f"\n{line}" for line in outcome.where[:VCPUS_MAX])
        if plan.unit:
            hint = f"{_about(test)} {hint}"
        return hint, Mismatch(text + where, *_unlike(outcome, plan))
    if outcome.sanitizer:
        return _SANITIZER_HINT, Mismatch(outcome.sanitizer)
    if result.ending is Ending.SIGNAL:
        return _CRASH_HINT, Mismatch(f"the VMM crashed: {result}")
    if result.ending is not Ending.EXIT:
        return "", Mismatch(f"{result}")
    return None


def _left_behind(outcome: Outcome) -> tuple[str, Mismatch] | None:
    """Processes that outlived the program. Looked for last: a failure on the way may be what left them."""
    count = outcome.result.left_behind
    if not count:
        return None
    return ("Every process that the VMM starts must end with it.",
            Mismatch(f"it left {count} process{'es' if count > 1 else ''} behind"))


def _known(outcome: Outcome, plan: Planned) -> str:
    """The hint for what this failure looks like, or nothing."""
    if outcome.hung and any(_NOT_MAPPED in line for line in outcome.where):
        return _NOT_MAPPED_HINT
    made_up = plan.unit and _MADE_UP in outcome.stdout
    errors = (hint for words, hint in _ERRORS if not made_up and outcome.said(words))
    return next(errors, "") or next((s.hint for s in plan.symptoms if s.shows(outcome)), "")


def _about(test: Test) -> str:
    """What the test of a unit program is about, which a crash or a hang hides."""
    return f"This test is about: {test.hint}"


def _never_returned(outcome: Outcome, plan: Planned, test: Test) -> tuple[str, Mismatch] | None:
    """A function of the module crashed or hung in a unit program, which itself continues."""
    if not plan.unit:
        return None
    crash = re.search(r"^not ok .*Received signal \d+ \((.*)\)", outcome.stdout, re.M)
    if crash:
        met = re.search(r"^# crashed( with .*)", outcome.stdout, re.M)     # grader/labs/apart.h
        return (f"{_about(test)} {_CRASH_HINT}",
                Mismatch(f"the module crashed{met[1] if met else ''}: {crash[1]}"))
    if outcome.hung:
        return f"{_about(test)} {_HANG_HINT}", Mismatch("a function of the module did not return")
    return None


def _expected(outcome: Outcome, plan: Planned, test: Test) -> tuple[str, Mismatch] | None:
    """The first expectation that is not met."""
    for expectation in plan.expectations:
        mismatch = expectation.condition(outcome)
        if mismatch:
            return expectation.hint or test.hint, mismatch
    waits = len(plan.run.steps) - outcome.result.steps_done
    if waits:
        step = plan.run.steps[-waits]
        return test.hint, Mismatch(f"the session ended too early: it never printed {step.after!r}")
    return None


def _unlike(outcome: Outcome, plan: Planned) -> tuple[str | None, str | None]:
    """For a run that was stopped: the first text comparison that fails."""
    for expectation in plan.expectations:
        mismatch = expectation.condition(outcome)
        if mismatch and mismatch.expected is not None:
            return mismatch.expected, mismatch.got
    return None, None
