/* long_guest.h - what the stages from lab 7 on have in common: 64-bit guests from an ELF file. */
#pragma once

#include <errno.h>
#include <inttypes.h>

#include "lab7.h"

/* The pages of --map and --unmap. */
static int map_options(const struct options *options, struct address_space *space)
{
    for (size_t i = 0; i < options->mapping_count; i++) {
        const struct page_mapping *page = &options->mappings[i];
        int error = long_page_map(space, page->virt, page->phys, page->flags);
        if (error != 0)
            return fail(STATUS_USAGE, "can't map 0x%" PRIx64 " to 0x%" PRIx32 ": %s", page->virt,
                        page->phys,
                        error == ENOMEM ? "no page table is left"
                                        : "not canonical, or outside of the guest's memory");
    }
    return 0;
}

/* Loads an ELF64 guest into its part of RAM and enters it. */
static int prepare_long(struct vcpu *vcpu)
{
    const struct guest *guest = vcpu->guest;
    struct address_space space;
    uint64_t entry;
    int status = space_open(vcpu, &space);

    if (status != 0)
        return status;
    const char *wrong =
        elf64_load(guest->image, guest->image_bytes, space.memory, space.bytes, &entry);
    if (wrong)
        return fail(STATUS_GUEST_FILE, "%s: %s", guest->path, wrong);
    status = long_mode_enter(vcpu, &space, entry);
    return status != 0 ? status : map_options(&vcpu->vm->vmm->options, &space);
}

/* Translates by the learner's walk, and prints it. */
static bool translate_long(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear,
                           uint64_t *phys, FILE *out)
{
    static const char *const levels[] = {"PML4", "PDPT", "PD", "table"};
    const struct long_walk walk =
        long_walk(vcpu->vm->ram, vcpu->vm->ram_bytes, sregs->cr3, sregs->efer, linear);

    *phys = walk.phys;
    if (!out)
        return walk.mapped;
    fprintf(out, "  page walk of 0x%016" PRIx64 ": cr3 %08llx", linear, sregs->cr3);
    for (unsigned i = 0; i < walk.levels && i < 4; i++)
        fprintf(out, ", %s[%u] = %016" PRIx64, levels[i],
                (unsigned)(linear >> (39 - 9 * i)) % LONG_TABLE_ENTRIES, walk.entries[i]);
    if (walk.mapped)
        fprintf(out, ": at 0x%" PRIx64 ", %s, %s, %s\n", walk.phys,
                walk.writable ? "writable" : "read-only", walk.user ? "user" : "kernel",
                walk.executable ? "executable" : "no execute");
    else
        fprintf(out, ": not mapped: %s\n", walk.reason);
    return walk.mapped;
}
