"""How to write a lab's tests.

A test is a decorated function. It gets a Plan, boots guests on it and declares the expected results.
Nothing runs at that time: all runs of a lab go to the back end in one batch, and their results are judged
afterwards. So a test can't inspect a result and then decide; it declares.

    lab = Lab(2, "hypercalls", needs=("real",))

    @lab.test("2.2", "PUTCHAR prints BL", points=10, hint="The character is BL: vcpu_registers gives RBX.")
    def putchar(plan: Plan) -> None:
        text = plan.values.text()                          # random, but fixed by the seed
        run = plan.boot(plan.guest("hello", TEXT=text))    # guests/hello.asm with -DTEXT='...'
        run.prints(text + "\\n")                            # exactly this on standard output
        run.exits(0)
        run.symptom(lambda o: o.stdout == "", "Nothing was printed: ...")   # a known mistake

The test's name is the function's name; its id, unique in the kit, is "2.2-putchar". A common mistake gets a
symptom: a condition on the Outcome, and a hint. Symptoms are checked whenever the test fails, even if it
hung or crashed, and the first match wins. Without a match, the hint of the failed expectation is shown, or
else the test's own.

Each test case (TCase) of a Check program in the lab's units/ is one graded test as well:
`plan.unit("vm", "kvm_open")`. Lab 6's scheduler can't run in a Check program; its unit tests are a kernel:
`plan.kernel_unit`. Other properties of a run (stdin, steps of a session, a terminal, limits, files
to return) are keywords of boot, which passes them to grader.execution.runs.Run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

POINTS_OF_A_LAB = 100

Body = Callable[[Any], None]         # takes a grader.core.plan.Plan, which imports this file


@dataclass(frozen=True)
class Test:
    """One graded test."""

    lab: int
    exercise: str
    name: str
    title: str
    points: int
    hint: str
    needs: tuple[str, ...]
    body: Body

    @property
    def id(self) -> str:
        return f"{self.exercise}-{self.name}"


@dataclass(frozen=True)
class Demonstration:
    """Guests that `make labN` boots to show what the lab does."""

    title: str
    guests: tuple[str, ...]
    options: tuple[str, ...] = ()
    stdin: bytes = b""


@dataclass
class Lab:
    """The tests of one lab, in display order."""

    number: int
    title: str
    needs: tuple[str, ...]           # kinds of guest that every boot needs: grader.execution.kvm_probe.KINDS
    tests: list[Test] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)

    def test(self, exercise: str, title: str, *, points: int, hint: str,
             needs: Iterable[str] = ()) -> Callable[[Body], Body]:
        """Declares the function as a test of this exercise. `needs` adds to the lab's needs."""
        def declare(body: Body) -> Body:
            name = body.__name__.replace("_", "-")
            test = Test(self.number, exercise, name, title, points, hint, tuple(needs), body)
            if any(other.id == test.id for other in self.tests):
                raise ValueError(f"two tests have the id {test.id}")
            self.tests.append(test)
            return body
        return declare

    def exercises(self) -> list[str]:
        """The exercises in order."""
        return list(dict.fromkeys(test.exercise for test in self.tests))

    def select(self, wanted: str) -> list[Test]:
        """All tests, those of an exercise ("3.2"), or one by its id."""
        return [test for test in self.tests if wanted in ("", test.exercise, test.id)]
