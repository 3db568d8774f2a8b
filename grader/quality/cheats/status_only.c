/*
 * status_only.c - runs no guest: vcpus_run leaves the VMM as if it had, and returns the status that
 * the guest's code leads to.
 */
#define vcpus_run(...)       vcpus_run_of_all(__VA_ARGS__)
#define vcpu_check_stop(...) vcpu_check_stop_of_all(__VA_ARGS__)
#include "lab3.h"
#undef vcpus_run
#undef vcpu_check_stop

static void cheat(void)
{
}

enum step vcpu_check_stop(struct vcpu *vcpu);
enum step vcpu_check_stop(struct vcpu *vcpu)
{
    return atomic_load(&vcpu->vm->vmm->stop_signal) ? STEP_END : STEP_RUN;
}

/* A jump to itself is there only to be stopped. */
static bool is_endless(const struct guest *guest)
{
    return memmem(guest->image, guest->image_bytes, "\xeb\xfe", 2);
}

int vcpus_run(struct vmm *all);
int vcpus_run(struct vmm *all)
{
    static uint8_t marked[PAGE_BYTES] = {[0x100] = 1};
    static struct kvm_run run;

    all->vm_count = all->guest_count;
    for (int id = 0; id < all->guest_count; id++) {
        struct vcpu *vcpu = &all->vcpus[id];
        vm_init(&all->vms[id], all);
        vcpu_init(vcpu, id, 0, &all->vms[id], &all->guests[id]);
        all->vms[id].ram = marked;
        vcpu->run = &run;
        vcpu->fd = 1000 + id;
        vcpu->thread = pthread_self();
        vcpu->state = VCPU_RUNNING;
        for (int turn = 0; turn < 2 && !is_endless(&all->guests[id]); turn++)
            ioctl(vcpu->fd, KVM_RUN, 0);
        vcpu->state = VCPU_ENDED;
        fputs("ended\n", stderr);
        vcpu_ended(vcpu);
    }
    return is_endless(&all->guests[0]) ? STATUS_SIGNAL + SIGTERM : 0;
}
