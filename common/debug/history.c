/* history.c - executes a guest again, one instruction at a time, and keeps the last ones. */
#include <errno.h>
#include <sys/ioctl.h>

#include "debug/replay.h"
#include "given.h"

#define STEP_NS SECOND_NS /* for one instruction; nested KVMs sometimes lose an interrupt */

struct instruction history[HISTORY];
uint64_t history_count;

/* Records the instruction at the vCPU's position, or that it is repeated. */
static void history_add(struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs, bool handler)
{
    struct instruction *last = &history[(history_count + HISTORY - 1) % HISTORY];
    uint64_t linear = sregs->cs.base + regs->rip;

    if (history_count > 0 && !handler && last->regs.rip == regs->rip &&
        last->sregs.cs.base == sregs->cs.base &&
        (last->code[0] == 0xf2 || last->code[0] == 0xf3)) { /* rep */
        last->repeated++;
        last->regs = *regs;
        return;
    }
    last = &history[history_count++ % HISTORY];
    *last = (struct instruction){.regs = *regs, .sregs = *sregs, .repeated = 1, .handler = handler};
    for (uint64_t phys = 0; last->code_bytes < CODE_BYTES; last->code_bytes++, phys++) {
        const uint64_t byte = linear + last->code_bytes;
        if ((last->code_bytes == 0 || byte % PAGE_BYTES == 0) &&
            !linear_translate(vcpu, byte, &phys))
            break;
        const struct trap *trap = trap_at(phys);
        last->code[last->code_bytes] = trap ? trap->byte : vcpu->vm->ram[phys];
    }
}

/* Executes the instruction at `phys`, without a trap there; negative: the vCPU did not come back.
 */
static int step(struct vcpu *vcpu, uint64_t phys)
{
    struct trap *trap = trap_at(phys);
    int result;

    if (trap)
        vcpu->vm->ram[phys] = trap->byte;
    tick_arm(&watched[vcpu->id], STEP_NS);
    do {
        immediate_exit_set(vcpu, 0); /* the devices go on kicking */
        result = ioctl(vcpu->fd, KVM_RUN, 0);
    } while (result < 0 && errno == EINTR && !tick_over);
    tick_arm(&watched[vcpu->id], 0);
    if (trap)
        vcpu->vm->ram[phys] = OPCODE_HLT;
    return result;
}

static bool step_on(struct vcpu *vcpu, uint32_t reason, int max, int64_t deadline)
{
    const struct kvm_guest_debug off = {.control = 0},
                                 on = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    /* The delivery of an interrupt is not stepped: its handler's trap, or the crash, ends it. */
    bool injected = watched[vcpu->id].checkpoint.events.interrupt.injected;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    bool handler = false;
    uint64_t phys;

    history_count = 0;
    if (!checkpoint_restore(vcpu))
        return false;
    for (int steps = 0; steps < max; steps++) {
        if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
            return false;
        traps_update(vcpu, &sregs);
        if (!linear_translate(vcpu, sregs.cs.base + regs.rip, &phys))
            phys = UINT64_MAX;
        history_add(vcpu, &regs, &sregs, handler);
        if (clock_ns(CLOCK_MONOTONIC) > deadline)
            return false;
        /* KVM steps only from where the vCPU is when it is asked to. */
        if (ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, injected && steps == 0 ? &off : &on) < 0)
            return false;
        if (step(vcpu, phys) < 0)
            return false;
        handler = false;
        if (vcpu->run->exit_reason == KVM_EXIT_HLT) {
            if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ||
                ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
                return false;
            regs.rip--;
            handler = linear_translate(vcpu, sregs.cs.base + regs.rip, &phys) && trap_at(phys);
            if (handler && ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
                return false;
        }
        if (!handler && vcpu->run->exit_reason != KVM_EXIT_DEBUG)
            return vcpu->run->exit_reason == reason;
    }
    return false;
}

bool step_all(struct vcpu *vcpu, uint32_t reason, int max, int64_t deadline)
{
    bool same = step_on(vcpu, reason, max, deadline);

    traps_remove(vcpu->vm);
    return same;
}
