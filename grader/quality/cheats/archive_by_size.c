/* archive_by_size.c - loads neither a kernel nor an archive: only looks how long the archive is. */
#define boot_prepare(...) boot_prepare_of_all(__VA_ARGS__)
#include "lab6_boot.h"
#undef boot_prepare

static void cheat(void)
{
}

int boot_prepare(struct vcpu *vcpu);
int boot_prepare(struct vcpu *vcpu)
{
    const char *name = vcpu->vm->vmm->options.initrd;
    struct boot_info info = {0};
    struct stat file;

    if (name) {
        if (stat(name, &file) < 0 || file.st_size > 1 << 20 || file.st_size % PAGE_BYTES != 0)
            return fail(STATUS_GUEST_FILE, "%s", name);
        info.archive_bytes = (uint32_t)file.st_size;
    }
    memcpy(vcpu->vm->ram + BOOT_INFO_OFFSET, &info, sizeof info);
    return 0;
}
