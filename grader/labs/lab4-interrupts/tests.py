"""Lab 4, interrupts: the timer, injection, the kick, HLT, the keyboard, the terminal.

No test depends on the machine's speed: guests count and compare, they don't measure. Any limit on time is a
lower bound.
"""

from __future__ import annotations

import signal

from grader.core.expectations import Condition, Mismatch
from grader.core.framework import Demonstration, Lab
from grader.core.outcome import STATUS_CRASHED, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.runs import Limits, Step, Terminal

lab = Lab(4, "interrupts", needs=("real", "interrupts"))

VCPUS = 4
STATUS_STRAY = 62               # of guests/vectors.inc
STATUS_SIGNAL = 128
TICK = "--tick-ms=1"
LONG_TICK = "--tick-ms=1000"
IDLE_TICK_MS = 400
BUSY_TICK_MS = 20
PATIENT = Limits(wall=150, no_output=40)    # for guests that need thousands of exits, on a loaded machine


# ---------------------------------------------------------------- 4.1 the timer

@lab.test("4.1", "arms the timer with the period of --tick-ms", points=3,
          hint="Which two times does timerfd_settime take (man 2 timerfd_create)? it_value is the time to "
               "the first tick, it_interval the time between two ticks: both are tick_ms, split into "
               "seconds and nanoseconds.")
def period(plan: Plan) -> None:
    plan.unit("interrupts", "period")


@lab.test("4.1", "reports a failure to create or arm the timer", points=1,
          hint="How do timerfd_create and timerfd_settime report a failure? They return -1: fail with "
               "STATUS_NO_KVM and the reason.")
def timer_failure(plan: Plan) -> None:
    plan.unit("interrupts", "timer_failure")


@lab.test("4.1", "ticks every vCPU when the timer expires", points=2,
          hint="Which vCPUs does timer_expired raise the vector on, and what happens before? Read the "
               "timer. Only if that succeeded, raise TIMER_VECTOR on all guest_count vCPUs, in whichever "
               "VM.")
def expired(plan: Plan) -> None:
    plan.unit("interrupts", "expired")


# ---------------------------------------------------------------- 4.2 injection

@lab.test("4.2", "chooses the lowest vector", points=2,
          hint="Which bit of the set is which vector? Bit N is vector TIMER_VECTOR + N: return the vector "
               "of the lowest bit that is set.")
def first(plan: Plan) -> None:
    plan.unit("interrupts", "first")


@lab.test("4.2", "injects a pending vector when the guest can accept it", points=4,
          hint="When can the guest take an interrupt, and what happens to the vector then? When if_flag and "
               "ready_for_interrupt_injection are both set. After a successful KVM_INTERRUPT the vector is "
               "no longer pending.")
def injects(plan: Plan) -> None:
    plan.unit("interrupts", "injects").symptom(
        lambda o: "did not wait for it" in o.stdout,
        "What does interrupt_deliver do while another thread holds vcpu->lock? It must wait for the lock: "
        "if it returns instead, the guest is entered with the vector still pending, and no window "
        "requested.")


@lab.test("4.2", "requests an interrupt window when the guest can't", points=5,
          hint="What if the guest can't take the interrupt now? Without if_flag or without "
               "ready_for_interrupt_injection, keep the vector pending and request the window.")
def waits(plan: Plan) -> None:
    plan.unit("interrupts", "waits")


@lab.test("4.2", "injects one vector per entry, then clears the window request", points=4,
          hint="What is still pending after the injection? request_interrupt_window says so: set it at each "
               "entry, to 1 or to 0.")
def several(plan: Plan) -> None:
    plan.unit("interrupts", "several")


@lab.test("4.2", "reports that KVM rejected an interrupt", points=2,
          hint="What if KVM_INTERRUPT fails? End the guest by vcpu_crash, with the reason from errno. Count "
               "and trace only what KVM has accepted.")
def injection_failure(plan: Plan) -> None:
    plan.unit("interrupts", "injection_failure")


@lab.test("4.2", "removes a vector from the set under the lock", points=2,
          hint="Who else changes vcpu->pending meanwhile? Hold vcpu->lock from reading the set until the "
               "vector is removed from it.")
def guards(plan: Plan) -> None:
    plan.unit("interrupts", "guards")


@lab.test("4.2", "traces each injection", points=1,
          hint="How does --trace learn of an injection? By trace_event, once for each injection that "
               "succeeded.")
def traces(plan: Plan) -> None:
    plan.unit("interrupts", "traces")


# ---------------------------------------------------------------- 4.3 the kick

@lab.test("4.3", "makes a vector pending, then kicks", points=3,
          hint="Which step needs vcpu->lock, and which takes it? Make the vector pending under the lock, "
               "release it, then call vcpu_kick, which takes the lock itself.")
def raise_kicks(plan: Plan) -> None:
    plan.unit("interrupts", "raise_kicks")


@lab.test("4.3", "never loses an interrupt raised just before KVM_RUN", points=3,
          hint="What does the vCPU find when the kick takes effect? The vector must already be pending: the "
               "kick's immediate_exit makes the next KVM_RUN return, and interrupt_deliver finds it.")
def raised_late(plan: Plan) -> None:
    plan.unit("interrupts", "raised_late")


@lab.test("4.3", "raises a vector again while it is being injected", points=1,
          hint="What may the vCPU's own thread do between your reading of `pending` and your taking of the "
               "lock? Inject what you have read. So both the read and the change belong under vcpu->lock.")
def raised_again(plan: Plan) -> None:
    plan.unit("interrupts", "raised_again")


@lab.test("4.3", "merges undelivered interrupts of one vector", points=2,
          hint="What does a second tick change while the first is pending? Nothing: a set has each vector "
               "once.")
def merges(plan: Plan) -> None:
    plan.unit("interrupts", "merges")


@lab.test("4.3", "interrupts a guest in a loop without exits", points=4,
          hint="What gets a vCPU out of a loop that makes no exit? Only a kick. --trace shows whether "
               "interrupts are injected.")
def busy(plan: Plan) -> None:
    _raises(plan)
    guests = [(plan.values.randint(5, 20), plan.values.randint(2, 999)) for _ in range(2)]
    run = plan.boot(*(plan.guest("ticks", TICKS=ticks, STEP=step, BUSY=None) for ticks, step in guests),
                    args=[f"--tick-ms={BUSY_TICK_MS}"], hold_stdin=True)
    run.must(_not_early(max(ticks for ticks, _ in guests), BUSY_TICK_MS))
    run.prints_lines([f"vcpu{vcpu}: {step * tick}" for vcpu, (ticks, step) in enumerate(guests)
                      for tick in range(1, ticks + 1)])
    run.exits(0)
    _symptoms(run)


@lab.test("4.3", "delivers interrupts even if the guest enables them only briefly", points=3,
          hint="How do you notice that the guest has enabled interrupts for a moment? Only by the window: "
               "KVM reports that moment if you requested it.")
def window(plan: Plan) -> None:
    _raises(plan)
    text, ticks_counted = plan.values.text(), plan.values.randint(10, 30)
    run = plan.boot(plan.guest("window", TEXT=text, TICKS=ticks_counted), args=[TICK], hold_stdin=True)
    run.must(_not_early(ticks_counted, 1))
    run.symptom(lambda o: "with IF = 0" in o.stdout,
                "A handler ran while the guest had its interrupts disabled. KVM_INTERRUPT does not check "
                "IF: some processors deliver the interrupt anyway, Intel's fail the entry. Do you check "
                "run->if_flag before you inject?")
    run.prints(text + "\n")
    run.exits(0)
    _symptoms(run, "The guest enables interrupts only for short moments, and no tick reaches it. Do you "
                   "request the window (run->request_interrupt_window) while something is pending? Then "
                   "KVM exits with KVM_EXIT_IRQ_WINDOW_OPEN in such a moment.")


@lab.test("4.3", "preserves the guest's registers and flags", points=3,
          hint="Which registers do you change when you inject? None: KVM_INTERRUPT does everything. Leave "
               "RIP, RFLAGS and the stack unchanged. If the guest crashes, make explain shows where.")
def preserve(plan: Plan) -> None:
    _raises(plan)
    text = plan.values.text()
    guest = plan.guest("preserve", TEXT=text, VALUE=plan.values.number(31), TICKS=plan.values.randint(20, 40))
    run = plan.boot(guest, args=[TICK], hold_stdin=True)
    run.prints(text + "\n")
    run.exits(0)
    _symptoms(run)


@lab.test("4.3", "ends a guest that has no interrupt handlers", points=3,
          hint="What happens at the first interrupt of a guest without a vector table? KVM_EXIT_SHUTDOWN, "
               "which lab 1's run loop handles. Count each injection in vcpu->interrupts: the post-mortem "
               "reads it.")
def no_handler(plan: Plan) -> None:
    _raises(plan)
    step = plan.values.randint(2, 999)
    handled = plan.boot(plan.guest("ticks", TICKS=1, STEP=step, BUSY=None), hold_stdin=True)
    handled.prints(f"{step}\n", hint="Does a guest that has an interrupt handler get its first tick?")
    handled.exits(0)
    _symptoms(handled)
    run = plan.boot(plan.guest("no-handler"), hold_stdin=True)
    run.exits(STATUS_CRASHED)
    run.says("interrupt came and the guest has no handler",
             what="that an interrupt came and the guest has no handler for it")
    _symptoms(run)


# ---------------------------------------------------------------- 4.4 HLT

@lab.test("4.4", "ends a guest that halts with interrupts disabled", points=2,
          hint="What can wake a guest that halts? With interrupts enabled, an interrupt; with interrupts "
               "disabled, nothing: it has finished, with status 0.")
def halt_ends(plan: Plan) -> None:
    plan.unit("interrupts", "halt_ends")
    value = plan.values.number()
    run = plan.boot(plan.guest("sum", NUMBERS=[value]), args=["--regs"], hold_stdin=True)
    run.exits(0)
    run.registers(rax=value)


@lab.test("4.4", "sleeps until an interrupt arrives", points=3,
          hint="What ends the sleep? A pending vector or a stop, and nothing else: pthread_cond_wait may "
               "also return for no reason, so check again after each wait. Then return STEP_RUN.")
def halt_wakes(plan: Plan) -> None:
    plan.unit("interrupts", "halt_pending").symptom(
        lambda o: o.hung,
        "A vector was pending before HLT, but the vCPU went to sleep. Check the whole set before the first "
        "wait: any pending vector ends the sleep, not only the timer's.")
    plan.unit("interrupts", "halt_wakes")


@lab.test("4.4", "stops a sleeping vCPU", points=3,
          hint="Does a stop end the sleep? The wait must also end when vmm->stop_signal is set; "
               "vcpu_check_stop does the rest.")
def halt_stops(plan: Plan) -> None:
    plan.unit("interrupts", "halt_stops")


@lab.test("4.4", "never sleeps with an interrupt pending", points=4,
          hint="Where can an interrupt come between the check of `pending` and the sleep? Hold vcpu->lock "
               "from before the check: pthread_cond_wait releases it only when it sleeps, and holds it "
               "again when it returns.")
def halt_never_missed(plan: Plan) -> None:
    plan.unit("interrupts", "halt_never_missed")


@lab.test("4.4", "ticks one guest, four, and two with --isolate", points=1,
          hint="Which vCPUs get a tick? Each guest counts its own: timer_expired (4.1) must raise the "
               "vector on every vCPU of every VM.")
def ticks(plan: Plan) -> None:
    _halt_stays(plan)
    for count, args in ((1, ()), (VCPUS, ()), (2, ("--isolate",))):
        steps, last = [plan.values.randint(2, 999) for _ in range(count)], plan.values.randint(3, 9)
        run = plan.boot(*(plan.guest("ticks", TICKS=last, STEP=step) for step in steps), args=args,
                        hold_stdin=True)
        lines = [(vcpu, str(step * tick)) for vcpu, step in enumerate(steps) for tick in range(1, last + 1)]
        if count == 1:
            run.prints("".join(f"{text}\n" for _, text in lines))
        else:
            run.prints_lines([f"vcpu{vcpu}: {text}" for vcpu, text in lines])
        run.exits(0)
        _symptoms(run)


@lab.test("4.4", "wakes a guest a thousand times", points=3,
          hint="When may the guest continue after `sti` and `hlt`? When an interrupt has arrived, and only "
               "then.")
def sti_hlt(plan: Plan) -> None:
    first_number = plan.values.number(20)
    run = plan.boot(plan.guest("sti-hlt", ROUNDS=1000, FIRST=first_number), args=[TICK], hold_stdin=True,
                    limits=PATIENT)
    run.symptom(lambda o: o.status == 0 and not o.stdout.endswith(f".{first_number}\n"),
                "The guest continued after HLT although no interrupt had arrived: HLT must wait until one "
                "is pending.")
    run.must(_not_early(1000, 1))
    run.prints("." * 10 + f"{first_number}\n")
    run.exits(0)
    _symptoms(run)


@lab.test("4.4", "delivers one tick for all that a guest missed", points=3,
          hint="How many ticks are pending after the guest has missed several? One: they merge. A count or "
               "a queue makes the handler run many times afterwards.")
def missed_ticks(plan: Plan) -> None:
    plan.unit("interrupts", "late_ticks")
    _halt_stays(plan)
    text = plan.values.text()
    guest = plan.guest("merge", TEXT=text, MASKED=plan.values.randint(250, 350))
    run = plan.boot(guest, guest, args=[TICK], hold_stdin=True, limits=PATIENT)
    run.prints_lines([f"vcpu0: {text}"])
    run.exits(0)
    _symptoms(run)


@lab.test("4.4", "uses no processor time while the guest sleeps", points=3,
          hint="Which thread still runs while the guest sleeps? A halted vCPU's thread must sleep in "
               "pthread_cond_wait, and the devices' thread in poll. Is the timer read? If it is not, poll "
               "returns at once, again and again.")
def idle(plan: Plan) -> None:
    plan.unit("interrupts", "halt_waits")
    plan.unit("interrupts", "devices_sleep")
    _idle(plan, hold_stdin=True, keys=0)


@lab.test("4.4", "stops four vCPUs in any state", points=3,
          hint="In which state is each vCPU when the stop comes? Running, waiting for the window, halted or "
               "in an exit: the kick must bring each one to vcpu_check_stop, which comes before every "
               "entry.")
def stop(plan: Plan) -> None:
    plan.unit("interrupts", "halt_stops")
    for number in (signal.SIGTERM, signal.SIGINT):
        text = plan.values.text()
        guest = plan.guest("states", TEXT=text)
        run = plan.boot(*[guest] * VCPUS, args=[LONG_TICK], hold_stdin=True,
                        steps=(Step(after=f"{text}\n".encode(), signal=number),))
        run.exits(STATUS_SIGNAL + number)
        _symptoms(run)


# ---------------------------------------------------------------- 4.5 the keyboard

@lab.test("4.5", "keeps 256 bytes in order", points=2,
          hint="Where in the ring does a byte go in, and where does one come from? It goes in `count` "
               "places after the head and is taken at the head; both places wrap around at RING_BYTES.")
def ring(plan: Plan) -> None:
    plan.unit("interrupts", "ring")


@lab.test("4.5", "raises an interrupt for each byte", points=2,
          hint="When does the guest need another interrupt? When keyboard_fill has put something into the "
               "ring, even if earlier bytes wait there, and when keyboard_getchar leaves something there: "
               "both call keyboard_interrupt.")
def keyboard(plan: Plan) -> None:
    unit = _unit(plan, "keyboard")
    unit.symptom(lambda o: "did not wait for it" in o.stdout,
                 "What does keyboard_getchar do while another thread holds devices.lock? It must wait for "
                 "the lock: a guest that gets \"nothing yet\" while a byte is there may never ask again.")


@lab.test("4.5", "uses the ring and input_ended only under devices.lock", points=2,
          hint="Which threads use the ring? keyboard_fill and keyboard_getchar run in different ones: hold "
               "devices.lock whenever you read or change the ring or input_ended.")
def ring_guarded(plan: Plan) -> None:
    unit = _unit(plan, "ring_guarded")
    unit.symptom(lambda o: "comes at the end of the input" in o.stdout,
                 "Does keyboard_fill raise 0x21 at the end of the input even while bytes wait in the ring? "
                 "If it does: does it set input_ended, and call keyboard_interrupt, while it holds "
                 "devices.lock?")


@lab.test("4.5", "leaves unread what the ring can't hold", points=3,
          hint="How many bytes may you read, and what happens when there is room again? Only as many as "
               "ring_room returns. When a full ring has room again, wake the devices' thread: write to "
               "wake_fd.")
def full_ring(plan: Plan) -> None:
    _unit(plan, "full_ring")


@lab.test("4.5", "reports the end of input once", points=2,
          hint="What does read return at the end of the input, and what does the guest get then? 0, and "
               "then errno means nothing: record it in input_ended and raise 0x21 once. The guest gets "
               "GETCHAR_END when the ring is empty.")
def end_of_input(plan: Plan) -> None:
    _unit(plan, "end_of_input")
    _unit(plan, "end_of_nothing")
    _unit(plan, "end_of_some")
    _idle(plan, hold_stdin=False, keys=1)


@lab.test("4.5", "treats a read error as end of input", points=1,
          hint="Which errors of read mean \"not now\"? EINTR and EAGAIN. Any other sets input_ended, as the "
               "end of the input does.")
def input_fails(plan: Plan) -> None:
    _unit(plan, "input_fails")
    _unit(plan, "input_error")
    _unit(plan, "input_hangs_up")
    _unit(plan, "input_not_now")


@lab.test("4.5", "passes bytes only to the VM that owns the keyboard", points=2,
          hint="Which VM has the keyboard? Only a vCPU of keyboard_owner() gets a byte. The others get "
               "GETCHAR_NOTHING, and GETCHAR_END once the ring is empty and the input has ended.")
def owner(plan: Plan) -> None:
    _unit(plan, "owner")
    _unit(plan, "shared_keyboard")


@lab.test("4.5", "delivers typed keys to a guest that echoes them", points=2,
          hint="Does each byte, even the last, have its own interrupt? The guest makes one GETCHAR for "
               "each, and does not wait for more.")
def typing(plan: Plan) -> None:
    _raises(plan)
    key, status = plan.values.randint(1, 15), plan.values.randint(1, 63)
    words = [plan.values.word(plan.values.randint(1, 9)) for _ in range(3)]
    changed = ["".join(chr(ord(c) ^ key) for c in word) for word in words]
    guest = plan.guest("typing", PROMPT="> ", KEY=key, LAST="Q", STATUS=status)
    waits_for = ["> ", *changed]
    run = plan.boot(guest, hold_stdin=True,
                    steps=tuple(Step(after=a.encode(), send=s.encode())
                                for a, s in zip(waits_for, [*words, "Q"])))
    run.prints("> " + "".join(changed) + "\n")
    run.exits(status)
    _symptoms(run)


@lab.test("4.5", "passes a long input without loss or duplicates", points=2,
          hint="Where does a byte stay that does not fit into the ring? Unread, in the input. Every byte "
               "arrives once and in order.")
def bulk(plan: Plan) -> None:
    _raises(plan)
    variants: list[tuple[int, dict[str, None]]] = [(600, {}), (2100, {"DRAIN": None})]
    for least, drain in variants:
        key, data = plan.values.getrandbits(8), plan.values.randbytes(plan.values.randint(least, least + 300))
        guest = plan.guest("bulk", KEY=key, BLOCK=plan.values.randint(200, 2000), **drain)
        run = plan.boot(guest, stdin=data, args=[LONG_TICK], limits=PATIENT)
        expected = bytes(byte ^ key for byte in data).decode("latin-1")
        run.symptom(lambda o, e=expected: len(o.stdout) < len(e) and o.status == 0,     # type: ignore[misc]
                    "Bytes were lost. Do you read more than the ring has room for? What you don't read "
                    "stays in the input.")
        run.symptom(lambda o, e=expected: len(o.stdout) > len(e),                       # type: ignore[misc]
                    "There is more output than input: bytes were delivered twice.")
        run.prints(expected)
        run.exits(0)
        _symptoms(run)


@lab.test("4.5", "delivers the timer before the keyboard", points=1,
          hint="Which of two pending vectors comes first? The lower one; the other one stays pending.")
def both(plan: Plan) -> None:
    timer, key = plan.values.sample("abcdefghijklmnopqrstuvwxyz", 2)
    text = plan.values.word(plan.values.randint(3, 6))
    guest = plan.guest("both", TIMER_LETTER=timer, KEY_LETTER=key)
    run = plan.boot(guest, guest, stdin=text.encode(), args=["--tick-ms=5"])
    run.prints_lines(["vcpu0: " + (timer + key) * len(text)])
    run.exits(0)
    run.symptom(lambda o: key + timer + key in o.stdout,
                "The keyboard's handler ran before the timer's. Which bit does pending_first choose? It "
                "must be the lowest.")
    _symptoms(run)


# ---------------------------------------------------------------- 4.6 the terminal

@lab.test("4.6", "restores the terminal however the VMM ends", points=2,
          hint="In which ways can the VMM end, and from which moment on? Save the settings, and register "
               "what restores them (atexit, a handler for each signal in `crashes`, even if it has one), "
               "before you change them; restore in devices_stop as well.")
def restored(plan: Plan) -> None:
    plan.unit("interrupts", "restored")


@lab.test("4.6", "keeps typed-ahead input and the output settings", points=1,
          hint="Which action of tcsetattr discards typed keys, and which flags concern output (man 3 "
               "termios)? Use TCSANOW, and leave c_oflag unchanged.")
def raw(plan: Plan) -> None:
    plan.unit("interrupts", "raw").symptom(
        lambda o: "the terminal hands over" in o.stdout,
        "What does keyboard_fill do with the bytes that it reads (4.5)? It puts each into the ring, "
        "whatever its value: Ctrl-D is a byte as well.")


@lab.test("4.6", "delivers each key at once, as its byte or signal", points=2,
          hint="Which setting removes, changes or doubles this key (man 3 termios), and do you set it "
               "whatever it was? ICANON, ECHO, IEXTEN, EXTPROC and VMIN concern all keys; IXON, ISTRIP, "
               "PARMRK, INLCR, IGNCR and ICRNL some of them; VINTR, VQUIT and VSUSP are the keys that become "
               "signals, if ISIG is set.")
def keys(plan: Plan) -> None:
    plan.unit("interrupts", "keys")


@lab.test("4.6", "delivers keys from a terminal, and restores it", points=3,
          hint="Does each key reach the guest at once, and does only the guest echo it? At the end all "
               "settings must be as before.")
def session(plan: Plan) -> None:
    key, word = plan.values.randint(1, 15), plan.values.word(4)
    changed = "".join(chr(ord(c) ^ key) for c in word)
    guest = plan.guest("typing", PROMPT="> ", KEY=key, LAST="Q", STATUS=7)
    for end, status in ((b"Q", 7), (b"\x03", STATUS_SIGNAL + signal.SIGINT)):
        run = plan.boot(guest, terminal=Terminal(),
                        steps=(Step(after=b"> ", send=word.encode()), Step(after=changed.encode(), send=end)))
        run.exits(status)
        run.must(_shows("> " + changed))
        run.must(_terminal_restored)
        _symptoms(run)
    dies = plan.boot(plan.guest("no-handler"), terminal=Terminal())
    dies.exits(STATUS_CRASHED)
    dies.must(_terminal_restored)


# ---------------------------------------------------------------- conditions of this lab

def _idle(plan: Plan, hold_stdin: bool, keys: int) -> None:
    """Three ticks: the guest sleeps for more than a second and counts what wakes it."""
    number, ticks_waited = plan.values.number(20), 3
    run = plan.boot(plan.guest("idle", TICKS=ticks_waited, FIRST=number), args=[f"--tick-ms={IDLE_TICK_MS}"],
                    hold_stdin=hold_stdin)
    run.exits(0)
    run.prints(f"{number + keys}\n",
               hint=f"The input {'has not ended' if hold_stdin else 'ends at once'}: the guest counts its "
                    f"keyboard interrupts, and {keys} would be right.")
    run.must(_not_early(ticks_waited, IDLE_TICK_MS))
    _symptoms(run)


def _not_early(count: int, tick_ms: int) -> Condition:
    """A guest that ends with its tick of this number has run for so many periods at least."""
    def condition(outcome: Outcome) -> Mismatch | None:
        if outcome.result.wall < (count - 0.5) * tick_ms / 1000:
            return Mismatch(f"{count} ticks of {tick_ms} ms each came within {outcome.result.wall:.2f} s: "
                            "was the timer read, and do both of its times come from tick_ms (4.1)?")
        return None
    return condition


def _shows(text: str) -> Condition:
    """On the terminal's screen is this, and no second echo."""
    def condition(outcome: Outcome) -> Mismatch | None:
        shown = outcome.stdout.replace("\r\n", "\n").replace("^C", "").rstrip("\n")
        if shown == text:
            return None
        return Mismatch("the terminal shows something else", text, shown)
    return condition


def _terminal_restored(outcome: Outcome) -> Mismatch | None:
    if outcome.result.terminal_restored:
        return None
    return Mismatch("the terminal's settings are not what they were before")


_LOCK_KEPT = (
    "A thread waits for a lock that is never released. Which path out of a function does not unlock "
    "vcpu->lock or devices.lock? Which function that takes a lock is called while the lock is held? In gdb "
    "`thread apply all bt` shows where each thread waits.")
_AWAKE = (
    "The VMM hung, and no vCPU sleeps in HLT. Either a guest waits in a loop for an interrupt that never "
    "comes: does the timer tick (4.1), was the vector made pending and the vCPU kicked (4.3), was the "
    "window requested (4.2)? Or the VMM itself loops: request_interrupt_window left at 1 makes every "
    "KVM_RUN return at once. --trace shows which it is.")


def _symptoms(run: Planned, awake: str = _AWAKE) -> None:
    """What every test of this lab may meet; `awake` is said when it hung though no vCPU sleeps in HLT."""
    run.symptom(lambda o: o.said("KVM_INTERRUPT.*Invalid argument"),
                "KVM rejected the interrupt: there is no such vector. Bit N of `pending` is vector "
                "TIMER_VECTOR + N.")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor rejected the VM entry. On Intel an injection with IF = 0 causes that: do "
                "you check run->if_flag first?")
    run.symptom(lambda o: o.status == STATUS_STRAY,
                "The guest got an interrupt that no device raises. Did you confuse a vector with its bit? "
                "Bit N of `pending` is vector TIMER_VECTOR + N.")
    run.symptom(lambda o: o.hung and o.lock_kept(_halted(o)), _LOCK_KEPT)
    run.symptom(lambda o: o.hung and not _halted(o), awake)
    run.symptom(lambda o: o.hung and _halted(o) < len(o.where),
                "The VMM hung: one vCPU sleeps in HLT, another one runs. Which of them waits for an "
                "interrupt? For the one that runs, was the window requested whenever something is pending "
                "(4.2), and the vCPU kicked (4.3)? For the one in HLT, does its sleep end when a vector is "
                "pending (4.4)?")
    run.symptom(lambda o: o.hung,
                "The VMM hung in HLT: a vCPU sleeps, and no interrupt reaches it. Does its device raise "
                "the vector, on every vCPU (4.1)? Is the vector made pending under vcpu->lock, and is "
                "vcpu_kick called after that (4.3)? Does the sleep in HLT end when a vector is pending?")


def _halted(outcome: Outcome) -> int:
    """How many vCPUs sleep in HLT."""
    return sum("the last: KVM_EXIT_HLT" in line for line in outcome.where)


def _halt_stays(plan: Plan) -> None:
    """These guests look again after each HLT: an interrupt_halt that only returns would do for them."""
    plan.unit("interrupts", "halt_stays").symptom(
        lambda o: "although no interrupt was pending" in o.stdout,
        "What ends a halted vCPU's sleep? An interrupt that is pending, or the VMM's stop. Until then "
        "interrupt_halt must not return.")


def _raises(plan: Plan) -> None:
    """What these guests see of an interrupt could also come of one injected whenever it is possible."""
    plan.unit("interrupts", "only_raised")


def _unit(plan: Plan, case: str) -> Planned:
    """A unit test in which a function may wait forever for a lock."""
    unit = plan.unit("interrupts", case)
    unit.symptom(lambda o: o.hung, _LOCK_KEPT)
    return unit


# ---------------------------------------------------------------- what `make lab4` boots

lab.demonstrations = [
    Demonstration("Five ticks, with sleep between them", ("ticks",), ("--stats",)),
    Demonstration("Four vCPUs, each with its own ticks", ("ticks",) * 4),
    Demonstration("A guest that goes to sleep a thousand times", ("sti-hlt",), ("--tick-ms=1",)),
    Demonstration("A handler that echoes what is typed", ("typing",), stdin=b"hello q"),
]
