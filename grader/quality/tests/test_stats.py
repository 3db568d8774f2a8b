"""--stats: what a run's exits, times and interrupts are reported as, on guests whose counts are known."""

from __future__ import annotations

import json
import re
import signal
import unittest
from pathlib import Path
from typing import Any

from grader import labs
from grader.core.building import build_guests, build_vmm
from grader.core.guests import assemble, write_constants
from grader.course import BUILD, LABS
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Ending, Result, Run, Step

FOLDER = BUILD / "tests/stats"
TIMER = 0x20


def boot(lab: int, guests: "list[Path]", *options: str, module: "Path | None" = None,
         **choices: Any) -> Result:
    """Runs guests on the finished VMM of a lab, or on one with a module of the test's."""
    vmm = build_vmm(lab, solution=not module, module=module)
    run = Run((str(vmm), *options, *map(str, guests)), **choices)
    try:
        [result] = pick_backend("auto", labs.load(lab).needs).run([run])
    except CannotGrade as error:
        raise unittest.SkipTest(error.reason) from error
    return result


def statistics(result: Result) -> Any:
    """The line of --stats=json."""
    [line] = [line for line in result.stderr.decode().splitlines() if line.startswith('{"vcpus"')]
    return json.loads(line)


def vector(vcpu: Any, number: int) -> Any:
    """What became of the interrupts of a vector."""
    [found] = [counts for counts in vcpu["vectors"] if counts["vector"] == number]
    return found


class Exits(unittest.TestCase):
    def test_exits_by_reason_and_port(self) -> None:
        result = boot(2, [build_guests() / "hello.bin"], "--stats=json")
        [vcpu] = statistics(result)["vcpus"]
        self.assertEqual((vcpu["exits"], vcpu["KVM_EXIT_IO"], vcpu["lines"]), (23, 23, 1))
        [kind] = vcpu["kinds"]
        self.assertGreater(kind.pop("vmm_ns"), 0)
        self.assertEqual(kind, {"reason": "KVM_EXIT_IO", "direction": "out", "port": 0x500, "count": 23})
        self.assertEqual(vcpu["entries"] - vcpu["interrupted"], 23)
        self.assertEqual((vcpu["vectors"], vcpu["latency_median_ns"], vcpu["halted_ns"]), ([], 0, 0))

    def test_both_directions_of_a_port(self) -> None:
        result = boot(2, [build_guests() / "echo.bin"], "--stats=json", stdin=b"abc\n")
        [vcpu] = statistics(result)["vcpus"]
        counts = {(kind["direction"], kind["port"]): kind["count"] for kind in vcpu["kinds"]}
        self.assertEqual(set(counts), {("out", 0x500), ("in", 0x500)})
        self.assertEqual(sum(counts.values()), vcpu["exits"])

    def test_a_guest_that_crashes(self) -> None:
        result = boot(2, [build_guests() / "port.bin"], "--stats=json")
        [vcpu] = statistics(result)["vcpus"]
        self.assertEqual(vcpu["status"], 70)
        self.assertEqual(sum(kind["count"] for kind in vcpu["kinds"]), vcpu["exits"])

    def test_times_add_up_and_kvm_has_counted_too(self) -> None:
        result = boot(2, [build_guests() / "counter.bin"], "--stats=json")
        numbers = statistics(result)
        [vcpu], [vm] = numbers["vcpus"], numbers["vms"]
        self.assertGreater(vcpu["guest_ns"], 0)
        self.assertLess(vcpu["guest_ns"] + vcpu["vmm_ns"], result.wall * 1e9)
        self.assertLessEqual(sum(kind["vmm_ns"] for kind in vcpu["kinds"]), vcpu["vmm_ns"])
        self.assertGreater(numbers["processor_ns"], 0)
        if vcpu["kvm"]:  # KVM_CAP_BINARY_STATS_FD
            self.assertGreaterEqual(vcpu["kvm"]["exits"], vcpu["exits"])
            self.assertIn("remote_tlb_flush", vm["kvm"])

    def test_text(self) -> None:
        result = boot(4, [build_guests() / "ticks.bin"], "--stats", hold_stdin=True)
        text = result.stderr.decode()
        for line in (r"vcpu0: status 0, \d+ exits, \d+ interrupts; KVM_EXIT_IO 11.*",
                     r"  \d\.\d{6} s in the guest, \d\.\d{6} s in the VMM, \d\.\d{6} s halted; "
                     r"entries: \d+, interrupted: \d+; kicks: \d+; lines printed: 5",
                     r"  KVM_EXIT_IO out 0x500 +11 exits, +\d+\.\d us each in the VMM",
                     r"  vector 0x20: \d+ raised, \d+ merged with a pending one, \d+ injected.*",
                     r"  from raised to injected: median \d+\.\d us, worst \d+\.\d us",
                     r"vmm: \d+\.\d{3} s of processor time"):
            self.assertRegex(text, re.compile(f"^{line}$", re.M))


class Interrupts(unittest.TestCase):
    def test_each_is_raised_once_and_injected_once(self) -> None:
        result = boot(4, [build_guests() / "ticks.bin"], "--stats=json", hold_stdin=True)
        [vcpu] = statistics(result)["vcpus"]
        ticks = vector(vcpu, TIMER)
        self.assertGreaterEqual(ticks["injected"], 5)
        self.assertEqual(ticks["injected"], vcpu["interrupts"])
        self.assertEqual(ticks["raised"], ticks["injected"] + ticks["pending"])
        self.assertEqual(ticks["lost"], 0)
        self.assertGreater(vcpu["halted_ns"], 0)
        self.assertGreaterEqual(vcpu["kicks"], 1)
        self.assertTrue(0 < vcpu["latency_median_ns"] <= vcpu["latency_worst_ns"])

    def test_those_that_arrive_while_one_is_pending_merge(self) -> None:
        write_constants()
        image = assemble("merge", FOLDER / "merge.bin", MASKED=40, OPEN=10)
        result = boot(4, [image, image], "--stats=json", "--tick-ms=2", hold_stdin=True)
        masked, clock = statistics(result)["vcpus"]
        self.assertGreaterEqual(vector(masked, TIMER)["merged"], 39, "40 ticks while it had disabled them")
        self.assertEqual(vector(masked, TIMER)["lost"], 0)
        self.assertEqual(vector(clock, TIMER)["lost"], 0)

    def test_each_key_interrupts(self) -> None:
        result = boot(4, [build_guests() / "ticks.bin"], "--stats=json", stdin=b"x", hold_stdin=True)
        [vcpu] = statistics(result)["vcpus"]
        keys = vector(vcpu, TIMER + 1)
        self.assertEqual((keys["raised"], keys["lost"]), (1, 0))

    def test_a_module_that_loses_every_second(self) -> None:
        [source] = LABS[4].solution_files()
        text = source.read_text()
        call = "if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) < 0) {"
        self.assertIn(call, text)
        module = FOLDER / "loses.c"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text.replace(call, "if (vcpu->interrupts % 2 == 0 && " + call[4:]))
        result = boot(4, [build_guests() / "ticks.bin"], "--stats=json", module=module, hold_stdin=True)
        [vcpu] = statistics(result)["vcpus"]
        ticks = vector(vcpu, TIMER)
        self.assertEqual(ticks["injected"], (vcpu["interrupts"] + 1) // 2)
        self.assertEqual(ticks["lost"], vcpu["interrupts"] - ticks["injected"])


class Trace(unittest.TestCase):
    def test_a_traces_lines_are_whole_however_the_vmm_ends(self) -> None:
        result = boot(2, [build_guests() / "endless.bin"], "--trace=trace", outputs=("trace",),
                      steps=(Step(after=b"ends me\n", signal=signal.SIGKILL),))
        self.assertEqual(result.ending, Ending.SIGNAL)
        lines = result.files["trace"].decode().splitlines(keepends=True)
        self.assertEqual(len(lines), len("looping; Ctrl-C ends me\n"))  # an exit for each
        for line in lines:
            self.assertRegex(line, r"^\d+\.\d{6} vcpu0 KVM_EXIT_IO out port=0x500 size=\d count=1.*\n$")


if __name__ == "__main__":
    unittest.main()
