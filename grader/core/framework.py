"""How a lab's tests are written.

A test is a function with a decorator. It is handed a Plan, boots guests on it and says what must come
out. Nothing runs while it does so: the runs of a whole lab go to the back end in one batch, and judging
looks at their results afterwards. So a test cannot look at a result and then decide; it declares.

    lab = Lab(2, "hypercalls", needs=("real",))

    @lab.test("2.2", "PUTCHAR prints BL", points=10, hint="The character is BL: vcpu_registers gives RBX.")
    def putchar(plan: Plan) -> None:
        text = plan.values.text()                          # random, but the same for the same seed
        run = plan.boot(plan.guest("hello", TEXT=text))    # guests/hello.asm with -DTEXT='...'
        run.prints(text + "\\n")                            # exactly this on standard output
        run.exits(0)
        run.symptom(lambda o: o.stdout == "", "Nothing was printed: ...")   # a mistake with a hint of its own

The test's name is the function's; its id, unique in the kit, is "2.2-putchar". A mistake that many
learners make gets a symptom: a condition on the Outcome and the hint that helps. Symptoms are looked at
whenever the test fails, also when it hung or crashed, the first that fits wins; else the hint of the
failed expectation, else the test's own is shown.

A Check program of the lab's units/ counts in the same way, one graded test for each of its test cases
(TCase): `plan.unit("vm", "kvm_open")`. Lab 6's scheduler can't run in a Check program: its unit tests are a
kernel, `plan.kernel_unit("switch")`. Anything else that a run may have (stdin, steps of a session, a
terminal, limits, files wanted back) is handed through to grader.execution.runs.Run by boot's keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

POINTS_OF_A_LAB = 100

Body = Callable[[Any], None]         # of a grader.core.plan.Plan, which knows this file


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
    """Guests that `make labN` boots for a person to look at."""

    title: str
    guests: tuple[str, ...]
    options: tuple[str, ...] = ()
    stdin: bytes = b""


@dataclass
class Lab:
    """The tests of one lab, in the order in which they are shown."""

    number: int
    title: str
    needs: tuple[str, ...]           # of every boot: kinds that grader.execution.backends probes
    tests: list[Test] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)

    def test(self, exercise: str, title: str, *, points: int, hint: str,
             needs: Iterable[str] = ()) -> Callable[[Body], Body]:
        """Makes the function a test of this exercise. `needs` adds to what the lab needs."""
        def declare(body: Body) -> Body:
            name = body.__name__.replace("_", "-")
            test = Test(self.number, exercise, name, title, points, hint, tuple(needs), body)
            if any(other.id == test.id for other in self.tests):
                raise ValueError(f"two tests are called {test.id}")
            self.tests.append(test)
            return body
        return declare

    def exercises(self) -> list[str]:
        """The exercises in order."""
        return list(dict.fromkeys(test.exercise for test in self.tests))

    def select(self, wanted: str) -> list[Test]:
        """All tests, those of an exercise ("3.2"), or one by its id."""
        return [test for test in self.tests if wanted in ("", test.exercise, test.id)]
