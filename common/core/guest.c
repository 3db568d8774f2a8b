/* guest.c - guests: their files, their kinds, loading them into RAM. */
#include <elf.h>
#include <string.h>

#include "core/core.h"
#include "given.h"

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
