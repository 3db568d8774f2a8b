/* guest.c - guests: their files, their kinds, loading them into RAM. */
#include <elf.h>
#include <string.h>

#include "core/core.h"
#include "given.h"

/* A bzImage: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
#define LINUX_MAGIC        "HdrS"
#define LINUX_MAGIC_OFFSET 0x202

static bool starts_with(const struct guest *guest, size_t offset, const char *magic)
{
    const size_t bytes = strlen(magic);

    return guest->image_bytes >= offset + bytes && memcmp(guest->image + offset, magic, bytes) == 0;
}

/* An ELF file's class chooses the mode that its kernel starts in; what has no magic is flat. */
static enum guest_kind kind_of(const struct guest *guest, enum guest_kind flat)
{
    if (starts_with(guest, LINUX_MAGIC_OFFSET, LINUX_MAGIC))
        return GUEST_LINUX;
    if (!starts_with(guest, 0, ELFMAG))
        return flat;
    return guest->image_bytes > EI_CLASS && guest->image[EI_CLASS] == ELFCLASS64 ? GUEST_ELF64
                                                                                 : GUEST_ELF;
}

int guest_read(struct guest *guest, enum guest_kind flat, size_t max)
{
    static const char *const kinds[GUEST_KINDS] = {
        [GUEST_PAGING] = "a guest with paging (lab 5 can)",
        [GUEST_ELF] = "an ELF file (lab 6 can)",
        [GUEST_ELF64] = "a 64-bit ELF file (lab 7 can)",
        [GUEST_LINUX] = "a Linux kernel (lab 8 can)",
    };
    int status = file_read(guest->path, max, &guest->image, &guest->image_bytes);

    if (status != 0)
        return status;
    guest->kind = kind_of(guest, flat);
    if (!stage.prepare[guest->kind])
        return fail(STATUS_GUEST_FILE, "%s: the VMM of lab %d can't run %s yet", guest->path,
                    stage.lab, kinds[guest->kind]);
    return 0;
}

bool ram_write(struct vm *vm, uint64_t phys, const void *bytes, size_t count)
{
    if (phys > vm->ram_bytes || count > vm->ram_bytes - phys)
        return false;
    memcpy(vm->ram + phys, bytes, count);
    return true;
}
