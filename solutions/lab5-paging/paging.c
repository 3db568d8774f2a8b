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
    /* answer 5.1 */
    bool pages = descriptor->limit > LIMIT_1MB;
    uint64_t limit = pages ? descriptor->limit / PAGE_BYTES : descriptor->limit;
    uint64_t base = descriptor->base;

    return (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)descriptor->type << 40 |
           (uint64_t)descriptor->code_data << 44 | (uint64_t)descriptor->dpl << 45 |
           (uint64_t)descriptor->present << 47 | (limit >> 16) << 48 |
           (uint64_t)descriptor->big << 54 | (uint64_t)pages << 55 | (base >> 24) << 56;
    /* end 5.1 */
}

/*
 * Exercise 5.1: the processor keeps a segment's descriptor in the hidden part of the register
 * (SDM 3.4.3), where the limit is in bytes whatever G says. KVM_SET_SREGS sets that hidden part.
 */
struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector)
{
    /* answer 5.1 */
    uint64_t raw = gdt[selector >> 3];
    bool pages = raw >> 55 & 1;
    uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));

    return (struct kvm_segment){
        .base = (uint32_t)((raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000)),
        .limit = pages ? limit * PAGE_BYTES + (PAGE_BYTES - 1) : limit,
        .selector = selector,
        .type = raw >> 40 & 0xf,
        .s = raw >> 44 & 1,
        .dpl = raw >> 45 & 3,
        .present = raw >> 47 & 1,
        .avl = raw >> 52 & 1,
        .l = raw >> 53 & 1,
        .db = raw >> 54 & 1,
        .g = pages,
    };
    /* end 5.1 */
}

/* Exercise 5.1: flat segments for kernel and user, and the TSS, which a trap from ring 3 needs. */
void gdt_build(struct address_space *space)
{
    /* answer 5.1 */
    const struct {
        uint16_t selector;
        struct descriptor descriptor;
    } entries[] = {
        {SELECTOR_KERNEL_CODE, {0, UINT32_MAX, TYPE_CODE, true, 0, true, true}},
        {SELECTOR_KERNEL_DATA, {0, UINT32_MAX, TYPE_DATA, true, 0, true, true}},
        {SELECTOR_USER_CODE, {0, UINT32_MAX, TYPE_CODE, true, 3, true, true}},
        {SELECTOR_USER_DATA, {0, UINT32_MAX, TYPE_DATA, true, 3, true, true}},
        {SELECTOR_TSS,
         {HIGHER_HALF + TSS_OFFSET, TSS_BYTES - 1, TYPE_TSS_BUSY, false, 0, true, false}},
    };
    uint64_t gdt[GDT_ENTRIES] = {0};

    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        gdt[entries[i].selector >> 3] = descriptor_encode(&entries[i].descriptor);
    memcpy(space->memory + GDT_OFFSET, gdt, sizeof gdt);
    memset(space->memory + TSS_OFFSET, 0, TSS_BYTES);
    /* end 5.1 */
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
    /* answer 5.2 */
    uint32_t *directory = table_at(space, DIRECTORY_OFFSET);
    uint32_t count = (space->bytes + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES;

    memset(directory, 0, PAGE_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry =
            (space->base + i * LARGE_PAGE_BYTES) | PAGE_LARGE | PAGE_WRITABLE | PAGE_PRESENT;
        directory[i] = entry;
        directory[HIGHER_HALF / LARGE_PAGE_BYTES + i] = entry;
    }
    /* end 5.2 */
}

/*
 * Exercise 5.3: a table for the 4 MB around `virt`, in place of what the directory entry maps: its
 * 1024 entries map the same pages with the same rights, or nothing. NULL: no table is left.
 */
static uint32_t *table_insert(struct address_space *space, uint32_t *directory_entry)
{
    /* answer 5.3 */
    if (space->next_table + PAGE_BYTES > TABLES_END)
        return NULL;
    uint32_t *table = table_at(space, space->next_table);
    uint32_t large = *directory_entry;
    /* A right needs both levels: the directory entry grants all, and the table restricts them. */
    for (uint32_t i = 0; i < TABLE_ENTRIES; i++) {
        table[i] = large & PAGE_PRESENT ? (large & LARGE_FRAME) + i * PAGE_BYTES : 0;
        table[i] |= large & (RIGHTS | PAGE_PRESENT);
    }
    *directory_entry = (space->base + space->next_table) | RIGHTS | PAGE_PRESENT;
    space->next_table += PAGE_BYTES;
    return table;
    /* end 5.3 */
}

/* Exercise 5.3: SDM 4.3, figure "Linear-Address Translation to a 4-KByte Page". */
int page_map(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags)
{
    /* answer 5.3 */
    uint32_t *directory_entry = &table_at(space, DIRECTORY_OFFSET)[virt / LARGE_PAGE_BYTES];
    bool has_table = *directory_entry & PAGE_PRESENT && !(*directory_entry & PAGE_LARGE);
    uint32_t *table;

    if (virt % PAGE_BYTES != 0 || phys % PAGE_BYTES != 0 || phys >= space->bytes)
        return EINVAL;
    if (has_table)
        table = table_at(space, (*directory_entry & PAGE_FRAME) - space->base);
    else
        table = table_insert(space, directory_entry);
    if (!table)
        return ENOMEM;
    table[virt / PAGE_BYTES % TABLE_ENTRIES] = flags ? (space->base + phys) | flags : 0;
    return 0;
    /* end 5.3 */
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
    /* answer 5.4 */
    uint64_t gdt[GDT_ENTRIES];

    memcpy(gdt, space->memory + GDT_OFFSET, sizeof gdt);
    sregs->cs = segment_load(gdt, SELECTOR_KERNEL_CODE);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss =
        segment_load(gdt, SELECTOR_KERNEL_DATA);
    sregs->tr = segment_load(gdt, SELECTOR_TSS);
    sregs->ldt = (struct kvm_segment){.type = TYPE_LDT, .unusable = 1};
    sregs->gdt.base = HIGHER_HALF + GDT_OFFSET;
    sregs->gdt.limit = sizeof gdt - 1;
    sregs->idt.base = 0;
    sregs->idt.limit = 0;
    sregs->cr3 = space->base + DIRECTORY_OFFSET;
    sregs->cr4 = CR4_PSE;
    sregs->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    sregs->efer = 0;
    *regs = (struct kvm_regs){.rip = entry, .rsp = stack, .rflags = FLAGS_ALWAYS_ONE};
    /* end 5.4 */
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

    /* answer 5.4 */
    gdt_build(space);
    directory_build(space);
    int status = map_options(&vcpu->vm->vmm->options, space);
    if (status != 0)
        return status;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_GET_SREGS: %s", strerror(errno));
    paging_state(space, entry, stack, &sregs, &regs);
    regs.rbx = ebx;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_SREGS: %s", strerror(errno));
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_REGS: %s", strerror(errno));
    return 0;
    /* end 5.4 */
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

    /* answer 5.5 */
    uint32_t directory = (cr3 & PAGE_FRAME) + virt / LARGE_PAGE_BYTES * 4;
    if (!read_entry(ram, ram_bytes, directory, &walk.directory_entry)) {
        walk.reason = "the page directory is outside of RAM";
        return walk;
    }
    uint32_t rights = walk.directory_entry;
    if (!(walk.directory_entry & PAGE_PRESENT)) {
        walk.reason = "its directory entry is not present";
        return walk;
    }
    if (walk.directory_entry & PAGE_LARGE && cr4 & CR4_PSE) {
        walk.phys = (walk.directory_entry & LARGE_FRAME) | virt % LARGE_PAGE_BYTES;
    } else {
        uint32_t table =
            (walk.directory_entry & PAGE_FRAME) + virt / PAGE_BYTES % TABLE_ENTRIES * 4;
        if (!read_entry(ram, ram_bytes, table, &walk.table_entry)) {
            walk.reason = "its page table is outside of RAM";
            return walk;
        }
        if (!(walk.table_entry & PAGE_PRESENT)) {
            walk.reason = "its page table entry is not present";
            return walk;
        }
        walk.phys = (walk.table_entry & PAGE_FRAME) | virt % PAGE_BYTES;
        rights &= walk.table_entry;
    }
    walk.mapped = true;
    walk.writable = rights & PAGE_WRITABLE;
    walk.user = rights & PAGE_USER;
    /* end 5.5 */
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
        /* answer 5.6 */
        base = (uint32_t)vcpu->index * SLOT_BYTES;
        bytes = SLOT_BYTES;
        if (base + (uint64_t)bytes > vcpu->vm->ram_bytes)
            return fail(STATUS_USAGE, "%s: %d guests with paging need --mem=%dM", vcpu->guest->path,
                        vmm->guest_count, vmm->guest_count * (SLOT_BYTES >> 20));
        /* end 5.6 */
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
