"""Lab 1, real-mode boot: the module's functions one by one, then guests on the whole VMM.

Lab 1 has no hypercalls: what a guest did is read from the final registers, which the kit prints.
"""

from __future__ import annotations

import re

from grader.core.framework import Demonstration, Lab
from grader.core.judge import THIRD_ARGUMENT
from grader.core.outcome import STATUS_CRASHED, STATUS_GUEST_FILE, STATUS_NO_KVM, Outcome
from grader.core.plan import Plan, Planned
from grader.execution.runs import Limits

lab = Lab(1, "real-mode boot", needs=("real",))


# ---------------------------------------------------------------- 1.1 open /dev/kvm

@lab.test("1.1", "opens /dev/kvm", points=5,
          hint="Which file does kvm_open open, for what kind of access, and where must its descriptor go? "
               "It returns 0 only if every check succeeds.")
def opens(plan: Plan) -> None:
    plan.unit("vm", "opens", kvm=True).symptom(lambda o: o.said(r"version -1\b"), THIRD_ARGUMENT)


@lab.test("1.1", "rejects any other API version", points=4,
          hint="What does your code do if KVM_GET_API_VERSION returns something other than KVM_API_VERSION "
               "(12)? kvm_open must then fail with STATUS_NO_KVM.")
def version(plan: Plan) -> None:
    plan.unit("vm", "version", kvm=True)


@lab.test("1.1", "rejects a KVM that lacks a required capability", points=3,
          hint="What does KVM_CHECK_EXTENSION return for a missing capability, and what for an available "
               "one (api.rst 4.4)? 0 means missing, any number over 0 available. Check each capability that "
               "the VMM needs; if one is missing, fail with STATUS_NO_KVM and name it.")
def capabilities(plan: Plan) -> None:
    plan.unit("vm", "capabilities", kvm=True)


@lab.test("1.1", "reports why /dev/kvm can't be opened", points=3,
          hint="How does open report that it failed, and why? It returns -1 and sets errno: the message "
               "must name the call, and contain the reason, as strerror describes it.")
def no_device(plan: Plan) -> None:
    plan.unit("vm", "no_device", kvm=True)


# ---------------------------------------------------------------- 1.2 the VM and its RAM

@lab.test("1.2", "maps the guest's RAM and registers it with KVM", points=8,
          hint="Is the memory page-aligned, and what does each field of the region mean (api.rst 4.35)? "
               "Memory from mmap is aligned, malloc's is not. guest_phys_addr is where the guest's RAM "
               "starts, memory_size its length. Keep the VM's descriptor and the RAM in *vm.")
def ram(plan: Plan) -> None:
    # RAM may be a memory file, and one of the sizes is 2 GB.
    unit = plan.unit("vm", "maps_ram", kvm=True, limits=Limits(file=2 << 30))
    unit.symptom(lambda o: o.said("USER_MEMORY_REGION.*Invalid argument"),
                 "KVM refused the memory region with EINVAL. Its userspace_addr, guest_phys_addr and "
                 "memory_size must be multiples of the page size (4096): memory from malloc or calloc is "
                 "not page-aligned, memory from mmap is. Is every field of the structure set, even flags?")


@lab.test("1.2", "sets the TSS and identity-map addresses for Intel", points=3,
          hint="Which of the two calls takes a number, and which a pointer to one (api.rst 4.36, 4.40)? "
               "KVM_SET_TSS_ADDR takes the address itself, KVM_SET_IDENTITY_MAP_ADDR a pointer. Make both "
               "before the first vCPU.")
def addresses(plan: Plan) -> None:
    plan.unit("vm", "addresses", kvm=True).symptom(
        lambda o: "vm_create failed at something else" in o.stdout,
        "The addresses are not the cause: vm_create fails before it sets them. See its message and the test "
        "of the RAM.")


@lab.test("1.2", "reports a failure to create the VM", points=4,
          hint="Which calls of vm_create can fail, and what does vm_destroy find then? Check every ioctl "
               "and mmap (-1, MAP_FAILED); the message has the call's name and the reason (strerror). Store "
               "each thing in *vm as soon as you have it: vm_destroy releases what it finds there.")
def vm_failures(plan: Plan) -> None:
    plan.unit("vm", "vm_failures", kvm=True)


# ---------------------------------------------------------------- 1.3 the vCPU

@lab.test("1.3", "creates the vCPU and maps its kvm_run", points=6,
          hint="Which descriptor does each call need, and how large is the mapping? KVM_CREATE_VCPU takes "
               "vcpu->index. KVM_GET_VCPU_MMAP_SIZE is a call on /dev/kvm and returns the size of the "
               "mapping. Map with MAP_SHARED, or KVM does not see what you write.")
def vcpu(plan: Plan) -> None:
    plan.unit("vm", "creates_vcpu", kvm=True)
    plan.unit("vm", "synced", kvm=True).symptom(
        lambda o: "kvm_valid_regs" in o.stdout,
        "Which register sets does KVM_CHECK_EXTENSION return for KVM_CAP_SYNC_REGS? Request in "
        "kvm_valid_regs only those of your two sets that are in that mask. A result below 0 is an error, "
        "not a mask: was the call made on /dev/kvm or on the VM?")


@lab.test("1.3", "sets the vCPU's CPUID", points=5,
          hint="Where does the table come from, how much room has it, and who gets it? "
               "KVM_GET_SUPPORTED_CPUID fills it, up to nent entries after the structure; KVM_SET_CPUID2 "
               "passes it to each vCPU, unchanged. Free it on every path.")
def cpuid(plan: Plan) -> None:
    plan.unit("vm", "cpuid", kvm=True)
    plan.unit("vm", "cpuid_freed", kvm=True)


@lab.test("1.3", "reports a failure to create the vCPU", points=4,
          hint="Which calls of vcpu_create can fail, and what does vcpu_destroy find then? Check every "
               "ioctl and mmap (-1, MAP_FAILED); the message has the call's name and the reason "
               "(strerror). Store each thing in *vcpu as soon as you have it: vcpu_destroy releases what it "
               "finds there.")
def vcpu_failures(plan: Plan) -> None:
    plan.unit("vm", "vcpu_failures", kvm=True)


# ---------------------------------------------------------------- 1.4 the real-mode state

@lab.test("1.4", "computes the real-mode state", points=8,
          hint="Does each field match the table in section 1.4 of the handout? All six segment registers "
               "have the same values, except for the type of CS. Set every general register.")
def state(plan: Plan) -> None:
    plan.unit("vm", "state")


@lab.test("1.4", "sets the vCPU's registers to that state", points=6,
          hint="Which registers must be read before they are set, and which of the calls can fail? The "
               "special registers keep every field that you don't change. Check KVM_GET_SREGS, "
               "KVM_SET_SREGS and KVM_SET_REGS.")
def state_set(plan: Plan) -> None:
    plan.unit("vm", "state_set", kvm=True)


# ---------------------------------------------------------------- 1.5 the run loop

@lab.test("1.5", "runs a guest to its HLT", points=4,
          hint="What does vcpu_exit return at KVM_EXIT_HLT? HLT ends the vCPU with status 0, which "
               "vcpu_end sets. The guest's results are in its final registers.")
def hlt(plan: Plan) -> None:
    plan.unit("vm", "hlt", kvm=True)
    numbers = [plan.values.number() for _ in range(plan.values.randint(5, 40))]
    sums = {"rax": sum(numbers) & 0xffffffff, "rbx": 0, "rcx": len(numbers), "rdx": numbers[-1]}
    for number in numbers:
        sums["rbx"] ^= number
    run = plan.boot(plan.guest("sum", NUMBERS=numbers), args=["--regs"])
    run.exits(0)
    run.registers(hint="The guest's sum is wrong: is all of its RAM mapped, and is the stack at the end of "
                       "the segment?", **sums)
    _start_state_symptoms(run)


@lab.test("1.5", "reads memory through every segment register", points=5,
          hint="Do base and selector of every segment register agree with the window? In real mode the base "
               "is 16 times the selector. What the guest read through CS, DS, ES, FS, GS, SS is in rax, "
               "rbx, rcx, rdx, rsi, rdi.")
def segments(plan: Plan) -> None:
    mark = plan.values.number()
    guest = plan.guest("segments", MARK=mark, PADDING=plan.values.randint(50, 4000))
    run = plan.boot(guest, args=["--regs"])
    run.exits(0)
    run.registers(rax=mark, rbx=mark, rcx=mark, rdx=mark, rsi=mark, rdi=mark)
    _start_state_symptoms(run)


@lab.test("1.5", "continues after a signal", points=2,
          hint="What does EINTR from KVM_RUN mean (api.rst 4.10)? A signal arrived: there was neither an "
               "error nor an exit, so don't use *run. Start the loop's next round from the top. "
               "KVM_EXIT_INTR means the same.")
def interrupted(plan: Plan) -> None:
    plan.unit("vm", "interrupted", kvm=True)


@lab.test("1.5", "ends the guest when KVM_RUN fails", points=2,
          hint="After which error of KVM_RUN may the loop continue? EINTR is the one error to continue "
               "after. Any other ends the guest by vcpu_crash, with the reason from errno.")
def run_error(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "run_error", kvm=True))


@lab.test("1.5", "calls stage_before_entry before each entry", points=3,
          hint="Is stage_before_entry called before every KVM_RUN, even after EINTR or an exit that had a "
               "handler? Later labs stop a vCPU and inject interrupts there. Enter the guest only if it "
               "returns STEP_RUN.")
def before_entry(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "before_entry", kvm=True))


@lab.test("1.5", "honours the results of later labs' exit handlers", points=1,
          hint="What does exit_dispatch return, and what do you do with it? Only STEP_UNHANDLED leaves the "
               "exit to you. Return a handler's STEP_RUN or STEP_END unchanged.")
def handlers(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "handlers", kvm=True))


@lab.test("1.5", "reports the port or address of an unknown access", points=2,
          hint="Which fields of kvm_run describe the access (api.rst section 5)? The message at KVM_EXIT_IO "
               "must name the port; at KVM_EXIT_MMIO it must give the address, and say whether the guest "
               "read or wrote. Your own message must say it: the line `exit:` is the kit's.")
def accesses(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "accesses", kvm=True))


@lab.test("1.5", "reports the VM-entry failure reason", points=3,
          hint="Where does kvm_run give the reason of a failed entry, and in which base is it readable? In "
               "hardware_entry_failure_reason, 64 bits wide; print it in hexadecimal.")
def fail_entry(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "fail_entry", kvm=True))


@lab.test("1.5", "reports the suberror and data of an internal error", points=3,
          hint="Which fields of run->internal are valid, and how long can their text get? suberror, and the "
               "first ndata words of data, which has room for 16. A word has up to 16 hexadecimal digits.")
def internal_error(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "internal_error", kvm=True))


@lab.test("1.5", "rejects every other exit reason", points=3,
          hint="What does your code do with an exit reason that it does not know? End the guest by "
               "vcpu_crash, and name the reason (exit_name): a guest whose exit is ignored hangs, or fails "
               "later without a message.")
def other_reasons(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "other_reasons", kvm=True))


@lab.test("1.5", "runs a guest that uses all of its RAM", points=3,
          hint="Where does the guest's RAM start, and where does it end? It must be one region from address "
               "0 on, of the size that --mem gives.")
def memory(plan: Plan) -> None:
    first, step, pages = plan.values.number(31), plan.values.number(16), plan.values.randint(200, 240)
    guest = plan.guest("memory", FIRST=first, STEP=step, PAGES=pages, OFFSET=plan.values.randrange(0, 4092))
    run = plan.boot(guest, args=["--regs", f"--mem={plan.values.randint(1, 8)}M"])
    run.exits(0)
    run.registers(rax=sum(first + step * page for page in range(pages)) & 0xffffffff, rcx=pages)
    _start_state_symptoms(run)


@lab.test("1.5", "ends a guest on a triple fault or an unknown access", points=2,
          hint="Which exits end this guest? A shutdown, and an access to an unknown port or address: each "
               "of them by vcpu_crash.")
def crashes(plan: Plan) -> None:
    halts = plan.boot(plan.guest("minimal"))
    halts.exits(0, hint="This guest executes HLT and nothing else: it must end with status 0.")
    offset = plan.values.randrange(0, 0xf000, 2)
    mmio = plan.boot(plan.guest("mmio", OFFSET=offset), args=["--mem=1M"])
    mmio.exits(STATUS_CRASHED, hint="An access outside of RAM (KVM_EXIT_MMIO) must end the guest by "
                                    "vcpu_crash: there is no device.")
    mmio.says(rf"0x0*{0x100000 + offset:x}\b", what=f"the address, 0x{0x100000 + offset:x}")
    port = plan.values.randrange(0x600, 0xf000)
    out = plan.boot(plan.guest("port", PORT=port))
    out.exits(STATUS_CRASHED, hint="An access to a port (KVM_EXIT_IO) must end the guest by vcpu_crash: lab "
                                   "1 has nothing at any port.")
    out.says(rf"0x0*{port:x}\b", what=f"the port, 0x{port:x}")
    fault = plan.boot(plan.guest("triple-fault"))
    fault.exits(STATUS_CRASHED, hint="KVM_EXIT_SHUTDOWN must end the guest by vcpu_crash. If you run the "
                                     "vCPU again, it starts from its reset state.")
    for run in (halts, mmio, out, fault):
        _before_the_guest(run)


# ---------------------------------------------------------------- 1.6 tear down

@lab.test("1.6", "releases every resource", points=4,
          hint="What did each function of 1.1 to 1.3 open or map? munmap kvm_run (all of its mapping) and "
               "the RAM; close the vCPU, the VM and /dev/kvm.")
def given_back(plan: Plan) -> None:
    plan.unit("vm", "given_back", kvm=True)


@lab.test("1.6", "allows a second call of the destroy functions", points=2,
          hint="What do the fields hold after the first call? After munmap and close, set each field to the "
               "value for \"nothing there\": -1 for a descriptor, NULL for a pointer.")
def twice(plan: Plan) -> None:
    plan.unit("vm", "twice", kvm=True)


@lab.test("1.6", "cleans up after a failed creation", points=2,
          hint="What do the fields hold if creation failed half-way? -1 and NULL mean that this part was "
               "never created: check before each close and munmap.")
def half_way(plan: Plan) -> None:
    plan.unit("vm", "half_way", kvm=True)


def _before_the_guest(run: Planned) -> None:
    """The VMM's own failures, which keep any guest from running."""
    run.symptom(lambda o: o.status in (STATUS_GUEST_FILE, STATUS_NO_KVM),
                "The guest did not run: the VMM's message says which step failed before that. Fix "
                "exercises 1.1 to 1.4 first.")


def _status_returned(unit: Planned) -> None:
    """The vCPU ended as it should, but vcpu_run returns something else."""
    unit.symptom(lambda o: re.search(r"vcpu_run returned \d+, and vcpu->status", o.stdout) is not None,
                 "What does vcpu_run return? It must be vcpu->status, which vcpu_end or vcpu_crash has "
                 "set.")


def _start_state_symptoms(run: Planned) -> None:
    """Symptoms of an incomplete start state."""
    _before_the_guest(run)

    def left_at_reset(outcome: Outcome) -> bool:
        found = outcome.registers.get(0)
        return found is not None and found.segments.get("cs", {}).get("base") == 0xffff0000

    run.symptom(left_at_reset,
                "CS still has its reset base, 0xffff0000, where there is no RAM. Are base and selector of "
                "all segment registers those of the window, and was KVM_SET_SREGS called after you set "
                "them?")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor rejected the start state: set all fields of section 1.4's table, including "
                "type and limit, and those of TR and LDT.")
    run.symptom(lambda o: o.said("exit: KVM_EXIT_SHUTDOWN|exit: KVM_EXIT_MMIO"),
                "Which instruction crashed the guest? make explain shows it, with what it accessed. Do base, "
                "selector and limit of that segment register agree, and does RAM reach that far?")


# ---------------------------------------------------------------- what `make lab1` boots

lab.demonstrations = [
    Demonstration("The smallest guest: one HLT", ("minimal",), ("--regs",)),
    Demonstration("1 + 2 + ... + 10, the sum in EAX", ("sum",), ("--regs",)),
]
