/* guest.c - guests: their files, their kind, their way into RAM. */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

int guest_read(struct guest *guest, enum guest_kind flat, size_t max)
{
    int status = file_read(guest->path, max, &guest->image, &guest->image_bytes);

    if (status != 0)
        return status;
    bool elf = guest->image_bytes >= SELFMAG && memcmp(guest->image, ELFMAG, SELFMAG) == 0;
    guest->kind = elf ? GUEST_ELF : flat;
    if (!stage.prepare[guest->kind])
        return fail(STATUS_GUEST_FILE, "%s: the VMM of lab %d can't run %s yet", guest->path,
                    stage.lab, elf ? "an ELF file (lab 6 can)" : "a guest with paging (lab 5 can)");
    return 0;
}

bool ram_write(struct vm *vm, uint64_t phys, const void *bytes, size_t count)
{
    if (phys > vm->ram_bytes || count > vm->ram_bytes - phys)
        return false;
    memcpy(vm->ram + phys, bytes, count);
    return true;
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
        return fail(STATUS_NO_KVM, "can't read the start state back: %s", strerror(errno));
    return status;
}

enum step vcpu_end(struct vcpu *vcpu, int status)
{
    vcpu->status = status;
    return STEP_END;
}
