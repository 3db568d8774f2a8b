/*
 * paging.c - lab 5: 32-bit protected mode with paging: descriptors, page tables, the start state,
 * and the page walk in software. "SDM" is vol. 3 of Intel's manual.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lab5.h"

#define TSS_BYTES   104
#define GDT_ENTRIES 6
#define LIMIT_1MB   0xfffffu
#define RIGHTS      (PAGE_WRITABLE | PAGE_USER)

/* ------------------------------------------------------------------ descriptors */

/* Exercise 5.1: SDM 3.4.5, figure "Segment Descriptor". */
uint64_t descriptor_encode(const struct descriptor *descriptor)
{
    TODO("5.1");
}

/*
 * Exercise 5.1: the processor keeps a segment's descriptor in the hidden part of the register
 * (SDM 3.4.3), where the limit is in bytes whatever G says. KVM_SET_SREGS sets that hidden part.
 */
struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector)
{
    TODO("5.1");
}

/* Exercise 5.1: flat segments for kernel and user, and the TSS, which a trap from ring 3 needs. */
void gdt_build(struct address_space *space)
{
    TODO("5.1");
}

/* ------------------------------------------------------------------ page tables */

/* The directory or the page table at this offset into the space. */
static uint32_t *table_at(const struct address_space *space, uint32_t offset)
{
    return (uint32_t *)(void *)(space->memory + offset);
}

/* Exercise 5.2: SDM 4.3, table "... 32-Bit Page-Directory Entry that Maps a 4-MByte Page". */
void directory_build(struct address_space *space)
{
    TODO("5.2");
}

/*
 * Exercise 5.3: a table for the 4 MB around `virt`, in place of what the directory entry maps: its
 * 1024 entries map the same pages with the same rights, or nothing. NULL: no table is left.
 */
static uint32_t *table_insert(struct address_space *space, uint32_t *directory_entry)
{
    TODO("5.3");
}

/* Exercise 5.3: SDM 4.3, figure "Linear-Address Translation to a 4-KByte Page". */
int page_map(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags)
{
    TODO("5.3");
}

/* ------------------------------------------------------------------ the jump */

/*
 * Exercise 5.4: the state as if the guest itself had loaded the GDT, switched on protected mode and
 * paging and reloaded each register. The processor's checks at entry: SDM 27.3.1 "Checks on
 * the Guest State Area". The GDT is reached through the higher half, which a guest keeps.
 */
void paging_state(const struct address_space *space, uint32_t entry, uint32_t stack,
                  struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    TODO("5.4");
}

/* The pages of --map and --unmap. */
static int map_options(const struct options *options, struct address_space *space)
{
    for (size_t i = 0; i < options->mapping_count; i++) {
        const struct page_mapping *page = &options->mappings[i];
        int error = page_map(space, (uint32_t)page->virt, page->phys, (uint32_t)page->flags);
        if (error != 0)
            return fail(STATUS_USAGE, "can't map 0x%" PRIx64 " to 0x%" PRIx32 ": %s", page->virt,
                        page->phys,
                        error == ENOMEM ? "no page table is left"
                                        : "not page-aligned, or outside of the guest's memory");
    }
    return 0;
}

/* Exercise 5.4 */
int paging_enter(struct vcpu *vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
                 uint32_t ebx)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    TODO("5.4");
}

/* ------------------------------------------------------------------ the walk */

static bool read_entry(const uint8_t *ram, size_t ram_bytes, uint64_t address, uint32_t *entry)
{
    if (ram_bytes < sizeof *entry || address > ram_bytes - sizeof *entry)
        return false;
    memcpy(entry, ram + address, sizeof *entry);
    return true;
}

/* Exercise 5.5: SDM 4.3. Without CR4.PSE the processor ignores PAGE_LARGE. */
struct page_walk page_walk(const uint8_t *ram, size_t ram_bytes, uint32_t cr3, uint32_t cr4,
                           uint32_t virt)
{
    struct page_walk walk = {.mapped = false};

    TODO("5.5");
    return walk;
}

bool paging_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out)
{
    struct page_walk walk = page_walk(vcpu->vm->ram, vcpu->vm->ram_bytes, (uint32_t)sregs->cr3,
                                      (uint32_t)sregs->cr4, linear);

    *phys = walk.phys;
    if (!out)
        return walk.mapped;
    fprintf(out, "  page walk of 0x%08" PRIx32 ": cr3 %08llx, directory[%" PRIu32 "] = %08" PRIx32,
            linear, sregs->cr3, linear / LARGE_PAGE_BYTES, walk.directory_entry);
    if (walk.table_entry)
        fprintf(out, ", table[%" PRIu32 "] = %08" PRIx32, linear / PAGE_BYTES % TABLE_ENTRIES,
                walk.table_entry);
    if (walk.mapped)
        fprintf(out, ": at 0x%" PRIx64 ", %s, %s\n", walk.phys,
                walk.writable ? "writable" : "read-only", walk.user ? "user" : "kernel");
    else
        fprintf(out, ": not mapped: %s\n", walk.reason);
    return walk.mapped;
}

/* ------------------------------------------------------------------ isolated guests */

/* Exercise 5.6: a guest's tables map only its own part: nothing else keeps the guests apart. */
int space_open(struct vcpu *vcpu, struct address_space *space)
{
    const struct vmm *vmm = vcpu->vm->vmm;
    bool alone = vmm->vm_count == vmm->guest_count;
    uint32_t base = 0, bytes = (uint32_t)vcpu->vm->ram_bytes;

    if (!alone) {
        TODO("5.6");
    }
    *space = (struct address_space){
        .memory = vcpu->vm->ram + base,
        .base = base,
        .bytes = bytes,
        .next_table = TABLES_OFFSET,
    };
    return 0;
}

int paging_prepare(struct vcpu *vcpu)
{
    const struct options *options = &vcpu->vm->vmm->options;
    const struct guest *guest = vcpu->guest;
    struct address_space space;
    int status = space_open(vcpu, &space);

    if (status != 0)
        return status;
    if (options->load < LOAD_MIN)
        return fail(STATUS_USAGE, "--load=0x%" PRIx32 ": below 0x%x are GDT and page tables",
                    options->load, LOAD_MIN);
    if (options->load > space.bytes || guest->image_bytes > space.bytes - options->load)
        return fail(STATUS_GUEST_FILE,
                    "%s does not fit: %zu bytes at 0x%" PRIx32 " of the 0x%" PRIx32
                    " bytes that it has",
                    guest->path, guest->image_bytes, options->load, space.bytes);
    memcpy(space.memory + options->load, guest->image, guest->image_bytes);
    return paging_enter(vcpu, &space, options->entry, HIGHER_HALF + options->load, 0);
}
