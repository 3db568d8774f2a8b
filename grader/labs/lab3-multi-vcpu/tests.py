"""Lab 3, several vCPUs: windows, threads, a console of whole lines, the stop, isolation."""

from __future__ import annotations

import re
import signal
from dataclasses import replace

from grader.core.expectations import Condition, Mismatch, prints_lines
from grader.core.framework import Demonstration, Lab
from grader.core.outcome import STATUS_CRASHED, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.runs import Ending, Step, Terminal
from grader.core.values import letters

lab = Lab(3, "several vCPUs", needs=("real",))

VCPUS = 4
WINDOW_BYTES = 0x40000
HYPERCALL_PORT = 0x500
STATUS_GUEST_FILE = 65
STATUS_SIGNAL = 128

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_NO_REGISTERS = ("--regs prints each vCPU's registers when its thread calls vcpu_ended. Is it called, after "
                 "vcpu_run?")
_NOT_TO_ITS_END = ("What does a crash end? Only the guest's own vCPU: the others run to their end, and their "
                   "threads call vcpu_ended. EBP is what the living guest computes from the input that comes "
                   "after the crash.")
_STOPPED = ("What does a stop end? Each vCPU, in vcpu_check_stop: its thread returns from KVM_RUN and calls "
            "vcpu_ended, which prints the registers for --regs. The VMM ends after that.")
_ENDED_BEFORE = ("The signal comes once each guest has printed its text: without that there is nothing to "
                 "stop. Does each guest run, and is its whole line printed?")
_NOT_OUT_OF_RUN = ("A vCPU was kicked while its guest ran, without a stop, and KVM_RUN did not return. Does "
                   "vcpu_kick signal the thread at every kick? From lab 4 on a kick also announces an "
                   "interrupt, and stop_signal stays 0. (If tests of 3.2 fail, fix these first.)")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


# ---------------------------------------------------------------- 3.1 windows

@lab.test("3.1", "computes the base of each window", points=4,
          hint="How many bytes has a window? Window N starts after N windows of WINDOW_BYTES.")
def bases(plan: Plan) -> None:
    plan.unit("vcpus", "bases")


@lab.test("3.1", "loads each guest into its window", points=4,
          hint="Where in RAM does the guest's image go, and with which base does its vCPU start? Both are "
               "the base of the window for the guest's place on the command line, vcpu->id.")
def prepare(plan: Plan) -> None:
    plan.unit("vcpus", "prepare", kvm=True)


@lab.test("3.1", "starts each vCPU with all segments in its window", points=5,
          hint="Do all six segment registers start at the window, base and selector? The guest prints CS DS "
               "ES FS GS SS and a number that it reads through DS.")
def windows(plan: Plan) -> None:
    marks = [plan.values.number() for _ in range(VCPUS)]
    run = plan.boot(*(plan.guest("windows", MARK=mark) for mark in marks))
    segments = [" ".join([str(vcpu * WINDOW_BYTES >> 4)] * 6) for vcpu in range(VCPUS)]
    run.prints_lines([f"vcpu{vcpu}: {segments[vcpu]} {mark}" for vcpu, mark in enumerate(marks)])
    run.exits(0)
    run.symptom(lambda o: re.search(r"vcpu([123]): \d+ 0 ", o.stdout) is not None,
                "DS is still 0 on a vCPU other than 0, so that vCPU reads vcpu0's data: set all segment "
                "registers to the window, not CS alone.")
    _common_symptoms(run)


@lab.test("3.1", "reports a failure to load or start a guest", points=2,
          hint="Which of the calls in window_prepare can fail? ram_write and vcpu_set_real_mode: if one "
               "does, window_prepare must return its status, not 0.")
def prepare_fails(plan: Plan) -> None:
    plan.unit("vcpus", "prepare_fails", kvm=True)


@lab.test("3.1", "rejects a guest larger than its window", points=5,
          hint="What does an image larger than WINDOW_BYTES overwrite? The next window: fail with "
               "STATUS_GUEST_FILE, and name the file.")
def too_large(plan: Plan) -> None:
    plan.unit("vcpus", "full_window", kvm=True)
    plan.unit("vcpus", "too_large", kvm=True)
    halt = b"\xf4"
    fits = plan.file("fits.bin", halt * WINDOW_BYTES)
    large = plan.file("large.bin", halt * (WINDOW_BYTES + 1))
    for guests in ((large,), (fits, large)):
        run = plan.boot(*guests)
        run.exits(STATUS_GUEST_FILE)
        run.says(r"large\.bin", what="the name of the file that is too large",
                 hint="Does the message name the file? Its name is guest->path.")


# ---------------------------------------------------------------- 3.2 threads

# The guests of these print nothing, so that they don't need 3.3: --regs shows what they found.

@lab.test("3.2", "sets the vCPU's state to running, then to ended", points=4,
          hint="When does the vCPU's thread change the state? To VCPU_RUNNING before it runs the vCPU; to "
               "VCPU_ENDED after that, however the guest ended, and before vcpu_ended: vcpu_kick and the "
               "devices read it.")
def state(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "state")
    unit.symptom(lambda o: o.hung,
                 "vcpus_run does not return although every vCPU has ended. Did run_all start a thread for "
                 "each, and does that thread write the number 1 to ended_fd, as 8 bytes (uint64_t), as its "
                 "last step?")


@lab.test("3.2", "signals a vCPU's end last, and joins its thread", points=2,
          hint="What may run_all do once it has seen the write to ended_fd? That write must be the thread's "
               "last act, after vcpu_ended. run_all joins every thread that it has started.")
def end_signalled_last(plan: Plan) -> None:
    _unit_of_runs(plan, "end_signalled_last")


@lab.test("3.2", "runs vCPUs at the same time", points=5,
          hint="Do the vCPUs run at the same time? Each has its own thread: start all of them before you "
               "wait for the first.")
def ping_pong(plan: Plan) -> None:
    factors = [(plan.values.randint(3, 30), plan.values.number(20)) for _ in range(2)]
    rounds, number, last = 5, 0, [0, 0]
    for _ in range(rounds):
        for me, (factor, addend) in enumerate(factors):
            number = last[me] = (number * factor + addend) & 0xffffffff
    guests = [plan.guest("ping-pong", ME=me, FACTOR=factor, ADDEND=addend, ROUNDS=rounds, QUIET=None)
              for me, (factor, addend) in enumerate(factors)]
    run = plan.boot(*guests, args=["--regs"])
    _common_symptoms(run)
    run.exits(0)
    for me in range(2):
        run.registers(me, rbp=last[me], hint=_NO_REGISTERS)
    run.symptom(lambda o: o.hung and len(_vcpus(o)) == 1,
                "Two guests wait for each other, and only one of them runs. Does each thread get a vCPU of "
                "its own, and are all started before you wait for the first?")
    run.symptom(lambda o: o.hung and len(_vcpus(o)) == 2,
                "Two guests run and wait for each other forever: neither sees what the other writes. "
                "Without --isolate both are in one VM.")


@lab.test("3.2", "shares memory between vCPUs", points=4,
          hint="How many VMs are there without --isolate? One, with one RAM: all vCPUs are created in it "
               "and run at the same time.")
def shared_counter(plan: Plan) -> None:
    steps, turns = [plan.values.number(20) for _ in range(VCPUS)], 200
    run = plan.boot(*(plan.guest("shared-counter", STEP=step, TURNS=turns, VCPUS=VCPUS, QUIET=None,
                                 TOGETHER=None) for step in steps), args=["--regs"])
    run.symptom(lambda o: o.hung and bool(o.where) and len(_vcpus(o)) < VCPUS,
                "Four guests wait until all of them run, and some don't. Does each vCPU have its own thread, "
                "and are all started before you wait for the first?")
    run.symptom(lambda o: o.hung and len(_vcpus(o)) == VCPUS,
                "Four guests run and wait for each other forever: none sees what the others write. Without "
                "--isolate all are in one VM.")
    run.exits(0)
    run.must(_registers_of(VCPUS), hint=_NO_REGISTERS)
    run.must(_one_sum(sum(steps) * turns & 0xffffffff))
    _common_symptoms(run)


@lab.test("3.2", "ends with the worst status", points=4,
          hint="Which vCPU's status does the VMM return? The highest of them all.")
def worst_status(plan: Plan) -> None:
    _unit_of_runs(plan, "highest")
    for place in plan.values.sample(range(VCPUS), VCPUS):
        statuses = [plan.values.randint(1, 30) for _ in range(VCPUS)]
        statuses[place] = worst = plan.values.randint(31, 63)
        run = plan.boot(*(plan.guest("status", STATUS=status) for status in statuses))
        run.exits(worst)
        for which, status in (("the first", statuses[0]), ("the last", statuses[-1]), ("no", 0)):
            run.symptom(lambda o, status=status: o.status == status,  # type: ignore[misc]
                        f"The status is that of {which} vCPU. It must be the highest of all, whichever vCPU "
                        "ended with it.")
        _common_symptoms(run)


@lab.test("3.2", "keeps the other guests running when one crashes", points=5,
          hint="What does a crash end? Only the guest's own vCPU. The others run to their end, and the "
               "worst status, 70, reports the crash.")
def one_crashes(plan: Plan) -> None:
    for place in range(2):      # of the living one, which waits for input; that comes after the crash
        port, word = plan.values.randrange(0x600, 0xf000), plan.values.word(8)
        key, factor, number = plan.values.randint(1, 15), plan.values.number(20), 0
        for letter in word:
            number = (number * factor + (ord(letter) ^ key)) & 0xffffffff
        guests = [plan.guest("port", PORT=port)]
        guests.insert(place, plan.guest("echo", KEY=key, FACTOR=factor, QUIET=None))
        reported = f"vcpu{1 - place}: cr0=".encode()        # the last line of the report on the crash
        run = plan.boot(*guests, args=["--regs"], hold_stdin=True,
                        steps=(Step(after=reported, stream="stderr", send=word.encode()), Step(close=True)))
        run.symptom(lambda o: o.status == 0 and o.said("crashed"),
                    "A guest crashed, and the status is 0, that of the other one. Which vCPU's status does "
                    "run_all return? It must be the highest of all.")
        run.symptom(lambda o: o.hung and o.result.steps_done == 0 and not o.said("crashed"),
                    "One guest waits for input, and the other, which is to crash, never ran. Does each vCPU "
                    "have its own thread, and are all started before you wait for the first?")
        run.exits(STATUS_CRASHED)
        run.says(rf"0x0*{port:x}\b", what=f"the port that the crashed guest used, 0x{port:x}")
        run.registers(place, rbp=number, rdx=HYPERCALL_PORT, hint=_NOT_TO_ITS_END)
        _common_symptoms(run)


# ---------------------------------------------------------------- 3.3 the console

@lab.test("3.3", "names the vCPU in each line, except for a lone guest", points=3,
          hint="How does a line start with several guests, and how with one? With several, with \"vcpuN: "
               "\". A single guest's bytes are written as they come.")
def names(plan: Plan) -> None:
    texts = [plan.values.text() for _ in range(3)]
    several = plan.boot(*(plan.guest("hello", TEXT=text) for text in texts))
    several.prints_lines([f"vcpu{vcpu}: {text}" for vcpu, text in enumerate(texts)])
    several.exits(0)
    word, key = plan.values.word(5), plan.values.randint(1, 15)
    changed = "".join(chr(ord(c) ^ key) for c in word)
    single = plan.boot(plan.guest("echo", KEY=key), hold_stdin=True,
                       steps=(Step(send=word.encode()), Step(after=changed.encode(), close=True)))
    single.prints(changed)
    single.exits(0)
    single.symptom(lambda o: o.result.steps_done == 1,
                   "With a single guest, print characters before the end of the line: a person who types "
                   "must see them.")
    for run in (several, single):
        _common_symptoms(run)


@lab.test("3.3", "never mixes the lines of two vCPUs", points=4,
          hint="What do the vCPUs' threads share when they print? Standard output: collect a line in "
               "vcpu->line, and write all of it, name, text and newline, under one lock for all vCPUs. "
               "console_finish needs the same lock.")
def lines(plan: Plan) -> None:
    unit = plan.unit("vcpus", "lines")
    unit.symptom(lambda o: "pieces of two are mixed" in o.stdout,
                 "At which places does your module print? At a newline, and when vcpu->line is full: a "
                 "piece of a long line needs the same lock as a whole line.")
    unit.symptom(lambda o: "do not fit into vcpu->line: of" in o.stdout,
                 "What becomes of a character that finds vcpu->line full? First what is there is printed, "
                 "then that character begins the buffer again: none is lost or written twice.")
    unit.symptom(lambda o: "is printed again" in o.stdout,
                 "What is in vcpu->line after a line has been printed? The next line must begin with an "
                 "empty buffer, whether a newline, a full buffer or console_finish ended the line before.")
    unit = plan.unit("vcpus", "collects")
    unit.symptom(lambda o: "collects a character" in o.stdout,
                 "Which vCPU has to wait for the lock, and when? Only one that prints, while it prints: one "
                 "that collects a character uses nothing that another thread uses.")
    unit.symptom(lambda o: "holds vcpu->lock" in o.stdout,
                 "Which lock do you hold while you print? A write waits for as long as the output is "
                 "not read, and vcpu_kick needs vcpu->lock all that time: use a lock of its own.")
    texts, count = [plan.values.text(5) for _ in range(VCPUS)], 25
    run = plan.boot(*(plan.guest("lines", TEXT=text, LINES=count) for text in texts))
    run.prints_lines([f"vcpu{vcpu}: {n} {text}" for vcpu, text in enumerate(texts) for n in range(count)])
    run.exits(0)
    _common_symptoms(run)


@lab.test("3.3", "prints a last line without a newline", points=2,
          hint="What is left in vcpu->line when a vCPU ends? A last line without a newline: console_finish "
               "must print it.")
def unfinished(plan: Plan) -> None:
    _unit_of_runs(plan, "ends_unfinished").symptom(
        lambda o: "and then vcpu" in o.stdout,
        "What does a vCPU's thread call after vcpu_run, however the guest ended? console_finish, even if the "
        "guest gave a status, crashed or was stopped; it prints what is left in vcpu->line.")
    firsts, texts = ([plan.values.text(2) for _ in range(3)] for _ in range(2))
    run = plan.boot(*(plan.guest("unfinished", FIRST=a, TEXT=b) for a, b in zip(firsts, texts)))
    run.prints_lines([f"vcpu{vcpu}: {text}" for vcpu in range(3) for text in (firsts[vcpu], texts[vcpu])])
    run.exits(0)
    _common_symptoms(run)


@lab.test("3.3", "prints all of a line longer than its buffer", points=3,
          hint="What happens when vcpu->line is full, and when is it? It has room for CONSOLE_LINE_MAX "
               "bytes, no more and no less: print what is there, then continue.")
def long_line(plan: Plan) -> None:
    plan.unit("vcpus", "full_line")
    seeds, length = [plan.values.getrandbits(16) for _ in range(2)], 4500
    run = plan.boot(*(plan.guest("write", SEED=seed, LENGTH=length, TEXT_OFFSET=0x1000) for seed in seeds))
    run.must(_texts_of_vcpus([letters(seed, length) for seed in seeds]))
    run.exits(0)
    _common_symptoms(run)


@lab.test("3.3", "colours the names on a terminal, and only there", points=2,
          hint="When may the name be coloured? options.color decides. console_line writes the name, with "
               "the colour of its vCPU.")
def colour(plan: Plan) -> None:
    for where in ("terminal", "always", "never"):
        texts = [plan.values.text() for _ in range(VCPUS)]
        guests = [plan.guest("hello", TEXT=text) for text in texts]
        expected = [f"vcpu{vcpu}: {text}" for vcpu, text in enumerate(texts)]
        if where == "terminal":
            run = plan.boot(*guests, terminal=Terminal())
        else:
            run = plan.boot(*guests, args=[f"--color={where}"])
        run.must(_coloured(expected, where != "never"))
        run.exits(0)
        _common_symptoms(run)


@lab.test("3.3", "prints every byte, however the calls split the lines", points=2,
          hint="What may one call pass? It may pass any number of bytes: several lines, a part of one or an "
               "empty one. Any byte other than the newline is text, even 0. Print a line when its newline "
               "comes or when vcpu->line is full.")
def any_bytes(plan: Plan) -> None:
    plan.unit("vcpus", "any_bytes")


# ---------------------------------------------------------------- 3.4 the stop

@lab.test("3.4", "stops an endless loop on each of four signals", points=2,
          hint="Which thread notices the signal, and how does each vCPU learn of it? The main thread sets "
               "stop_signal and kicks every vCPU; each ends in vcpu_check_stop, with STATUS_SIGNAL plus the "
               "signal.")
def stop(plan: Plan) -> None:
    for number, guests in zip(_STOPS, (1, VCPUS, 1, 2)):
        text = plan.values.text()
        begun = Step(after=text.encode(), send=b"x")   # of no meaning to them: what counts is that all print
        run = plan.boot(*(plan.guest("endless", TEXT=text) for _ in range(guests)), args=["--regs"],
                        hold_stdin=True,
                        steps=(*[begun] * (guests - 1), Step(after=text.encode(), signal=number)))
        run.prints_lines([f"vcpu{vcpu}: {text}" for vcpu in range(guests)] if guests > 1 else [text],
                         hint=_ENDED_BEFORE)
        run.exits(STATUS_SIGNAL + number)
        run.must(_registers_of(guests), hint=_STOPPED)
        _stop_symptoms(run)


@lab.test("3.4", "never loses a kick", points=3,
          hint="What does a signal interrupt that arrives just before KVM_RUN? Nothing. Set immediate_exit "
               "before you send it: KVM_RUN reads that field when it begins.")
def kick(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "kick")
    unit.symptom(lambda o: o.hung,
                 "The kick was lost: the vCPU checked for a stop, then the stop and the signal arrived, "
                 "then the vCPU entered KVM_RUN, where it stays forever. vcpu_kick must also set "
                 "run->immediate_exit. (If tests of 3.2 fail, fix these first.)")
    unit.symptom(lambda o: "stopped by SIGTERM gives status" in o.stdout,
                 "With which status does a vCPU end that sees a stop? vcpu_check_stop ends it by vcpu_end, "
                 "with STATUS_SIGNAL plus the signal's number.")
    unit.symptom(lambda o: "is 0 again" in o.stdout,
                 "What does a second kick find, before the vCPU has seen the first? immediate_exit is a byte "
                 "that is set or not: store 1 in it, whatever was there before.")
    alone = _unit_of_runs(plan, "kick_alone")
    alone.symptom(_not_out_of_run, _NOT_OUT_OF_RUN)
    alone.symptom(lambda o: "just before KVM_RUN, without a stop" in o.stdout,
                  "When does vcpu_kick set immediate_exit? At every kick of a running vCPU: it may also "
                  "announce an interrupt, from lab 4 on, and stop_signal stays 0 then.")


@lab.test("3.4", "sets immediate_exit before it sends the signal", points=3,
          hint="What if the signal arrives just before KVM_RUN, where it interrupts nothing? Set what makes "
               "KVM_RUN return before you send the signal.")
def kick_order(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "kick_order")
    unit.symptom(lambda o: o.hung,
                 "The kick was lost: its signal arrived just before KVM_RUN, and immediate_exit was not "
                 "set yet when KVM_RUN checked it. In which order does vcpu_kick do its two steps? (If "
                 "tests of 3.2 fail, fix these first.)")


@lab.test("3.4", "clears the kick before checking for a stop", points=3,
          hint="What if a stop arrives between the two steps of vcpu_check_stop? Clear the kick first, then "
               "read stop_signal: in the reverse order that stop is lost.")
def check_order(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "check_order")
    unit.symptom(lambda o: "and KVM_RUN runs the guest" in o.stdout,
                 "vcpu_check_stop does not clear run->immediate_exit, and vcpu_kick does not set it. What "
                 "makes KVM_RUN return then, if the kick comes just before it?")
    unit.symptom(lambda o: "nothing kicked it" in o.stdout,
                 "What if the stop comes before the vCPU's thread has set its state to running? vcpu_kick "
                 "does nothing then: vcpu_check_stop must read stop_signal even if the vCPU was not kicked.")
    unit.symptom(
        lambda o: "a store without __ATOMIC_SEQ_CST" in o.stdout,
        "In which order do other threads see your store to immediate_exit and your read of stop_signal? A "
        "processor may read before an earlier store takes effect. An atomic store with __ATOMIC_SEQ_CST "
        "rules that out; a plain one, or one with __ATOMIC_RELEASE, does not.")


@lab.test("3.4", "signals a thread only while it exists", points=2,
          hint="When may the thread that vcpu_kick signals not exist? Only a running vCPU has one, and only "
               "vcpu->lock keeps it running: hold the lock from the check of vcpu->state until the signal "
               "is sent.")
def kick_state(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "kick_state")
    unit.symptom(_not_out_of_run, _NOT_OUT_OF_RUN)


@lab.test("3.4", "wakes a sleeping vCPU", points=1,
          hint="Where does a halted vCPU of lab 4 wait? On vcpu->wake: vcpu_kick must signal it.")
def kick_wakes(plan: Plan) -> None:
    unit = plan.unit("vcpus", "kick_wakes")
    unit.symptom(lambda o: o.hung,
                 "A vCPU that sleeps on vcpu->wake was kicked, and still sleeps: vcpu_kick must also "
                 "signal vcpu->wake, each time, even if the vCPU has not seen an earlier kick yet.")
    unit.symptom(lambda o: "has not taken vcpu->lock" in o.stdout,
                 "Which lock guards vcpu->state? vcpu_kick must take vcpu->lock before it reads the state, "
                 "and hold it until it has signalled the thread.")


@lab.test("3.4", "stops the others when a thread can't be created", points=2,
          hint="How does pthread_create report an error, and which vCPUs already run? It returns the error "
               "number. Report that, stop the vCPUs that run, wait for as many as were started, and return "
               "STATUS_NO_KVM, not the status of a stopped vCPU.")
def no_thread(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "no_thread")
    unit.symptom(lambda o: o.hung,
                 "A pthread_create failed, and run_all never returned. Check what pthread_create "
                 "returns each time: the number of the error, above 0; a later success must not hide a "
                 "failure. Stop the running vCPUs with stop_all, and let wait_for_all wait for as many as "
                 "were started, not for guest_count. (If other tests of 3.4 fail, fix these first: a lock "
                 "may not be released.)")


@lab.test("3.4", "sets the stop flag before kicking", points=2,
          hint="What does a vCPU do that is kicked before the flag is set? It checks the flag once and "
               "enters the guest again. So set stop_signal first, then kick.")
def stop_order(plan: Plan) -> None:
    _unit_of_runs(plan, "stop_order")


@lab.test("3.4", "clears a kick once it has been seen", points=1,
          hint="What makes KVM_RUN return at once, each time? vcpu_check_stop must clear immediate_exit.")
def kick_taken_back(plan: Plan) -> None:
    _unit_of_runs(plan, "kick_taken_back")


@lab.test("3.4", "stops the remaining guests after some have ended", points=2,
          hint="What does stop_all do when it comes to a vCPU that has ended? It must go on to the others, "
               "whatever became of the others before; vcpu_kick itself skips those that don't run.")
def stop_rest(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "own_status")
    unit.symptom(lambda o: "and its status is" in o.stdout,
                 "Who sets a vCPU's status at a stop? Only vcpu_check_stop, when the vCPU sees the stop. One "
                 "that ends by itself before that, or crashes, keeps its own status: neither stop_all nor "
                 "the end of the thread may change it.")
    unit.symptom(lambda o: "the highest of their statuses" in o.stdout,
                 "Which status does run_all return after a stop? The highest of the vCPUs' statuses, as "
                 "always: STATUS_SIGNAL plus the signal is that of a vCPU that the stop has ended, if there "
                 "is one.")
    for places in ((1,), (0, 2)):     # of those that loop; each other guest ends at once
        texts = {place: plan.values.text() for place in places}
        guests = [plan.guest("endless", TEXT=texts[place]) if place in texts
                  else plan.guest("status", STATUS=0)
                  for place in range(max(places) + 1)]
        ended = min({0, 1} - set(places))
        begun = Step(after=b"vcpu", send=b"x")      # of no meaning to them: what counts is that all run
        run = plan.boot(*guests, args=["--regs"], hold_stdin=True,
                        steps=(*[begun] * len(places),
                               Step(after=f"vcpu{ended}".encode(), stream="stderr", signal=signal.SIGTERM)))
        run.exits(STATUS_SIGNAL + signal.SIGTERM)
        steps = len(run.run.steps)
        run.symptom(lambda o, steps=steps: (o.hung and not o.lock_kept(0)            # type: ignore[misc]
                                            and o.result.steps_done == steps),
                    "One guest has ended, and SIGTERM does not stop the remaining ones. Does stop_all's "
                    "loop end at a vCPU that has ended? It must kick every vCPU, whatever became of the "
                    "others. (If the first test of 3.4 fails, fix that first.)")
        _stop_symptoms(run)


@lab.test("3.4", "prints an unfinished line when stopped", points=2,
          hint="Does a stopped vCPU print its last line? Its thread must call console_finish after "
               "vcpu_run, however that ended.")
def stop_unfinished(plan: Plan) -> None:
    first, text = plan.values.text(2), plan.values.text(2)
    addend = plan.values.number(31)
    unfinished_guest = plan.guest("unfinished", FIRST=first, TEXT=text, LOOP=None)
    then = plan.guest("ping-pong", ME=1, FACTOR=1, ADDEND=addend, ROUNDS=1)   # waits for the other
    run = plan.boot(unfinished_guest, then, args=["--regs"], hold_stdin=True,
                    steps=(Step(after=f"vcpu1: {addend}\n".encode(), signal=signal.SIGTERM),))
    run.prints_lines([f"vcpu0: {first}", f"vcpu0: {text}", f"vcpu1: {addend}"])
    run.exits(STATUS_SIGNAL + signal.SIGTERM)
    run.must(_registers_of(2), hint=_STOPPED)
    _stop_symptoms(run)


@lab.test("3.4", "ends on Ctrl-C and leaves the terminal unchanged", points=2,
          hint="What does Ctrl-C send, and what has changed in the terminal? It sends SIGINT. When the VMM "
               "ends, the terminal must be as before.")
def control_c(plan: Plan) -> None:
    text = plan.values.text()
    run = plan.boot(plan.guest("endless", TEXT=text), args=["--regs"], terminal=Terminal(),
                    steps=(Step(after=text.encode(), send=b"\x03"),))
    run.must(_printed(text), hint=_ENDED_BEFORE)
    run.exits(STATUS_SIGNAL + signal.SIGINT)
    run.must(_registers_of(1), hint=_STOPPED)
    run.must(_terminal_restored)
    _stop_symptoms(run)


# ---------------------------------------------------------------- 3.5 isolation

@lab.test("3.5", "lets a guest access its neighbour's window in one VM only", points=4,
          hint="How many VMs are there without --isolate, and how many with it? One, whose RAM all guests "
               "share; with it as many as there are guests.")
def intruder(plan: Plan) -> None:
    _intrusion(plan, isolate=False)
    _intrusion(plan, isolate=True)


@lab.test("3.5", "keeps guests apart with --isolate", points=4,
          hint="Which VM does guest N run in with --isolate? In one of its own, with a vCPU of index 0. Its "
               "window stays where it is.")
def isolated(plan: Plan) -> None:
    _intrusion(plan, isolate=True)


@lab.test("3.5", "gives each isolated guest its own memory", points=4,
          hint="Do the VMs share any RAM with --isolate? No: each of the four has its own, so no guest sees "
               "what another one counts.")
def isolated_counters(plan: Plan) -> None:
    steps, turns = [plan.values.number(20) for _ in range(VCPUS)], 50
    run = plan.boot(*(plan.guest("shared-counter", STEP=step, TURNS=turns, VCPUS=1) for step in steps),
                    args=["--isolate"])
    run.prints_lines([f"vcpu{vcpu}: {step * turns & 0xffffffff}" for vcpu, step in enumerate(steps)])
    run.exits(0)
    _common_symptoms(run)


@lab.test("3.5", "makes guest N vCPU 0 of VM N", points=2,
          hint="How many VMs are there with --isolate, and which vCPU of its VM is guest N's? There are "
               "guest_count of them, and guest N runs in vms[N] as its vCPU 0.")
def own_vms(plan: Plan) -> None:
    _unit_of_runs(plan, "own_vms")


@lab.test("3.5", "stops the guests of all VMs", points=1,
          hint="Which vCPUs does stop_all kick with --isolate? It must kick every vCPU of the VMM: each "
               "guest has its own VM.")
def stop_isolated(plan: Plan) -> None:
    unit = _unit_of_runs(plan, "stop_isolated")
    unit.symptom(lambda o: o.hung,
                 "With --isolate the guest of the second VM was not kicked, and runs forever: stop_all "
                 "must kick every vCPU of the VMM. (If a test of 3.4 fails, fix that first.)")


def _intrusion(plan: Plan, isolate: bool) -> None:
    """The intruder writes into the victim's window; then the victim is woken and prints what it has."""
    value, mark = plan.values.number(), plan.values.number()
    offset = plan.values.randrange(0x1000, 0xf000, 4)
    for victim, intruders in ((0, 1), (1, 0)):
        guests = {victim: plan.guest("victim", VALUE=value, OFFSET=offset),
                  intruders: plan.guest("intruder", VICTIM=victim, OFFSET=offset, MARK=mark)}
        run = plan.boot(guests[0], guests[1], args=["--isolate"] if isolate else [], hold_stdin=True,
                        steps=(Step(after=f"vcpu{intruders}: {mark}\n".encode(), send=b"x"),))
        found = value if isolate else mark
        run.prints_lines(sorted([f"vcpu{victim}: {found}", f"vcpu{intruders}: {mark}"]))
        run.exits(0)
        if isolate:
            run.symptom(lambda o: f"vcpu{victim}: {mark}\n" in o.stdout,
                        "The intruder's number is in its neighbour's memory: both guests run in the same "
                        "VM, or share RAM.")
        _common_symptoms(run)


# ---------------------------------------------------------------- conditions of this lab

def _not_out_of_run(outcome: Outcome) -> bool:
    return outcome.hung or "and KVM_RUN did not return" in outcome.stdout


def _unit_of_runs(plan: Plan, case: str) -> Planned:
    """A unit test that calls vcpus_run, which waits forever if no end is signalled."""
    unit = plan.unit("vcpus", case, kvm=True)
    unit.symptom(lambda o: "an eventfd takes 8 bytes" in o.stdout,
                 "What does a vCPU's thread do last? It must write the number 1 to ended_fd, as 8 bytes "
                 "(uint64_t).")
    unit.symptom(lambda o: "when vcpu_ended" in o.stdout,
                 "When does the vCPU's thread set the state to VCPU_ENDED? After vcpu_run, however the guest "
                 "ended, and before vcpu_ended: the devices read it there.")
    unit.symptom(lambda o: f"Early exit with return value {STATUS_CRASHED}" in o.stdout,
                 "What does a crash end? Only the guest's own vCPU: its thread ends, and not the program.")
    unit.symptom(lambda o: "a thread of its own" in o.stdout,
                 "Which thread runs a vCPU? One of its own: run_all starts a thread for each vCPU, and the "
                 "main thread only waits.")
    unit.symptom(lambda o: "and KVM_RUN did not return" in o.stdout, _NOT_OUT_OF_RUN)
    unit.symptom(lambda o: "vcpu_ended was not called" in o.stdout,
                 "When does the vCPU's thread call vcpu_ended? Once, after vcpu_run, however the guest "
                 "ended.")
    return unit


def _registers_of(vcpus: int) -> Condition:
    """--regs printed those of so many vCPUs: each has left its guest."""
    def condition(outcome: Outcome) -> Mismatch | None:
        missing = [f"vcpu{vcpu}" for vcpu in range(vcpus) if vcpu not in outcome.registers]
        return Mismatch("--regs printed no registers of " + ", ".join(missing)) if missing else None
    return condition


def _one_sum(total: int) -> Condition:
    """One vCPU, no matter which, has this sum in EBP; the others, which ended before it, have 0."""
    def condition(outcome: Outcome) -> Mismatch | None:
        found = sorted(registers.values.get("rbp", -1) for registers in outcome.registers.values())
        if found == [*[0] * (VCPUS - 1), total]:
            return None
        return Mismatch("of four vCPUs the one that ends last finds the sum of all in EBP; the others have 0",
                        f"0 0 0 {total}\n", " ".join(map(str, found)) + "\n")
    return condition


def _texts_of_vcpus(texts: list[str]) -> Condition:
    """What each vCPU printed, without its lines' names and ends, is its text; in whatever pieces."""
    def condition(outcome: Outcome) -> Mismatch | None:
        for vcpu, text in enumerate(texts):
            pieces = re.findall(rf"^vcpu{vcpu}: (.*)$", outcome.stdout, re.M)
            if "".join(pieces) != text:
                return Mismatch(f"of {len(text)} characters of vcpu{vcpu} some are missing or out of order",
                                text, "".join(pieces))
        return None
    return condition


def _coloured(lines: list[str], coloured: bool) -> Condition:
    """These lines; and colours, of each vCPU its own, or none."""
    def condition(outcome: Outcome) -> Mismatch | None:
        printed = outcome.stdout.replace("\r\n", "\n")  # a terminal makes these of newlines
        mismatch = prints_lines(lines)(Outcome(replace(outcome.result,
                                                       stdout=_COLOUR.sub("", printed).encode("latin-1"))))
        if mismatch:
            return mismatch
        used = {tuple(_COLOUR.findall(line)) for line in printed.splitlines()}
        if not coloured and used != {()}:
            return Mismatch("no colour was asked for, and there are escape sequences in the output")
        if coloured and (() in used or len(used) != len(lines)):
            return Mismatch("two vCPUs' names have the same colour, or one has none")
        texts = tuple(line.partition(": ")[2] for line in lines)
        if coloured and not all(line.endswith(texts) for line in printed.splitlines()):
            return Mismatch("the colour does not end after the name: the guest's text is coloured as well")
        return None
    return condition


def _printed(text: str) -> Condition:
    """This text is on standard output, whatever a terminal has put around it."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if text in outcome.stdout:
            return None
        return Mismatch("the guest's text was not printed", text + "\n", outcome.stdout)
    return condition


def _terminal_restored(outcome: Outcome) -> Mismatch | None:
    if outcome.result.terminal_restored:
        return None
    return Mismatch("the terminal's settings are not what they were before")


def _stop_symptoms(run: Planned) -> None:
    run.symptom(lambda o: o.hung and o.lock_kept(0),
                "A thread waits for a lock that is never released: an ending vCPU takes vcpu->lock to set "
                "its state. Does vcpu_kick release it on every path?")
    run.symptom(lambda o: o.hung and o.result.steps_done == len(run.run.steps) and bool(o.where),
                "The signal arrived, and a vCPU still runs. A guest in an endless loop makes no exit: only "
                "a signal to its thread makes KVM_RUN return. Does stop_all kick every vCPU, and does "
                "vcpu_kick send the signal while vcpu->state is VCPU_RUNNING?")
    run.symptom(lambda o: (o.result.ending, o.result.code) == (Ending.SIGNAL, signal.SIGSEGV),
                "The VMM crashed at the stop. pthread_kill may crash if the thread does not exist, or no "
                "longer exists. Does vcpu_kick check vcpu->state first, and hold vcpu->lock until the "
                "signal is sent?")
    run.symptom(lambda o: o.result.ending is Ending.SIGNAL and o.result.code in _STOPS,
                "The signal killed the VMM immediately. It must be caught or blocked, so that the vCPUs "
                "can end in an orderly way.")
    run.symptom(lambda o: o.said("Interrupted system call"),
                "KVM_RUN failed with EINTR because of the kick. That is not an error: the run loop must go "
                "on to vcpu_check_stop, which ends the vCPU.")
    _common_symptoms(run)


def _vcpus(outcome: Outcome) -> set[str]:
    """The vCPUs that ran when the VMM was stopped; several threads may run the same one."""
    return {line.split()[0] for line in outcome.where}


def _common_symptoms(run: Planned) -> None:
    run.symptom(lambda o: o.hung and not o.where,
                "No thread runs a vCPU any more, but the VMM still waits. Did each thread write to "
                "ended_fd when it ended? It is an eventfd: write the number 1 as 8 bytes (uint64_t); a "
                "shorter write fails.")
    run.symptom(lambda o: re.search(r"vcpu\d: \S*vcpu\d: ", o.stdout) is not None,
                "Two vCPUs' lines are mixed: the name, the text and the newline must be written under one "
                "lock.")
    run.symptom(lambda o: o.said("KVM_CREATE_VCPU .*File exists"),
                "KVM_CREATE_VCPU was called with a number that the VM already has. vcpu->index is the "
                "vCPU's place in its VM, 0 for the first.")


# ---------------------------------------------------------------- what `make lab3` boots

CLASSICS = ("hello", "counter", "fibonacci", "multiplication")

lab.demonstrations = [
    Demonstration("Four guests, each on its own vCPU", CLASSICS),
    Demonstration("Four vCPUs that print at the same time", ("lines",) * 4),
    Demonstration("Four vCPUs add to one number in shared memory", ("shared-counter",) * 4),
    Demonstration("Each guest in a VM of its own", CLASSICS, ("--isolate",)),
]
