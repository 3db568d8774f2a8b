"""Lab 1, real-mode boot: the module's functions one by one, then guests on the whole VMM.

Lab 1 has no hypercalls: what a guest did is read from the final registers, which the kit prints.
"""

from __future__ import annotations

import re

from grader.core.framework import Demonstration, Lab
from grader.core.judge import THIRD_ARGUMENT
from grader.core.outcome import STATUS_CRASHED, STATUS_GUEST_FILE, STATUS_NO_KVM, Outcome
from grader.core.plan import Plan, Planned

lab = Lab(1, "real-mode boot", needs=("real",))


# ---------------------------------------------------------------- 1.1 open /dev/kvm

@lab.test("1.1", "opens /dev/kvm", points=5,
          hint="open(\"/dev/kvm\", O_RDWR | O_CLOEXEC) goes into vm->kvm_fd; 0 is returned when all is well.")
def opens(plan: Plan) -> None:
    plan.unit("vm", "opens").symptom(lambda o: o.said(r"version -1\b"), THIRD_ARGUMENT)


@lab.test("1.1", "rejects any other API version", points=4,
          hint="KVM_GET_API_VERSION must answer KVM_API_VERSION (12). With any other answer the VMM must "
               "end: return fail(STATUS_NO_KVM, ...).")
def version(plan: Plan) -> None:
    plan.unit("vm", "version")


@lab.test("1.1", "rejects a KVM that lacks a required capability", points=3,
          hint="KVM_CHECK_EXTENSION returns 0 for what this KVM lacks, any number over 0 for what it has: "
               "ask it for each capability that the VMM needs, and fail with STATUS_NO_KVM and its name.")
def capabilities(plan: Plan) -> None:
    plan.unit("vm", "capabilities")


@lab.test("1.1", "reports why /dev/kvm can't be opened", points=3,
          hint="open returns -1 and errno says why: fail(STATUS_NO_KVM, \"...: %s\", strerror(errno)).")
def no_device(plan: Plan) -> None:
    plan.unit("vm", "no_device")


# ---------------------------------------------------------------- 1.2 the VM and its RAM

@lab.test("1.2", "maps the guest's RAM and registers it with KVM", points=8,
          hint="mmap anonymous memory of ram_bytes (it is page-aligned; malloc's is not), and register it by "
               "KVM_SET_USER_MEMORY_REGION: slot 0, guest_phys_addr 0, memory_size, userspace_addr. Keep "
               "vm->fd, vm->ram and vm->ram_bytes.")
def ram(plan: Plan) -> None:
    unit = plan.unit("vm", "maps_ram")
    unit.symptom(lambda o: o.said("USER_MEMORY_REGION.*Invalid argument"),
                 "KVM refused the memory region with EINVAL. Its userspace_addr, guest_phys_addr and "
                 "memory_size must be multiples of the page size (4096): memory from malloc or calloc is "
                 "not page-aligned, memory from mmap is. Is every field of the structure set, even flags?")


@lab.test("1.2", "sets the TSS and identity-map addresses for Intel", points=3,
          hint="KVM_SET_TSS_ADDR takes the address itself as argument, KVM_SET_IDENTITY_MAP_ADDR a pointer "
               "to a 64-bit number that holds it. Both come before the first vCPU.")
def addresses(plan: Plan) -> None:
    plan.unit("vm", "addresses").symptom(
        lambda o: "vm_create failed at something else" in o.stdout,
        "The addresses are not the cause: vm_create fails before it sets them. See its message and the test "
        "of the RAM.")


@lab.test("1.2", "reports a failure to create the VM", points=4,
          hint="Every ioctl and every mmap can fail (-1, MAP_FAILED): check each, and return "
               "fail(STATUS_NO_KVM, \"...: %s\", strerror(errno)). Keep each thing in *vm as soon as you "
               "have it: vm_destroy looks there.")
def vm_failures(plan: Plan) -> None:
    plan.unit("vm", "vm_failures")


# ---------------------------------------------------------------- 1.3 the vCPU

@lab.test("1.3", "creates the vCPU and maps its kvm_run", points=6,
          hint="KVM_CREATE_VCPU on vm->fd with the number vcpu->index; then mmap KVM_GET_VCPU_MMAP_SIZE "
               "bytes (asked of vm->kvm_fd) of vcpu->fd, MAP_SHARED.")
def vcpu(plan: Plan) -> None:
    plan.unit("vm", "creates_vcpu")
    plan.unit("vm", "synced").symptom(
        lambda o: "kvm_valid_regs" in o.stdout,
        "Ask in kvm_valid_regs for those registers only whose bits are in KVM_CHECK_EXTENSION's answer for "
        "KVM_CAP_SYNC_REGS: answer & (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS). An answer below 0 is an "
        "error and offers none: was it asked of /dev/kvm or of the VM?")


@lab.test("1.3", "sets the vCPU's CPUID", points=5,
          hint="KVM_GET_SUPPORTED_CPUID (on vm->kvm_fd) fills a struct kvm_cpuid2 with room for nent "
               "entries after it; KVM_SET_CPUID2 passes it to the vCPU; then it is freed.")
def cpuid(plan: Plan) -> None:
    plan.unit("vm", "cpuid")
    plan.unit("vm", "cpuid_freed")


@lab.test("1.3", "reports a failure to create the vCPU", points=4,
          hint="Every ioctl and every mmap can fail (-1, MAP_FAILED): check each, and return "
               "fail(STATUS_NO_KVM, \"...: %s\", strerror(errno)). Keep each thing in *vcpu as soon as you "
               "have it: vcpu_destroy looks there.")
def vcpu_failures(plan: Plan) -> None:
    plan.unit("vm", "vcpu_failures")


# ---------------------------------------------------------------- 1.4 the real-mode state

@lab.test("1.4", "computes the real-mode state", points=8,
          hint="Set each field as in the table of section 1.4 of the handout. All six segment registers have "
               "the same values, except for the type of CS; every general register is set.")
def state(plan: Plan) -> None:
    plan.unit("vm", "state")


@lab.test("1.4", "sets the vCPU's registers to that state", points=6,
          hint="KVM_GET_SREGS, real_mode_state, KVM_SET_SREGS and KVM_SET_REGS, each of them checked.")
def state_set(plan: Plan) -> None:
    plan.unit("vm", "state_set")


# ---------------------------------------------------------------- 1.5 the run loop

@lab.test("1.5", "runs a guest to its HLT", points=4,
          hint="KVM_EXIT_HLT ends the vCPU with status 0: vcpu_end(vcpu, 0). The guest's results are in "
               "its final registers.")
def hlt(plan: Plan) -> None:
    plan.unit("vm", "hlt")
    numbers = [plan.values.number() for _ in range(plan.values.randint(5, 40))]
    sums = {"rax": sum(numbers) & 0xffffffff, "rbx": 0, "rcx": len(numbers), "rdx": numbers[-1]}
    for number in numbers:
        sums["rbx"] ^= number
    run = plan.boot(plan.guest("sum", NUMBERS=numbers), args=["--regs"])
    run.exits(0)
    run.registers(hint="The guest's sum is wrong: is all of RAM where it belongs, and the stack at the end "
                  "of the segment?", **sums)
    _start_state_symptoms(run)


@lab.test("1.5", "boots a guest that reads through all segments", points=5,
          hint="Each segment register needs base and selector of the window: base = selector << 4. What the "
               "guest found through CS, DS, ES, FS, GS, SS is in rax, rbx, rcx, rdx, rsi, rdi.")
def segments(plan: Plan) -> None:
    mark = plan.values.number()
    guest = plan.guest("segments", MARK=mark, PADDING=plan.values.randint(50, 4000))
    run = plan.boot(guest, args=["--regs"])
    run.exits(0)
    run.registers(rax=mark, rbx=mark, rcx=mark, rdx=mark, rsi=mark, rdi=mark)
    _start_state_symptoms(run)


@lab.test("1.5", "continues after a signal", points=2,
          hint="KVM_RUN fails with EINTR when a signal arrives. That is neither an error nor an exit: go "
               "back to the top of the loop without reading *run. KVM_EXIT_INTR means the same.")
def interrupted(plan: Plan) -> None:
    plan.unit("vm", "interrupted")


@lab.test("1.5", "ends the guest when KVM_RUN fails", points=2,
          hint="EINTR is the one error of KVM_RUN to continue after. Any other ends the guest: vcpu_crash "
               "with strerror(errno).")
def run_error(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "run_error"))


@lab.test("1.5", "calls stage_before_entry before each entry", points=3,
          hint="stage_before_entry comes before every KVM_RUN, even after EINTR: later labs stop a vCPU and "
               "inject interrupts there. Enter the guest only if it returns STEP_RUN.")
def before_entry(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "before_entry"))


@lab.test("1.5", "honours the results of later labs' exit handlers", points=1,
          hint="What does exit_dispatch return, and what is done with it? Only after STEP_UNHANDLED is the "
               "exit yours to handle: return STEP_RUN and STEP_END from a handler as they are.")
def handlers(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "handlers"))


@lab.test("1.5", "reports the port or address of an unknown access", points=2,
          hint="KVM_EXIT_IO: vcpu_crash with run->io.port. KVM_EXIT_MMIO: vcpu_crash with "
               "run->mmio.phys_addr, and whether it read or wrote (run->mmio.is_write). The line `exit:` is "
               "the kit's, not yours.")
def accesses(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "accesses"))


@lab.test("1.5", "reports the VM-entry failure reason", points=3,
          hint="KVM_EXIT_FAIL_ENTRY: vcpu_crash with run->fail_entry.hardware_entry_failure_reason, in "
               "hexadecimal (%llx).")
def fail_entry(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "fail_entry"))


@lab.test("1.5", "reports the suberror and data of an internal error", points=3,
          hint="KVM_EXIT_INTERNAL_ERROR: vcpu_crash with run->internal.suberror and the first ndata words of "
               "run->internal.data, which has 16.")
def internal_error(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "internal_error"))


@lab.test("1.5", "rejects every other exit reason", points=3,
          hint="The default of the switch over exit_reason is vcpu_crash with exit_name(run->exit_reason): "
               "a guest whose exit is ignored hangs, or silently goes wrong.")
def other_reasons(plan: Plan) -> None:
    _status_returned(plan.unit("vm", "other_reasons"))


@lab.test("1.5", "runs a guest that uses all of its RAM", points=3,
          hint="RAM must be one piece from address 0 on, of the size that --mem says.")
def memory(plan: Plan) -> None:
    first, step, pages = plan.values.number(31), plan.values.number(16), plan.values.randint(200, 240)
    guest = plan.guest("memory", FIRST=first, STEP=step, PAGES=pages, OFFSET=plan.values.randrange(0, 4092))
    run = plan.boot(guest, args=["--regs", f"--mem={plan.values.randint(1, 8)}M"])
    run.exits(0)
    run.registers(rax=sum(first + step * page for page in range(pages)) & 0xffffffff, rcx=pages)
    _start_state_symptoms(run)


@lab.test("1.5", "ends a guest on a triple fault or an unknown access", points=2,
          hint="A shutdown, and an access to an unknown port or address: each ends this guest by vcpu_crash.")
def crashes(plan: Plan) -> None:
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
    fault.exits(STATUS_CRASHED, hint="KVM_EXIT_SHUTDOWN is the end of the guest: vcpu_crash. (A vCPU that "
                                     "is run again after it starts from reset.)")
    for run in (mmio, out, fault):
        _before_the_guest(run)


# ---------------------------------------------------------------- 1.6 tear down

@lab.test("1.6", "releases every resource", points=4,
          hint="vcpu_destroy: munmap kvm_run (vcpu->run_bytes of it), close the vCPU. vm_destroy: munmap the "
               "RAM, close VM and /dev/kvm.")
def given_back(plan: Plan) -> None:
    plan.unit("vm", "given_back")


@lab.test("1.6", "can be called twice", points=2,
          hint="After munmap and close set each field to \"nothing there\": -1 a descriptor, NULL a pointer.")
def twice(plan: Plan) -> None:
    plan.unit("vm", "twice")


@lab.test("1.6", "cleans up after a failed creation", points=2,
          hint="A creation can fail half-way: fd -1 and a NULL pointer mean that this part is not there. "
               "Check before each close and munmap.")
def half_way(plan: Plan) -> None:
    plan.unit("vm", "half_way")


def _before_the_guest(run: Planned) -> None:
    """The VMM's own failures, which keep any guest from running."""
    run.symptom(lambda o: o.status in (STATUS_GUEST_FILE, STATUS_NO_KVM),
                "The guest did not run: the VMM's message says what failed before. Fix exercises 1.1 to 1.4 "
                "first.")


def _status_returned(unit: Planned) -> None:
    """The vCPU ended as it should, but vcpu_run returns something else."""
    unit.symptom(lambda o: re.search(r"vcpu_run returned \d+, and vcpu->status", o.stdout) is not None,
                 "vcpu_run returns vcpu->status, which vcpu_end and vcpu_crash have set.")


def _start_state_symptoms(run: Planned) -> None:
    """Symptoms of an incomplete start state."""
    _before_the_guest(run)

    def left_at_reset(outcome: Outcome) -> bool:
        found = outcome.registers.get(0)
        return found is not None and found.segments.get("cs", {}).get("base") == 0xffff0000

    run.symptom(left_at_reset,
                "CS still has its reset base, 0xffff0000, where there is no RAM. KVM_GET_SREGS, set base "
                "and selector of CS (and of the others) to the window's, KVM_SET_SREGS.")
    run.symptom(lambda o: o.said("FAIL_ENTRY"),
                "The processor refused the start state: set all fields of section 1.4's table, "
                "including type and limit, and those of TR and LDT.")


# ---------------------------------------------------------------- what `make lab1` boots

lab.demonstrations = [
    Demonstration("The smallest guest: one HLT", ("minimal",), ("--regs",)),
    Demonstration("1 + 2 + ... + 10, the sum in EAX", ("sum",), ("--regs",)),
]
