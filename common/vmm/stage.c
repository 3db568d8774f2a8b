/*
 * stage.c - what the VMM of each lab is made of. The Makefile compiles it with -DLAB=1 to 6 and
 * links the modules up to that lab.
 */
#include "vmm.h"

#if LAB < 3
/* Until lab 3 there is one guest, in the window at 0, on the program's only thread. */
static int first_window_prepare(struct vcpu *vcpu)
{
    if (vcpu->guest->image_bytes > WINDOW_BYTES)
        return fail(STATUS_GUEST_FILE, "%s is too large for its window of 256 KB",
                    vcpu->guest->path);
    if (!ram_write(vcpu->vm, 0, vcpu->guest->image, vcpu->guest->image_bytes))
        return fail(STATUS_GUEST_FILE, "%s has %zu bytes, and RAM (vm->ram_bytes) only %zu",
                    vcpu->guest->path, vcpu->guest->image_bytes, vcpu->vm->ram_bytes);
    return vcpu_set_real_mode(vcpu, 0);
}

static int run_one(struct vmm *vmm)
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
#endif

#if LAB == 2
static void console_write(struct vcpu *vcpu, const char *bytes, size_t count)
{
    stdout_write(bytes, count);
}
#endif

const struct stage stage = {
    .lab = LAB,
#if LAB < 3
    .guests_max = 1,
    .prepare = {[GUEST_REAL] = first_window_prepare},
    .run = run_one,
#else
    .guests_max = VCPUS_MAX,
    .prepare =
        {
            [GUEST_REAL] = window_prepare,
#if LAB >= 5
            [GUEST_PAGING] = paging_prepare,
#endif
#if LAB >= 6
            [GUEST_ELF] = boot_prepare,
#endif
        },
    .run = vcpus_run,
    .before_entry =
        {
            vcpu_check_stop,
#if LAB >= 4
            interrupt_deliver,
#endif
        },
    .console_write = console_write_lines,
#endif
#if LAB == 2
    .console_write = console_write,
#endif
#if LAB >= 2
    .on_exit =
        {
            [KVM_EXIT_IO] = hypercall_io,
#if LAB >= 4
            [KVM_EXIT_HLT] = interrupt_halt,
            [KVM_EXIT_IRQ_WINDOW_OPEN] = interrupt_window_open,
#endif
        },
#endif
#if LAB >= 4
    .getchar = keyboard_getchar,
    .devices_start = devices_start,
    .devices_stop = devices_stop,
    .on_end = keyboard_pass_on,
#elif LAB >= 2
    .getchar = stdin_getchar,
#endif
#if LAB >= 5
    .translate = paging_translate,
#endif
};
