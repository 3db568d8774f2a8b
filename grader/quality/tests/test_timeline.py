"""`make timeline`: the record of real runs, its totals, the trace for Perfetto and the page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pexpect  # type: ignore

from grader import labs
from grader.commands.timeline import page as page_module
from grader.commands.timeline.__main__ import run, write
from grader.commands.timeline.page import page
from grader.commands.timeline.perfetto import trace_events
from grader.commands.timeline.record import NO_VCPU, NoRecord, Event, Kind, Record, decode
from grader.commands.timeline.story import EXIT, GUEST, HALTED, UNKNOWN, Interrupt, Row, Slice, notes, rows
from grader.core.building import build_guests, build_vmm, clean_environment
from grader.core.exercises import skeleton
from grader.core.guests import write_constants
from grader.course import BUILD, LABS, ROOT
from grader.execution.backends import pick_backend
from grader.execution.runs import CannotGrade, Ending, Limits, Result, Run, Step
from grader.quality.tests.browser import PROGRAM, Browser

FOLDER = BUILD / "tests/timeline"
CAPACITY = 32768  # RECORD_CAPACITY of common/debug/record.h

# More exits than the record has room for events; two events each, and some of the vCPU itself.
BUSY_EXITS = CAPACITY // 2 + 400
BUSY = f"""%include "abi.inc"
bits 16
org 0
    mov cx, {BUSY_EXITS - 1}
again:
    push cx
    xor cx, cx
    mov si, cx
    mov dx, HYPERCALL_PORT
    mov eax, HC_WRITE
    out dx, eax
    pop cx
    loop again
    mov bl, 0
    mov eax, HC_EXIT
    out dx, eax
"""


def boot(lab: int, guests: "Sequence[Path]", *options: str, module: "Path | None" = None,
         **choices: Any) -> "tuple[Result, bytes]":
    """Runs guests with --record; the result, and the bytes of the record."""
    vmm = build_vmm(lab, solution=not module, module=module)
    asked = Run((str(vmm), "--record=record", *options, *map(str, guests)), outputs=("record",), **choices)
    try:
        [result] = pick_backend("auto", labs.load(lab).needs).run([asked])
    except CannotGrade as error:
        raise unittest.SkipTest(error.reason) from error
    return result, result.files.get("record", b"")


def guest(name: str) -> Path:
    """A reference guest."""
    return build_guests() / f"{name}.bin"


def statistics(result: Result) -> Any:
    """The line of --stats=json."""
    [line] = [line for line in result.stderr.decode().splitlines() if line.startswith('{"vcpus"')]
    numbers = json.loads(line)
    del numbers["processor_ns"]
    return numbers


def kinds(record: Record, vcpu: int) -> "Counter[Kind]":
    """How often each kind of event occurred on a vCPU."""
    return Counter(event.kind for event in record.events if event.vcpu == vcpu)


class Runs(unittest.TestCase):
    """Records of reference guests, and of runs that end in other ways."""

    def check_totals(self, result: Result, record: Record) -> None:
        """The totals are those of --stats, and if no event was dropped, the sums of the events."""
        numbers = statistics(result)
        self.assertEqual(record.totals["vcpus"], numbers["vcpus"])
        self.assertEqual(record.totals["vms"], [vm for vm in numbers["vms"] if vm["kvm"]])
        if record.dropped:
            return
        for vcpu in record.totals["vcpus"]:
            found = kinds(record, vcpu["vcpu"])
            sums = {part: sum(vector[part] for vector in vcpu["vectors"])
                    for part in ("raised", "merged", "injected")}
            counted = {Kind.EXITED: vcpu["exits"], Kind.ENTERED: vcpu["entries"],
                       Kind.INTERRUPTED: vcpu["interrupted"], Kind.KICKED: vcpu["kicks"],
                       Kind.RAISED: sums["raised"], Kind.MERGED: sums["merged"],
                       Kind.INJECTED: sums["injected"]}
            self.assertEqual({kind: found[kind] for kind in counted}, counted)
        for row, vcpu in zip([row for row in rows(record) if row.name != "devices"], record.totals["vcpus"]):
            for kind, key in ((GUEST, "guest_ns"), (HALTED, "halted_ns")):
                lengths = [slice_.end - slice_.start for slice_ in row.slices if slice_.kind == kind]
                self.assertEqual(sum(lengths), vcpu[key], f"{row.name}: {key}")

    def test_a_guest_whose_events_are_known(self) -> None:
        result, data = boot(2, [guest("hello")], "--stats=json")
        record = decode(data)
        self.check_totals(result, record)
        self.assertEqual((record.lab, record.status, record.todo, record.dropped), (2, 0, "", 0))
        self.assertEqual([Path(name).name for name in record.guests], ["hello.bin"])
        found = kinds(record, 0)
        self.assertEqual([found[kind] for kind in (Kind.STARTED, Kind.EXITED, Kind.PRINTED, Kind.ENDED)],
                         [1, 23, 1, 1])
        [line] = [event.text for event in record.events if event.kind is Kind.PRINTED]
        self.assertEqual(line, "Hello from the guest!")
        exits = [event for event in record.events if event.kind is Kind.EXITED]
        self.assertEqual({(record.reason(event.number), event.detail, event.first) for event in exits},
                         {("KVM_EXIT_IO", 1, 0x500)})
        times = [event.time for event in record.events]
        self.assertEqual(times, sorted(times))

    def test_slices_follow_each_other(self) -> None:
        result, data = boot(4, [guest("ticks"), guest("hello")], "--stats=json", hold_stdin=True)
        record = decode(data)
        self.check_totals(result, record)
        devices, ticks, hello = rows(record)
        self.assertEqual((devices.name, ticks.guest, hello.guest), ("devices", "ticks.bin", "hello.bin"))
        for row in (ticks, hello):
            for before, after in zip(row.slices, row.slices[1:]):
                self.assertEqual(before.end, after.start)
        self.assertGreater(len([slice_ for slice_ in ticks.slices if slice_.kind == HALTED]), 0)
        self.assertEqual([point.text for point in ticks.points if point.kind == "line"], list("12345"))
        self.assertGreaterEqual(len(devices.points), 5)
        injected = [interrupt for interrupt in ticks.interrupts if interrupt.injected != UNKNOWN]
        self.assertGreaterEqual(len(injected), 5)
        for interrupt in injected:
            self.assertTrue(0 < interrupt.raised <= interrupt.injected <= interrupt.entered, interrupt)
        names = {slice_.name for slice_ in ticks.slices if slice_.kind == EXIT}
        # A tick that comes while the guest handles the one before asks for a window.
        self.assertEqual(names - {"KVM_EXIT_IRQ_WINDOW_OPEN"}, {"KVM_EXIT_IO out 0x500", "KVM_EXIT_HLT"})

    def test_input_and_a_crash(self) -> None:
        result, data = boot(2, [guest("port")], "--stats=json")
        record = decode(data)
        self.check_totals(result, record)
        self.assertEqual((record.status, kinds(record, 0)[Kind.CRASHED]), (70, 1))
        _, data = boot(4, [guest("ticks")], stdin=b"abc", hold_stdin=True)
        read = [event.number for event in decode(data).events if event.kind is Kind.INPUT]
        self.assertEqual(sum(read), 3)

    def test_it_stays_bounded(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_constants()
        source, image = FOLDER / "busy.asm", FOLDER / "busy.bin"
        source.write_text(BUSY)
        subprocess.run(["nasm", "-f", "bin", f"-I{BUILD}/", str(source), "-o", str(image)], check=True,
                       cwd=ROOT)
        result, data = boot(2, [image], "--stats=json", limits=Limits(wall=300, no_output=0, spin=0))
        record = decode(data)
        self.check_totals(result, record)
        [vcpu] = record.totals["vcpus"]
        self.assertEqual(vcpu["exits"], BUSY_EXITS)
        written = 2 + vcpu["exits"] + vcpu["entries"] + vcpu["interrupted"]  # started and ended
        self.assertEqual((len(record.events), record.dropped), (CAPACITY - 1, written - CAPACITY + 1))
        self.assertIs(record.events[-1].kind, Kind.ENDED)
        self.assertEqual(Counter(event.kind for event in record.events)[Kind.STARTED], 0)
        self.assertIn(f"{record.dropped} earlier ones were dropped", " ".join(notes(record, rows(record))))
        text = page(record, rows(record))
        self.assertLess(len(text), 2 << 20)

    def test_a_vmm_that_is_killed(self) -> None:
        end = Step(after=b"ends me\n", signal=signal.SIGKILL)
        result, data = boot(2, [guest("endless")], steps=(end,))
        self.assertEqual((result.ending, result.code), (Ending.SIGNAL, signal.SIGKILL))
        record = decode(data)
        self.assertEqual((record.status, record.totals["vcpus"][0]["status"]), (-1, -1))
        self.assertEqual(record.totals["vcpus"][0]["exits"], kinds(record, 0)[Kind.EXITED])
        self.assertEqual([event.text for event in record.events if event.kind is Kind.PRINTED],
                         ["looping; Ctrl-C ends me"])
        self.assertIn("did not end by itself", " ".join(notes(record, rows(record))))
        self.assertIn("looping", page(record, rows(record)))

    def test_one_that_is_stopped(self) -> None:
        end = Step(after=b"ends me\n", signal=signal.SIGINT)
        result, data = boot(4, [guest("endless")], "--stats=json", steps=(end,), hold_stdin=True)
        record = decode(data)
        self.check_totals(result, record)
        self.assertEqual(record.status, 128 + signal.SIGINT)
        [row] = [row for row in rows(record) if row.name == "vcpu0"]
        self.assertIn("interrupted", [point.kind for point in row.points])

    def test_a_module_that_is_not_finished(self) -> None:
        [solution] = LABS[4].solution_files()
        module = FOLDER / "unfinished.c"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(skeleton(solution.read_text(), solution.name))
        result, data = boot(4, [guest("ticks")], module=module)
        record = decode(data)
        self.assertEqual((result.code, record.status, record.todo), (77, 77, "4.1"))
        self.assertEqual(list(notes(record, rows(record))), [
            "Exercise 4.1 is not written yet; the run ended there.", "vcpu0 was never entered."])

    def test_what_is_wrong_is_said(self) -> None:
        [solution] = LABS[4].solution_files()
        text = solution.read_text()
        module = FOLDER / "uncounted.c"
        module.parent.mkdir(parents=True, exist_ok=True)
        self.assertIn("vcpu->interrupts++;", text)
        module.write_text(text.replace("vcpu->interrupts++;", ""))
        _, data = boot(4, [guest("ticks")], module=module, hold_stdin=True)
        record = decode(data)
        self.assertRegex(" ".join(notes(record, rows(record))),
                         r"KVM_INTERRUPT succeeded \d+ times, but vcpu->interrupts is 0")

    def test_a_vmm_that_does_not_start(self) -> None:
        _, data = boot(2, [Path("/no/such/guest")])
        with self.assertRaisesRegex(NoRecord, "before it ran a guest"):
            decode(data)
        with self.assertRaisesRegex(NoRecord, "does not begin like a record"):
            decode(b"")


class Stories(unittest.TestCase):
    """Rows from events made by hand."""

    def story(self, *events: "tuple[int, Kind, int, int]") -> Row:
        totals = {"vcpus": [{"entries": 1, "status": 0, "vectors": [], "interrupts": 0, "kvm": {"exits": 1}}]}
        record = Record(4, ["a/guest.bin"], 0, "", events[-1][0], 0, ["R0", "R1", "IO", "R3", "R4", "HLT"],
                        [Event(time_, kind, 0, NO_VCPU, 1, number, first, 0)
                         for time_, kind, number, first in events], totals)
        [row] = rows(record)
        return row

    def test_from_an_exit_on_it_was_in_the_guest_before(self) -> None:
        row = self.story((5, Kind.KICKED, 10, 0), (7, Kind.EXITED, 2, 0x500), (9, Kind.ENTERED, 0, 0),
                         (12, Kind.ENDED, 0, 0))
        self.assertEqual([(slice_.start, slice_.end, slice_.kind) for slice_ in row.slices],
                         [(5, 7, GUEST), (7, 9, EXIT), (9, 12, GUEST)])

    def test_the_handler_of_hlt_waits_and_then_costs(self) -> None:
        row = self.story((1, Kind.ENTERED, 0, 0), (2, Kind.EXITED, 5, 0), (8, Kind.WOKEN, 0, 0),
                         (9, Kind.ENTERED, 0, 0))
        self.assertEqual([(slice_.start, slice_.end, slice_.kind) for slice_ in row.slices],
                         [(1, 2, GUEST), (2, 8, HALTED), (8, 9, EXIT), (9, 9, GUEST)])

    def test_exits_without_registers_are_mentioned(self) -> None:
        totals: dict[str, Any] = {"vcpus": []}
        row = Row("vcpu0", slices=[Slice(0, 1, EXIT, "KVM_EXIT_HLT")])
        record = Record(1, [], 0, "", 1, 0, [], [], totals)
        self.assertIn("without RIP", " ".join(notes(record, [row])))
        row.slices[0].rip = 7
        self.assertNotIn("RIP", " ".join(notes(record, [row])))

    def test_interrupts_from_raised_to_entered(self) -> None:
        row = self.story((1, Kind.RAISED, 32, 0), (2, Kind.RAISED, 33, 0), (3, Kind.INJECTED, 32, 0),
                         (4, Kind.ENTERED, 0, 0), (6, Kind.RAISED, 33, 0), (7, Kind.INJECTED, 34, 0),
                         (8, Kind.ENDED, 0, 0))
        self.assertEqual(row.interrupts, [Interrupt(32, 1, 3, 4), Interrupt(33, 2, until=6),
                                          Interrupt(33, 6, until=8), Interrupt(34, injected=7, until=8)])
        self.assertEqual([interrupt.span for interrupt in row.interrupts], [(1, 4), (2, 6), (6, 8), (7, 8)])


class Traces(unittest.TestCase):
    """The trace for Perfetto."""

    def check(self, events: "list[dict[str, Any]]") -> None:
        """Each track is named, and its slices do not overlap."""
        named = {event["tid"] for event in events if event["name"] == "thread_name"}
        slices: dict[int, list[tuple[int, int]]] = {}
        for event in events:
            if event["ph"] == "X":
                start, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
                self.assertGreaterEqual(length, 0)
                slices.setdefault(event["tid"], []).append((start, start + length))
        self.assertEqual(set(slices) - named, set())
        for track, spans in slices.items():
            spans.sort()
            for (_, end), (start, _) in zip(spans, spans[1:]):
                self.assertLessEqual(end, start, f"track {track}")
        arrows = [[event["id"] for event in events if event["ph"] == phase] for phase in "sf"]
        self.assertEqual(*arrows)
        self.assertEqual(len(arrows[0]), len(set(arrows[0])))

    def test_a_real_run(self) -> None:
        _, data = boot(4, [guest("ticks"), guest("counter"), guest("hello"), guest("ticks")], "--tick-ms=2",
                       hold_stdin=True)
        record = decode(data)
        with tempfile.TemporaryDirectory() as folder:
            _, path = write(record, Path(folder))
            trace = json.loads(path.read_text())
        events = trace["traceEvents"]
        self.check(events)
        names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
        self.assertLessEqual({"devices", "vcpu0 ticks.bin", "vcpu0 vector 0x20", "vcpu2 hello.bin"}, names)
        exits = [event for event in events if event["ph"] == "X" and event["name"] == "KVM_EXIT_IO out 0x500"]
        self.assertEqual(len(exits), sum(vcpu["KVM_EXIT_IO"] for vcpu in record.totals["vcpus"]))
        self.assertGreater(len([event for event in events if event["ph"] == "s"]), 0)

    def test_interrupts_that_overtake(self) -> None:
        row = Row("vcpu0", "guest", [Slice(0, 9, GUEST, "in the guest")], [],
                  [Interrupt(32, 1, 2, 6, until=4), Interrupt(32, 4, 7, 8), Interrupt(32, 8, until=9),
                   Interrupt(33, injected=5, until=9)])
        self.check(list(trace_events("title", [row])))


class Pages(unittest.TestCase):
    """The page, as text and in a browser."""

    record: Record
    result: Result
    text: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.result, data = boot(4, [guest("ticks"), guest("counter"), guest("hello")], "--stats=json",
                                hold_stdin=True)
        cls.record = decode(data)
        cls.text = page(cls.record, rows(cls.record))

    def cells(self, key: str) -> "list[int]":
        """The exact values of a row of the tables."""
        return [int(value) for value in
                re.findall(f'data-key="{re.escape(html.escape(key))}" data-value="(-?\\d+)"', self.text)]

    def test_its_totals_are_those_of_stats(self) -> None:
        vcpus = statistics(self.result)["vcpus"]
        for key in [*page_module.TIMES, *page_module.COUNTS, "status"]:
            self.assertEqual(self.cells(key), [vcpu[key] for vcpu in vcpus], key)
        for key in page_module.LATENCIES:
            self.assertEqual(self.cells(key), [vcpu[key] for vcpu in vcpus], key)
        self.assertEqual(self.cells("KVM_EXIT_IO out 0x500"), [vcpu["KVM_EXIT_IO"] for vcpu in vcpus])
        for part in ("raised", "merged", "injected", "pending", "lost"):
            self.assertEqual(self.cells(f"vector 0x20 {part}"), [
                next((vector[part] for vector in vcpu["vectors"] if vector["vector"] == 0x20), 0)
                for vcpu in vcpus])
        self.assertEqual(self.cells("kvm exits"), [vcpu["kvm"]["exits"] for vcpu in vcpus if vcpu["kvm"]])

    def test_it_is_one_file(self) -> None:
        self.assertNotRegex(self.text, r"https?://|src=|@import|url\(")
        [data] = re.findall(r'id="data">(.*?)</script>', self.text, re.S)
        names = [row["name"] for row in json.loads(data)["rows"]]
        self.assertEqual(names, ["devices", "vcpu0", "vcpu1", "vcpu2"])

    def test_what_a_guest_prints_stays_text(self) -> None:
        row = Row("vcpu0", "</script><b>", [], rows(self.record)[1].points)
        [data] = re.findall(r'id="data">(.*?)</script>', page(self.record, [row]), re.S)
        self.assertEqual(json.loads(data)["rows"][0]["guest"], "</script><b>")

    @unittest.skipUnless(shutil.which(PROGRAM), f"{PROGRAM} is not installed")
    def test_in_a_browser(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, _ = write(self.record, Path(folder))
            browser = Browser(path)
            self.addCleanup(browser.close)
            self.check_in(browser, path)

    def shown(self, browser: Browser) -> "tuple[float, float]":
        """The part of the run that the page says it shows, in milliseconds."""
        text = browser.evaluate("document.getElementById('range').textContent")
        found = re.fullmatch(r"([\d.]+) to ([\d.]+) ms of ([\d.]+) ms", text)
        self.assertTrue(found, text)
        assert found
        return float(found[1]), float(found[2])

    def check_in(self, browser: Browser, path: Path) -> None:
        titles = browser.evaluate("[...document.querySelectorAll('.row h3')].map(title => title.textContent)")
        self.assertEqual(titles, ["devices ", "vcpu0 ticks.bin", "vcpu1 counter.bin", "vcpu2 hello.bin"])
        cells = browser.evaluate("[...document.querySelectorAll('td[data-key=exits]')]"
                                 ".map(cell => cell.textContent)")
        self.assertEqual(cells, [str(vcpu["exits"]) for vcpu in statistics(self.result)["vcpus"]])
        box = browser.evaluate("(({x, y, width, height}) => ({x, y, width, height}))"
                               "(document.querySelectorAll('.row canvas')[1].getBoundingClientRect())")
        self.check_drawing(browser)
        whole = self.shown(browser)
        self.assertEqual(whole, (0, round(self.record.end / 1e6, 3)))
        browser.key("+")
        near = self.shown(browser)
        self.assertAlmostEqual(near[1] - near[0], whole[1] / 2, places=2)
        browser.key("ArrowLeft")
        self.assertLess(self.shown(browser)[0], near[0])
        browser.key("0")
        self.assertEqual(self.shown(browser), whole)
        # The time under the pointer stays where it is: here the left edge.
        browser.mouse("mouseWheel", box["x"] + 0.5, box["y"] + 40, deltaX=0, deltaY=-100)
        wheel = self.shown(browser)
        self.assertAlmostEqual(wheel[0], 0, delta=whole[1] / 500)
        self.assertAlmostEqual(wheel[1], whole[1] * 0.8, delta=whole[1] / 100)
        browser.mouse("mousePressed", box["x"] + 400, box["y"] + 40, button="left", buttons=1, clickCount=1)
        browser.mouse("mouseMoved", box["x"] + 380, box["y"] + 40, button="left", buttons=1)
        browser.mouse("mouseReleased", box["x"] + 380, box["y"] + 40, button="left", clickCount=1)
        dragged = self.shown(browser)
        moved = (wheel[1] - wheel[0]) * 20 / box["width"]
        self.assertAlmostEqual(dragged[0] - wheel[0], moved, delta=whole[1] / 200)
        browser.key("0")
        self.check_details(browser, box)
        self.assertEqual(browser.errors, [])
        self.assertEqual({url for url in browser.requests if not url.startswith("data:")}, {path.as_uri()})

    def check_drawing(self, browser: Browser) -> None:
        """Each row has pixels in the colour of the guest, except for the devices'."""
        counts = browser.evaluate("""data.rows.map(({canvas}) => {
            const {data: pixels} = canvas.getContext("2d").getImageData(0, 40, canvas.width, 1);
            let count = 0;
            for (let i = 0; i < pixels.length; i += 4) count += pixels[i + 3] > 0;
            return count; })""")
        self.assertEqual(counts[0], 0)
        for count in counts[1:]:
            self.assertGreater(count, 0, counts)

    def check_details(self, browser: Browser, box: "dict[str, float]") -> None:
        """What is under the pointer, and the list of what is in view."""
        row = rows(self.record)[1]
        longest = max(row.slices, key=lambda slice_: slice_.end - slice_.start)
        middle = (longest.start + longest.end) / 2 / self.record.end
        place = box["x"] + middle * box["width"], box["y"] + 40
        browser.mouse("mouseMoved", *place)
        tip = browser.evaluate("document.getElementById('tip').textContent")
        self.assertIn(longest.name, tip)
        browser.evaluate("document.querySelector('#list').open = true")
        browser.drawn()
        for _ in range(3):  # the time under the pointer stays there, so the slice stays in view
            browser.mouse("mouseWheel", *place, deltaX=0, deltaY=-100)
        count = browser.evaluate("document.querySelectorAll('#list tbody tr').length")
        self.assertGreater(count, 0)


class Command(unittest.TestCase):
    """As typed."""

    def make(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["make", "timeline", *words], cwd=ROOT, env=clean_environment(), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False)

    def test_it_writes_both_files(self) -> None:
        done = self.make("LAB=2", "SOLUTION=1", "GUESTS=hello", "ARGS=--stats")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Hello from the guest!\n", done.stdout)
        self.assertIn("vcpu0: status 0, 23 exits", done.stderr)
        for name in ("build/timeline/lab2.html", "build/timeline/lab2.perfetto.json"):
            self.assertIn(name, done.stdout)
            self.assertGreater((ROOT / name).stat().st_size, 1000)

    def test_the_command_that_explains_a_crash_is_the_users(self) -> None:
        done = self.make("LAB=1", "SOLUTION=1", "GUESTS=triple-fault", "ARGS=--mem=2M")
        self.assertIn("build/timeline/lab1.html", done.stdout)
        self.assertRegex(done.stderr, r"make explain LAB=1 SOLUTION=1 GUESTS=\S+ ARGS=\"--mem=2M\"\n")

    def test_a_long_run_is_ended(self) -> None:
        done = self.make("LAB=4", "SOLUTION=1", "GUESTS=endless", "LIMIT=1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ended after 1 s;", done.stdout)
        self.assertIn("build/timeline/lab4.html", done.stdout)

    def test_the_interrupt_key_ends_a_run(self) -> None:
        child = pexpect.spawn("make", ["timeline", "LAB=4", "SOLUTION=1", "GUESTS=endless"], cwd=str(ROOT),
                              env=clean_environment(), timeout=120)
        self.addCleanup(child.close, True)
        child.expect_exact("looping; Ctrl-C ends me")
        child.sendintr()
        child.expect_exact("build/timeline/lab4.perfetto.json")
        child.expect(pexpect.EOF)

    def test_what_it_needs_is_said(self) -> None:
        done = self.make("LAB=4", "SOLUTION=1")
        self.assertIn("Name the guests: make timeline LAB=4", done.stdout)
        self.assertNotEqual(done.returncode, 0)

    def test_a_vmm_that_ignores_its_end_is_killed(self) -> None:
        began = time.monotonic()
        status = run(["/bin/sh", "-c", "trap '' INT; while :; do sleep 1; done"], 0.2, ROOT)
        self.assertEqual(status, -signal.SIGALRM)
        self.assertLess(time.monotonic() - began, 60)

    def test_endless_output_is_cut(self) -> None:
        script = ("import sys; from grader.commands.timeline.__main__ import run; "
                  "from grader.course import ROOT; run(['/bin/sh', '-c', 'exec yes'], 600, ROOT)")
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.assertIn(b"The run was ended after 1 MB of output.", done.stdout[-200:])
        self.assertEqual(done.stdout.count(b"y\n"), (1 << 20) // 2)


if __name__ == "__main__":
    unittest.main()
