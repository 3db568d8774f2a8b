"""`make bench`: measures costs, as ratios of two ways of doing the same, in one run.

Machines differ a thousandfold and are shared, so a single time means nothing. The two ways of each pair are
run in turn, A B A B ..., and the median of the ratios of neighbours is printed, with the smallest and the
largest. Nothing is judged.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from grader.execution.backends import Backend, pick_backend
from grader.core.building import build_vmm
from grader.course import BUILD
from grader.core.guests import Define, assemble, write_constants
from grader.execution.runs import CannotGrade, Ending, Limits, Run
from grader.execution.tool import run_command

LAB = 4                      # the VMM that all pairs run on: it has vCPUs, hypercalls and the timer
ROUNDS = 5
LIMITS = Limits(wall=120, no_output=120, spin=0)
PUTCHAR, OUTSB, WRITE, NOTHING = 1, 2, 3, 4   # METHOD of guests/bench.asm


@dataclass(frozen=True)
class Way:
    """One side of a pair: guests of guests/bench.asm and the VMM's options."""

    title: str
    method: int
    guests: int = 1
    options: tuple[str, ...] = ("--tick-ms=1000",)
    backend: str = ""        # empty: the chosen back end

    def run(self, vmm: str) -> Run:
        """The VMM with this way's guests."""
        defines: dict[str, Define] = {"METHOD": self.method}
        guest = assemble("bench", BUILD / "bench" / f"{self.method}.bin", None, **defines)
        return Run((vmm, *self.options, *[str(guest)] * self.guests), limits=LIMITS)


PAIRS = [
    (Way("20,000 characters by PUTCHAR", PUTCHAR), Way("the same by one WRITE", WRITE)),
    (Way("20,000 characters by rep outsb", OUTSB), Way("the same by PUTCHAR", PUTCHAR)),
    (Way("262,144 additions, a tick each ms", NOTHING, options=("--tick-ms=1",)),
     Way("the same, a tick each second", NOTHING)),
    (Way("262,144 additions on each of four vCPUs", NOTHING, guests=4),
     Way("the same on one vCPU", NOTHING)),
]
BACK_END_PAIRS = [
    (Way("20,000 exits in the lab VM", PUTCHAR, backend="vm"),
     Way("the same on /dev/kvm", PUTCHAR, backend="kvm")),
    (Way("262,144 additions in the lab VM", NOTHING, backend="vm"),
     Way("the same on /dev/kvm", NOTHING, backend="kvm")),
]


def measure(pair: tuple[Way, Way], vmm: str, backends: dict[str, Backend]) -> list[float]:
    """The ratios of the two ways' times, A to B, one per round, after a warm-up round."""
    ratios = []
    for _ in range(ROUNDS + 1):
        seconds = []
        for way in pair:
            result = backends[way.backend].run([way.run(vmm)])[0]
            if result.ending is not Ending.EXIT or result.code != 0:
                raise CannotGrade(f"{way.title}: ended with {result.ending.value} {result.code}:\n"
                                  + result.stderr.decode(errors="replace"),
                                  "run make doctor")
            seconds.append(result.wall)
        ratios.append(seconds[0] / seconds[1])
    return ratios[1:]


def main(arguments: Sequence[str]) -> int:
    """Measures all pairs; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="Ratios of two ways of doing the same.")
    parser.add_argument("--backend", default=os.environ.get("BACKEND") or "auto")
    options = parser.parse_args(arguments)
    try:
        write_constants()
        vmm = str(build_vmm(LAB, solution=True))
        backends = {"": pick_backend(options.backend, needs=("real", "interrupts"))}
        print(f"{backends[''].why}\n{ROUNDS} rounds: median of the ratios (smallest to largest)")
        pairs = list(PAIRS)
        try:
            backends.update({name: pick_backend(name, needs=("real",)) for name in ("kvm", "vm")})
            pairs += BACK_END_PAIRS
        except CannotGrade as missing:
            print(f"the two back ends are not compared: {missing.reason}")
        for pair in pairs:
            ratios = measure(pair, vmm, backends)
            print(f"{statistics.median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})  "
                  f"{pair[0].title} : {pair[1].title}", flush=True)
    except CannotGrade as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
