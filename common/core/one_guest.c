/* one_guest.c - labs 1 and 2: one guest in the window at 0, on the program's only thread. */
#include "core/core.h"
#include "lab1.h"

int one_guest_prepare(struct vcpu *vcpu)
{
    if (vcpu->guest->image_bytes > WINDOW_BYTES)
        return fail(STATUS_GUEST_FILE, "%s is too large for its window of 256 KB",
                    vcpu->guest->path);
    if (!ram_write(vcpu->vm, 0, vcpu->guest->image, vcpu->guest->image_bytes))
        return fail(STATUS_GUEST_FILE, "%s has %zu bytes, but RAM (vm->ram_bytes) only %zu",
                    vcpu->guest->path, vcpu->guest->image_bytes, vcpu->vm->ram_bytes);
    return vcpu_set_real_mode(vcpu, 0);
}

int one_guest_run(struct vmm *vmm)
{
    struct vm *vm = &vmm->vms[0];
    struct vcpu *vcpu = &vmm->vcpus[0];

    vmm->vm_count = 1;
    vm_init(vm, vmm);
    vcpu_init(vcpu, 0, 0, vm, &vmm->guests[0]);
    int status = kvm_open(vm);
    if (status == 0)
        status = vm_create(vm, vmm->options.ram_bytes);
    if (status == 0)
        status = vcpu_create(vcpu);
    if (status == 0)
        status = vcpu_prepare(vcpu);
    if (status == 0) {
        status = vcpu_run(vcpu);
        vcpu_ended(vcpu);
    }
    vcpu_destroy(vcpu);
    vm_destroy(vm);
    return status;
}
