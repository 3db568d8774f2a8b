/* vcpu.c - a vCPU's state from its creation to its end, and the stage's hooks on the way. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/core.h"
#include "debug/debug.h"
#include "given.h"

const struct observer *observers[OBSERVERS_MAX + 1];

void observer_add(const struct observer *observer)
{
    size_t count = 0;

    while (observers[count] && observers[count] != observer)
        count++;
    if (count < OBSERVERS_MAX)
        observers[count] = observer;
}

void vm_init(struct vm *vm, struct vmm *vmm)
{
    *vm = (struct vm){.vmm = vmm, .kvm_fd = -1, .fd = -1};
}

void vcpu_init(struct vcpu *vcpu, int id, int index, struct vm *vm, struct guest *guest)
{
    memset(vcpu, 0, sizeof *vcpu);
    vcpu->id = id;
    vcpu->index = index;
    vcpu->vm = vm;
    vcpu->guest = guest;
    vcpu->fd = -1;
    pthread_mutex_init(&vcpu->lock, NULL);
    pthread_cond_init(&vcpu->wake, NULL);
    vcpu->exit.reason = vcpu->exit_before.reason = EXIT_NONE;
}

int vcpu_prepare(struct vcpu *vcpu)
{
    int status = stage.prepare[vcpu->guest->kind](vcpu);

    if (status == 0 && (ioctl(vcpu->fd, KVM_GET_REGS, &vcpu->known_regs) < 0 ||
                        ioctl(vcpu->fd, KVM_GET_SREGS, &vcpu->known_sregs) < 0))
        return fail(STATUS_NO_KVM, "can't read back the start state: %s", strerror(errno));
    return status;
}

enum step stage_before_entry(struct vcpu *vcpu)
{
    where_set(vcpu, true);
    OBSERVE(before_hooks, vcpu);
    if (OBSERVED(ends, vcpu))
        return STEP_END;
    for (size_t i = 0; i < sizeof stage.before_entry / sizeof stage.before_entry[0]; i++) {
        enum step step = stage.before_entry[i] ? stage.before_entry[i](vcpu) : STEP_RUN;
        if (step != STEP_RUN)
            return step;
    }
    OBSERVE(entry, vcpu);
    return STEP_RUN;
}

enum step exit_dispatch(struct vcpu *vcpu)
{
    uint32_t reason = vcpu->run->exit_reason;

    if (OBSERVED(take_exit, vcpu))
        return STEP_RUN;
    OBSERVE(exit, vcpu);
    exit_note(vcpu);
    /* A guest that waits, or asks for input, may be answered by someone who has read what it
     * printed. */
    if (reason == KVM_EXIT_HLT ||
        (reason == KVM_EXIT_IO && vcpu->run->io.direction == KVM_EXIT_IO_IN))
        output_flush();
    if (reason >= EXIT_REASONS_MAX || !stage.on_exit[reason])
        return STEP_UNHANDLED;
    return stage.on_exit[reason](vcpu);
}

enum step vcpu_end(struct vcpu *vcpu, int status)
{
    vcpu->status = status;
    return STEP_END;
}

void vcpu_ended(struct vcpu *vcpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    where_set(vcpu, false);
    OBSERVE(ended, vcpu);
    if (vcpu->vm->vmm->options.final_registers && vcpu->status != STATUS_CRASHED &&
        ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0) {
        output_flush();
        flockfile(stderr);
        registers_print(vcpu->id, &regs, &sregs);
        funlockfile(stderr);
    }
    if (stage.on_end)
        stage.on_end(vcpu);
}
