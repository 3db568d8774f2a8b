/*
 * long_mode.c - lab 7's module function by function. No guest runs here: what the module writes
 * into memory is read as a processor would read it. Only what sets a vCPU's state needs KVM.
 */
#include <elf.h>

#include "../../unit.h"
#include "lab7.h"

#include "debug/entry_state.h"

/* Where a space is, the judge knows; what of it is used, the module says. */
static void see_space(struct address_space *space)
{
    GIVE(*space);
    SEE(space->next_table);
}

MODULE_VOID(long_tables_build, (struct address_space * space), (space), see_space(space))
MODULE(int, long_page_map,
       (struct address_space * space, uint64_t virt, uint32_t phys, uint64_t flags),
       (space, virt, phys, flags), see_space(space))
MODULE_VOID(long_gdt_build, (struct address_space * space), (space), see_space(space))
MODULE_VOID(long_mode_state,
            (const struct address_space *space, uint64_t entry, uint64_t stack,
             struct kvm_sregs *sregs, struct kvm_regs *regs),
            (space, entry, stack, sregs, regs), GIVE(*space), SEE(*sregs), SEE(*regs))
MODULE_VOID(long_rings_add, (struct address_space * space, struct kvm_sregs *sregs), (space, sregs),
            see_space(space), SEE(*sregs))
MODULE(bool, cpuid_show, (struct kvm_cpuid2 * cpuid, uint32_t entries_max, uint32_t apic_id),
       (cpuid, entries_max, apic_id))
MODULE(int, vcpu_show_cpuid, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))
MODULE(const char *, elf64_load,
       (const uint8_t *bytes, size_t byte_count, uint8_t *to, size_t to_bytes, uint64_t *first),
       (bytes, byte_count, to, to_bytes, first), see_text(&result))
MODULE(int, long_mode_enter, (struct vcpu * vcpu, struct address_space *space, uint64_t entry),
       (vcpu, space, entry), see_vcpu(vcpu), see_space(space))
MODULE(struct long_walk, long_walk,
       (const uint8_t *ram, size_t ram_bytes, uint64_t cr3, uint64_t efer, uint64_t virt),
       (ram, ram_bytes, cr3, efer, virt), see_text(&result.reason))
MODULE(enum step, long_mode_io, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))

#define SPACE_BYTES 0x1000000u  /* of most address spaces here: 16 MB */
#define BASE        0x400000u   /* and where they start in their VM's RAM */
#define MEMORY_MAX  0x80000000u /* 2 GB: the largest --mem; only its tables are really there */
#define RIGHTS      (PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER | PAGE_NX)
#define KERNEL      (PAGE_PRESENT | PAGE_WRITABLE) /* of all memory, at the start */
#define FAR         0x7f1234567000ull              /* an address that is not mapped */

static uint8_t ram[BASE + SPACE_BYTES + PAGE_BYTES];

static struct address_space space_at(uint32_t base, uint32_t bytes)
{
    memset(ram, 0xa5, sizeof ram); /* memory is not always zero */
    return (struct address_space){
        .memory = ram + base, .base = base, .bytes = bytes, .next_table = TABLES_OFFSET};
}

static uint64_t random64(void)
{
    return (uint64_t)unit_random() << 32 | unit_random();
}

/* ------------------------------------------------------------------ reading page tables */

static const char *const level_names[] = {"page table", "PD", "PDPT", "PML4"};

static void poke(uint64_t phys, uint64_t value)
{
    memcpy(ram + phys, &value, sizeof value);
}

/* Where the processor finds `virt`, from what lies in memory. */
struct found {
    bool mapped;
    uint64_t phys, rights;
    uint64_t place;    /* guest-physical, of the last entry that was read */
    unsigned level;    /* of that entry: 0 to 3 */
    char entries[160]; /* as read, in words */
};

static struct found translate(const struct address_space *space, uint64_t virt)
{
    struct found found = {.level = 3, .rights = RIGHTS & ~PAGE_NX};
    uint64_t table = space->base + DIRECTORY_OFFSET, entry;
    int used = 0;

    for (;; found.level--) {
        unsigned shift = 12 + 9 * found.level, index = virt >> shift & 511;
        found.place = table + index * 8;
        ck_assert_msg(found.place >= space->base + GDT_OFFSET &&
                          found.place < space->base + TABLES_END,
                      "address 0x%llx: %s leads to a table at 0x%llx, which is not one of the "
                      "guest's, up to TABLES_END",
                      (unsigned long long)virt, found.entries, (unsigned long long)table);
        memcpy(&entry, ram + found.place, sizeof entry);
        used +=
            snprintf(found.entries + used, sizeof found.entries - (size_t)used, "%s%s[%u] = 0x%llx",
                     used ? ", " : "", level_names[found.level], index, (unsigned long long)entry);
        if (!(entry & PAGE_PRESENT))
            return found;
        found.rights = (found.rights & entry) | ((found.rights | entry) & PAGE_NX);
        if (found.level == 0 || entry & PAGE_LARGE) {
            uint64_t in_page = (1ull << shift) - 1;
            found.mapped = true;
            found.phys = (entry & LONG_FRAME & ~in_page) | (virt & in_page);
            return found;
        }
        table = entry & LONG_FRAME;
    }
}

static const char *rights_text(uint64_t rights)
{
    static char texts[2][64];
    static unsigned next;
    char *text = texts[next++ % 2];

    snprintf(text, sizeof texts[0], "%s, %s, %s", rights & PAGE_WRITABLE ? "writable" : "read-only",
             rights & PAGE_USER ? "user" : "kernel",
             rights & PAGE_NX ? "no execute" : "executable");
    return text;
}

/* `virt` must lead to offset `phys` of the space with these rights; flags 0: nowhere. */
static void check_page(const struct address_space *space, uint64_t virt, uint64_t phys,
                       uint64_t flags, const char *when)
{
    const unsigned long long address = virt;
    struct found found = translate(space, virt);

    if (found.mapped != (flags != 0))
        ck_abort_msg("%s: address 0x%llx is %smapped: %s (the guest's memory is 0x%x bytes from "
                     "0x%x on)",
                     when, address, found.mapped ? "" : "not ", found.entries, space->bytes,
                     space->base);
    if (!found.mapped)
        return;
    if (found.phys != space->base + phys)
        ck_abort_msg("%s: address 0x%llx leads to 0x%llx instead of 0x%llx: %s (the guest's memory "
                     "starts at 0x%x)",
                     when, address, (unsigned long long)found.phys,
                     (unsigned long long)(space->base + phys), found.entries, space->base);
    if (found.rights != flags)
        ck_abort_msg("%s: address 0x%llx is %s instead of %s: %s (a right needs every level)", when,
                     address, rights_text(found.rights), rights_text(flags), found.entries);
}

/* ------------------------------------------------------------------ 7.1 tables */

START_TEST(tables)
{
    static const struct {
        uint32_t base, bytes;
    } spaces[] = {{0, SPACE_BYTES}, {BASE, SPACE_BYTES}, {BASE, SLOT_BYTES},
                  {0, 1 << 20},     {0, 5 << 20},        {0, MEMORY_MAX}};
    char when[80];

    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        struct address_space space = space_at(spaces[i].base, spaces[i].bytes);
        const uint64_t bytes = space.bytes,
                       end = (bytes + MEDIUM_PAGE_BYTES - 1) & ~(uint64_t)(MEDIUM_PAGE_BYTES - 1);
        long_tables_build(&space);
        snprintf(when, sizeof when, "after long_tables_build of %u KB of memory",
                 space.bytes >> 10);
        for (uint64_t part = 0; part < end; part += MEDIUM_PAGE_BYTES) {
            uint64_t offset = part + unit_random() % 512 * PAGE_BYTES;
            offset = offset < bytes ? offset : part;
            for (int half = 0; half < 2; half++) {
                const uint64_t virt = (half ? HIGHER_HALF_64 : 0) + offset;
                check_page(&space, virt, offset, KERNEL, when);
                const unsigned level = translate(&space, virt).level;
                ck_assert_msg(level == 1,
                              "%s: address 0x%llx is in a page of level %u; level 1 of the levels "
                              "0 to 3 has pages of 2 MB",
                              when, (unsigned long long)virt, level);
            }
        }
        check_page(&space, bytes - PAGE_BYTES, bytes - PAGE_BYTES, KERNEL, when);
        const uint64_t nowhere[] = {
            end, HIGHER_HALF_64 + end, HIGHER_HALF_64 - PAGE_BYTES, 0x100000000, 0x8000000000,
            FAR, 0xffff800000000000};
        for (size_t j = 0; j < sizeof nowhere / sizeof nowhere[0]; j++)
            if (nowhere[j] != 0) /* past 2 GB in the higher half */
                check_page(&space, nowhere[j], 0, 0, when);
        for (int j = 0; j < 200; j++) {
            uint64_t virt = (uint64_t)((int64_t)(random64() << 16) >> 16) & ~0xfffull;
            if (virt >= end && virt < HIGHER_HALF_64)
                check_page(&space, virt, 0, 0, when);
        }
    }
}
END_TEST

static uint64_t random_page(uint64_t bytes)
{
    return unit_random() % (bytes / PAGE_BYTES) * PAGE_BYTES;
}

START_TEST(map)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const uint64_t regions[] = {0x40000000 + (unit_random() & 0x3fe00000), 0, HIGHER_HALF_64,
                                0xffff800000000000ull + (random64() & 0x3fffffe00000)};

    struct {
        uint64_t virt, flags;
        uint32_t phys;
    } pages[60];
    char when[160];

    long_tables_build(&space);
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t virt = regions[i % 4] + i * 5 * PAGE_BYTES;
        uint32_t phys = (uint32_t)random_page(SPACE_BYTES);
        uint64_t flags = PAGE_PRESENT | (random64() & (PAGE_WRITABLE | PAGE_USER | PAGE_NX));
        snprintf(when, sizeof when, "after long_page_map(0x%llx, 0x%x, %s), in 2 MB %s",
                 (unsigned long long)virt, phys, rights_text(flags),
                 i < 4 ? "without a page table" : "that had a page table already");
        int error = long_page_map(&space, virt, phys, flags);
        ck_assert_msg(error == 0, "long_page_map(0x%llx, 0x%x) returns %d instead of 0",
                      (unsigned long long)virt, phys, error);
        check_page(&space, virt, phys, flags, when);
        pages[i].virt = virt;
        pages[i].phys = phys;
        pages[i].flags = flags;
    }
    for (int i = 0; i < 60; i++)
        check_page(&space, pages[i].virt, pages[i].phys, pages[i].flags,
                   "after other pages were mapped");
    for (int i = 0; i < 60; i += 2) {
        ck_assert_msg(long_page_map(&space, pages[i].virt, 0, 0) == 0,
                      "long_page_map with flags 0 unmaps a page, and does not return 0");
        check_page(&space, pages[i].virt, 0, 0, "after it was unmapped (flags 0)");
    }
    for (int i = 1; i < 60; i += 2)
        check_page(&space, pages[i].virt, pages[i].phys, pages[i].flags,
                   "after other pages were unmapped");
    check_page(&space, regions[0] + PAGE_BYTES, 0, 0,
               "in a table that long_page_map made, a page that nobody mapped");
    int error = long_page_map(&space, FAR, 0, 0);
    ck_assert_msg(error == 0,
                  "long_page_map with flags 0 of a page that nobody had mapped returns %d "
                  "instead of 0: it is unmapped, as asked",
                  error);
    check_page(&space, FAR, 0, 0, "after it was unmapped, and nobody had mapped it");
}
END_TEST

START_TEST(split)
{
    enum { PARTS = SPACE_BYTES / MEDIUM_PAGE_BYTES };
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const int unmapped = (int)(unit_random() % PARTS);
    int rights[PARTS]; /* each combination once */
    char when[80];

    long_tables_build(&space);
    shuffle(rights, PARTS);
    for (int i = 0; i < PARTS; i++) {
        const uint64_t half = unit_random() % 2 ? HIGHER_HALF_64 : 0,
                       part = (uint64_t)i * MEDIUM_PAGE_BYTES,
                       in_large = random_page(MEDIUM_PAGE_BYTES), virt = half + part + in_large;
        const uint64_t before = PAGE_PRESENT | (rights[i] & 1 ? PAGE_WRITABLE : 0) |
                                (rights[i] & 2 ? PAGE_USER : 0) | (rights[i] & 4 ? PAGE_NX : 0);
        const uint64_t flags = i == unmapped ? 0 : PAGE_PRESENT | (random64() & RIGHTS);
        const uint32_t phys = (uint32_t)random_page(SPACE_BYTES);
        uint64_t large = part;
        if (before != KERNEL) { /* what long_tables_build does not write: the split keeps it */
            large = unit_random() % PARTS * MEDIUM_PAGE_BYTES;
            poke(translate(&space, virt).place, (space.base + large) | PAGE_LARGE | before);
        }
        snprintf(when, sizeof when, "after page 0x%llx of a 2 MB page was %smapped",
                 (unsigned long long)virt, flags ? "" : "un");
        ck_assert_msg(long_page_map(&space, virt, phys, flags) == 0,
                      "long_page_map of 0x%llx, in a 2 MB page, does not return 0",
                      (unsigned long long)virt);
        for (uint64_t page = 0; page < MEDIUM_PAGE_BYTES; page += PAGE_BYTES)
            if (page == in_large)
                check_page(&space, virt, phys, flags, when);
            else
                check_page(&space, half + part + page, large + page, before, when);
        struct found other = translate(&space, virt ^ PAGE_BYTES);
        uint64_t entry;
        memcpy(&entry, ram + other.place, sizeof entry);
        ck_assert_msg(other.level == 0 && !(entry & PAGE_LARGE),
                      "%s: %s has bit 7: PAGE_LARGE in a PD entry, a cache type in a page table's",
                      when, other.entries);
        check_page(&space, (half ? 0 : HIGHER_HALF_64) + part + in_large, part + in_large, KERNEL,
                   "the same 2 MB in the other half");
    }
}
END_TEST

/* Two guests of one VM, their pages mapped in turns: nothing may be kept from one to the other. */
START_TEST(two_spaces)
{
    struct address_space spaces[2] = {space_at(0, SLOT_BYTES), space_at(BASE, SLOT_BYTES)};

    for (int i = 0; i < 2; i++)
        long_tables_build(&spaces[i]);
    for (uint32_t page = 0; page < 6; page++)
        for (int i = 0; i < 2; i++) {
            uint64_t virt = page / 2 * FAR + (1 + page % 2) * PAGE_BYTES;
            uint32_t phys = 0x200000 + page * PAGE_BYTES;
            if (page >= 4)
                virt = HIGHER_HALF_64 + page * PAGE_BYTES;
            int error = long_page_map(&spaces[i], virt, phys, PAGE_PRESENT | PAGE_USER);
            ck_assert_msg(error == 0,
                          "long_page_map(0x%llx) for guest %d of 2 returns %d instead of 0",
                          (unsigned long long)virt, i, error);
        }
    for (uint32_t page = 0; page < 6; page++)
        for (int i = 0; i < 2; i++)
            check_page(&spaces[i],
                       page < 4 ? page / 2 * FAR + (1 + page % 2) * PAGE_BYTES
                                : HIGHER_HALF_64 + page * PAGE_BYTES,
                       0x200000 + page * PAGE_BYTES, PAGE_PRESENT | PAGE_USER,
                       i == 0
                           ? "the first of two guests, after pages were mapped for both in turns"
                           : "the second of two guests, after pages were mapped for both in turns");
}
END_TEST

/* The last page of the guest's memory can be mapped here. */
static void check_last_page(struct address_space *space, uint64_t virt)
{
    const uint32_t phys = space->bytes - PAGE_BYTES;
    const uint64_t flags = PAGE_PRESENT | (random64() & RIGHTS);
    int error = long_page_map(space, virt, phys, flags);

    ck_assert_msg(error == 0,
                  "the last page of the guest's 0x%x bytes of memory, at the canonical address "
                  "0x%llx, is refused (%d)",
                  space->bytes, (unsigned long long)virt, error);
    check_page(space, virt, phys, flags, "after the last page of the guest's memory was mapped");
}

START_TEST(refused)
{
    static const struct {
        uint64_t virt;
        uint32_t phys;
        uint64_t flags;
        const char *why;
    } bad[] = {
        {FAR + 0x800, 0x200000, PAGE_PRESENT, "virt is not a multiple of 4096"},
        {FAR + 0x800, 0, 0, "virt is not a multiple of 4096, and flags 0 do not change that"},
        {0x800000000000, 0x200000, PAGE_PRESENT, "virt 0x800000000000 is not canonical"},
        {0xffff7ffffffff000, 0x200000, PAGE_PRESENT, "virt 0xffff7ffffffff000 is not canonical"},
        {0x1000000000000, 0x200000, 0,
         "virt 0x1000000000000 is not canonical, and flags 0 do not change that"},
        {FAR, 0x200004, PAGE_PRESENT, "phys is not a multiple of 4096"},
        {FAR, SPACE_BYTES, PAGE_PRESENT, "phys is the first page past the guest's memory"},
        {FAR, SPACE_BYTES, 0,
         "phys is the first page past the guest's memory, and flags 0 do not change that"},
        {FAR, 0xfffff000, PAGE_PRESENT, "phys is far outside of the guest's memory"},
    };
    enum { BAD = sizeof bad / sizeof bad[0], RIGHT = 3 };
    static const uint64_t right[RIGHT] = {FAR, 0x7ffffffff000, 0xffff800000000000};
    static PRIVATE uint8_t before[TABLES_END];
    struct address_space space = space_at(BASE, SPACE_BYTES);
    int order[BAD];

    long_tables_build(&space);
    shuffle(order, BAD);
    for (int i = 0; i < BAD; i++) {
        for (uint32_t rights = unit_random() % 3; rights > 0; rights--)
            check_last_page(&space, right[unit_random() % RIGHT]);
        memcpy(before, space.memory, sizeof before);
        const int n = order[i];
        int error = long_page_map(&space, bad[n].virt, bad[n].phys, bad[n].flags);
        ck_assert_msg(error == EINVAL, "%s: long_page_map returns %d instead of EINVAL", bad[n].why,
                      error);
        ck_assert_msg(memcmp(before, space.memory, sizeof before) == 0,
                      "%s: long_page_map refuses it, and has changed the tables all the same",
                      bad[n].why);
    }
    for (int i = 0; i < RIGHT; i++)
        check_last_page(&space, right[i]);
    space = space_at(0, MEMORY_MAX); /* --mem=2G */
    long_tables_build(&space);
    check_last_page(&space, FAR);
}
END_TEST

START_TEST(exhausted)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const uint32_t tables = (TABLES_END - TABLES_OFFSET) / PAGE_BYTES;
    uint32_t count = 0;
    int error = 0;

    long_tables_build(&space);
    memset(space.memory + TABLES_END, 0xcc, PAGE_BYTES);
    while (count <= tables && (error = long_page_map(&space, 0x40000000 + count * MEDIUM_PAGE_BYTES,
                                                     0x200000, PAGE_PRESENT)) == 0)
        count++;
    ck_assert_msg(
        error == ENOMEM,
        "%u pages, each of which needs a page table of its own, were mapped, and the area "
        "up to TABLES_END has room for %u tables; then long_page_map must return ENOMEM",
        count, tables);
    ck_assert_msg(count >= tables - 6, "only %u of %u page tables could be used", count, tables);
    for (uint32_t i = 0; i < PAGE_BYTES; i++)
        if (space.memory[TABLES_END + i] != 0xcc)
            ck_abort_msg("memory past TABLES_END was written: long_page_map must not use it");
    for (uint32_t i = 0; i < count; i++)
        check_page(&space, 0x40000000 + i * MEDIUM_PAGE_BYTES, 0x200000, PAGE_PRESENT,
                   "after the tables ran out");
    check_page(&space, 0x40000000 + count * MEDIUM_PAGE_BYTES, 0, 0, "the page that was refused");
    error = long_page_map(&space, HIGHER_HALF_64, 0x300000, PAGE_PRESENT);
    ck_assert_msg(error == ENOMEM,
                  "no table is left to split a 2 MB page, and long_page_map returns %d", error);
    check_page(&space, HIGHER_HALF_64 + PAGE_BYTES, PAGE_BYTES, KERNEL,
               "after a 2 MB page could not be split");
    error = long_page_map(&space, 0x40001000, 0x300000, PAGE_PRESENT);
    ck_assert_msg(error == 0, "with no table left, a page in a table that is there is refused (%d)",
                  error);

    space = space_at(BASE, SPACE_BYTES); /* another guest's */
    long_tables_build(&space);
    space.next_table = TABLES_END - PAGE_BYTES;
    error = long_page_map(&space, 0, 0x200000, PAGE_PRESENT);
    ck_assert_msg(error == 0,
                  "space->next_table is the last table below TABLES_END, it is not used yet, and "
                  "long_page_map returns %d",
                  error);
}
END_TEST

/* ------------------------------------------------------------------ 7.2, 7.3: descriptors and
 * state */

static uint64_t gdt_entry(const struct address_space *space, unsigned selector)
{
    uint64_t entry;

    memcpy(&entry, space->memory + GDT_OFFSET + (selector & ~7u), sizeof entry);
    return entry;
}

/* A flat segment in the GDT: SDM vol. 3, figure 3-8, and 5.2.1 for L. */
static void check_flat(const struct address_space *space, unsigned selector, bool code,
                       const char *name)
{
    const uint64_t raw = gdt_entry(space, selector);
    const unsigned type = raw >> 40 & 15, dpl = raw >> 45 & 3;

    ck_assert_msg((raw >> 44 & 1) && (raw >> 47 & 1),
                  "selector 0x%x, %s: descriptor 0x%016llx; S and P must be 1", selector, name,
                  (unsigned long long)raw);
    ck_assert_msg(type == (code ? TYPE_CODE : TYPE_DATA),
                  "selector 0x%x: type %u is not %u, %s that is marked accessed", selector, type,
                  code ? TYPE_CODE : TYPE_DATA, name);
    ck_assert_msg(dpl == (selector & 3), "selector 0x%x, %s: DPL is %u instead of %u", selector,
                  name, dpl, selector & 3);
    if (code)
        ck_assert_msg((raw >> 53 & 1) && !(raw >> 54 & 1),
                      "selector 0x%x, %s: L is %d and D/B %d; 64-bit code has L = 1 and D/B = 0",
                      selector, name, (int)(raw >> 53 & 1), (int)(raw >> 54 & 1));
    ck_assert_msg((raw & 0x000f00000000ffff) == 0x000f00000000ffff && (raw >> 55 & 1) &&
                      (raw & 0xff0000ffffff0000) == 0,
                  "selector 0x%x, %s: descriptor 0x%016llx; a flat segment has base 0 and limit "
                  "4 GB - 1",
                  selector, name, (unsigned long long)raw);
}

START_TEST(gdt)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);

    long_gdt_build(&space);
    ck_assert_msg(gdt_entry(&space, 0) == 0,
                  "entry 0 of the GDT must be all zero: the null descriptor");
    check_flat(&space, SELECTOR_KERNEL_CODE, true, "kernel code");
    check_flat(&space, SELECTOR_KERNEL_DATA, false, "kernel data");
    for (unsigned selector = 0x18; selector < 0x38; selector += 8)
        ck_assert_msg(gdt_entry(&space, selector) == 0,
                      "entry 0x%x of the GDT is 0x%llx: memory is not zero before, and no segment "
                      "is there yet",
                      selector, (unsigned long long)gdt_entry(&space, selector));
}
END_TEST

static struct kvm_sregs sregs;
static struct kvm_regs regs;
static PRIVATE struct kvm_sregs sregs_before; /* as KVM would return them */
static PRIVATE uint64_t entry, stack;

#define APIC_BASE 0xfee00900u  /* as after reset: enabled, of the first processor */
#define AVAILABLE (1ull << 52) /* of a descriptor: AVL, which means nothing to the processor */

/*
 * AVL of the descriptors in memory is changed between long_gdt_build and long_mode_state: that is
 * the GDT to load from.
 */
static void start_long(struct address_space *space)
{
    entry = HIGHER_HALF_64 + LOAD_DEFAULT + unit_random() % 4096;
    stack = HIGHER_HALF_64 + 0x200000 + unit_random() % 1024 * 16;
    *space = space_at(BASE, SPACE_BYTES);
    long_gdt_build(space);
    for (uint32_t at = SELECTOR_KERNEL_CODE; at <= SELECTOR_KERNEL_DATA; at += 8)
        poke(space->base + GDT_OFFSET + at,
             gdt_entry(space, at) ^ (unit_random() % 2 ? AVAILABLE : 0));
    sregs = entry_reset_state();
    sregs.apic_base = APIC_BASE;
    sregs.tr.selector = (uint16_t)(unit_random() & 0xfff8);
    sregs.tr.base = unit_random();
    sregs.cr2 = random64();
    sregs.cr8 = unit_random() % 16;
    for (size_t i = 0; i < sizeof sregs.interrupt_bitmap / sizeof sregs.interrupt_bitmap[0]; i++)
        sregs.interrupt_bitmap[i] = random64();
    sregs_before = sregs;
    memset(&regs, 0xa5, sizeof regs);
    long_mode_state(space, entry, stack, &sregs, &regs);
}

/* Padding apart, which means nothing. */
static bool segments_equal(struct kvm_segment one, struct kvm_segment other)
{
    return one.base == other.base && one.limit == other.limit && one.selector == other.selector &&
           one.type == other.type && one.present == other.present && one.dpl == other.dpl &&
           one.db == other.db && one.s == other.s && one.l == other.l && one.g == other.g &&
           one.avl == other.avl && one.unusable == other.unusable;
}

START_TEST(state)
{
    struct address_space space;

    start_long(&space);
    ck_assert_msg(sregs.cr0 & CR0_PE, "CR0.PE (bit 0) is 0: still real mode");
    ck_assert_msg(sregs.cr0 & CR0_PG, "CR0.PG (bit 31) is 0: there is no long mode without paging");
    ck_assert_msg(sregs.cr0 & CR0_WP,
                  "CR0.WP (bit 16) is 0: the kernel could write to read-only pages");
    ck_assert_msg(!(sregs.cr0 & (CR0_CD | CR0_NW)),
                  "CR0.CD or NW is still 1, as after reset: no caches");
    ck_assert_msg(sregs.cr0 == (CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE),
                  "CR0 is 0x%llx: PE, ET, NE, WP and PG are 1, all else is 0", sregs.cr0);
    ck_assert_msg(sregs.cr4 & CR4_PAE, "CR4.PAE (bit 5) is 0: long mode needs it");
    ck_assert_msg(sregs.cr4 & CR4_OSFXSR,
                  "CR4.OSFXSR (bit 9) is 0: the first SSE instruction is an invalid opcode");
    ck_assert_msg(sregs.cr4 & CR4_OSXMMEXCPT,
                  "CR4.OSXMMEXCPT (bit 10) is 0: an SSE exception is an invalid opcode");
    ck_assert_msg(sregs.cr4 == (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT),
                  "CR4 is 0x%llx: PAE, OSFXSR and OSXMMEXCPT are 1, all else is 0", sregs.cr4);
    ck_assert_msg(sregs.efer & EFER_LME && sregs.efer & EFER_LMA,
                  "EFER is 0x%llx: LME (bit 8) enables long mode, and LMA (bit 10) says that it is "
                  "active; the processor sets LMA with CR0.PG, here you do",
                  sregs.efer);
    ck_assert_msg(sregs.efer & EFER_NXE, "EFER.NXE (bit 11) is 0: PAGE_NX would be a reserved bit");
    ck_assert_msg(sregs.cr3 == space.base + DIRECTORY_OFFSET,
                  "CR3 is 0x%llx instead of 0x%x: guest-physical, so with the base of this guest's "
                  "memory",
                  sregs.cr3, space.base + DIRECTORY_OFFSET);
    ck_assert_msg(sregs.idt.limit == 0,
                  "IDTR's limit is 0x%x, as after reset, instead of 0: there is no IDT yet",
                  sregs.idt.limit);
    ck_assert_msg(regs.rip == entry, "RIP is 0x%llx instead of 0x%llx", regs.rip,
                  (unsigned long long)entry);
    ck_assert_msg(regs.rsp == stack, "RSP is 0x%llx instead of 0x%llx", regs.rsp,
                  (unsigned long long)stack);
    ck_assert_msg(regs.rflags == FLAGS_ALWAYS_ONE, "RFLAGS is 0x%llx instead of 2", regs.rflags);
    ck_assert_msg((regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rsi | regs.rdi | regs.rbp |
                   regs.r8 | regs.r9 | regs.r10 | regs.r11 | regs.r12 | regs.r13 | regs.r14 |
                   regs.r15) == 0,
                  "the other general registers, r8 to r15 among them, must be 0");
    ck_assert_msg(sregs.apic_base == (APIC_BASE & ~APIC_BASE_ENABLE),
                  "the APIC base came in as 0x%x and is 0x%llx: only APIC_BASE_ENABLE changes, "
                  "because there is no local APIC",
                  APIC_BASE, sregs.apic_base);
    ck_assert_msg(segments_equal(sregs.tr, sregs_before.tr),
                  "TR came in with selector 0x%x and base 0x%llx, and long_mode_state has changed "
                  "it: long_rings_add loads it",
                  sregs_before.tr.selector, sregs_before.tr.base);
    ck_assert_msg(sregs.cr2 == sregs_before.cr2 && sregs.cr8 == sregs_before.cr8 &&
                      memcmp(sregs.interrupt_bitmap, sregs_before.interrupt_bitmap,
                             sizeof sregs.interrupt_bitmap) == 0,
                  "CR2, CR8 or interrupt_bitmap is not as it came in: what the table of section "
                  "7.2 does not name stays as KVM returned it");
}
END_TEST

/* The register is what the descriptor in memory says: SDM vol. 3, figure 3-8. */
static void check_loaded(const struct address_space *space, const char *name,
                         const struct kvm_segment *segment, uint16_t selector)
{
    const uint64_t raw = gdt_entry(space, selector);
    const struct kvm_segment right = {
        .base = (raw >> 16 & 0xffffff) | raw >> 56 << 24,
        .limit = (uint32_t)((raw & 0xffff) | (raw >> 48 & 15) << 16) << 12 | 0xfff, /* G is 1 */
        .selector = selector,
        .type = raw >> 40 & 15,
        .present = raw >> 47 & 1,
        .dpl = raw >> 45 & 3,
        .db = raw >> 54 & 1,
        .s = raw >> 44 & 1,
        .l = raw >> 53 & 1,
        .g = raw >> 55 & 1,
        .avl = raw >> 52 & 1,
    };

    ck_assert_msg(segment->selector == selector, "%s has selector 0x%x instead of 0x%x", name,
                  segment->selector, selector);
    ck_assert_msg(segment->base == 0 && segment->limit == UINT32_MAX && segment->present,
                  "%s: base 0x%llx, limit 0x%x, P %u; a flat segment has 0, 0xffffffff, 1", name,
                  segment->base, segment->limit, segment->present);
    ck_assert_msg(!segment->unusable, "%s is marked `unusable`, and a segment is loaded", name);
    ck_assert_msg(segments_equal(*segment, right),
                  "%s has type %u, S %u, DPL %u, L %u, D/B %u, G %u, AVL %u, and the descriptor in "
                  "memory is 0x%016llx, with %u, %u, %u, %u, %u, %u, %u: load it from there",
                  name, segment->type, segment->s, segment->dpl, segment->l, segment->db,
                  segment->g, segment->avl, (unsigned long long)raw, right.type, right.s, right.dpl,
                  right.l, right.db, right.g, right.avl);
}

static void check_segments(const struct address_space *space)
{
    check_loaded(space, "CS", &sregs.cs, SELECTOR_KERNEL_CODE);
    check_loaded(space, "SS", &sregs.ss, SELECTOR_KERNEL_DATA);
    check_loaded(space, "DS", &sregs.ds, SELECTOR_KERNEL_DATA);
    check_loaded(space, "ES", &sregs.es, SELECTOR_KERNEL_DATA);
    check_loaded(space, "FS", &sregs.fs, SELECTOR_KERNEL_DATA);
    check_loaded(space, "GS", &sregs.gs, SELECTOR_KERNEL_DATA);
}

START_TEST(segments)
{
    struct address_space space;

    for (int round = 0; round < 10; round++) {
        start_long(&space);
        ck_assert_msg(sregs.cs.l && !sregs.cs.db,
                      "CS: L is %u and D/B %u; 64-bit code has L = 1 and D/B = 0", sregs.cs.l,
                      sregs.cs.db);
        check_segments(&space);
    }
    ck_assert_msg(sregs.gdt.base == HIGHER_HALF_64 + GDT_OFFSET && sregs.gdt.limit == 7 * 8 - 1,
                  "GDTR: base 0x%llx, limit 0x%x instead of 0x%llx and 0x37: a linear address in "
                  "the half that a guest keeps, and the last valid byte of 7 entries",
                  sregs.gdt.base, sregs.gdt.limit,
                  (unsigned long long)(HIGHER_HALF_64 + GDT_OFFSET));
    ck_assert_msg(sregs.ldt.unusable,
                  "LDTR is still usable, as after reset, and there is no LDT: mark it `unusable`");
}
END_TEST

START_TEST(rings)
{
    struct address_space space;

    start_long(&space);
    const uint64_t kernel_code = gdt_entry(&space, SELECTOR_KERNEL_CODE);
    long_rings_add(&space, &sregs);
    ck_assert_msg(gdt_entry(&space, SELECTOR_KERNEL_CODE) == kernel_code,
                  "long_rings_add changes the kernel's code segment: it only adds entries");
    check_flat(&space, SELECTOR_LONG_USER_DATA, false, "user data");
    check_flat(&space, SELECTOR_LONG_USER_CODE, true, "user code");
    const uint64_t low = gdt_entry(&space, SELECTOR_TSS),
                   high = gdt_entry(&space, SELECTOR_TSS + 8),
                   base = (low >> 16 & 0xffffff) | low >> 56 << 24 | high << 32;
    ck_assert_msg(
        base == HIGHER_HALF_64 + TSS_OFFSET && high >> 32 == 0,
        "the TSS descriptor is 0x%016llx 0x%016llx, with the base 0x%llx instead of "
        "HIGHER_HALF_64 + TSS_OFFSET: it has 16 bytes, and the upper 8 hold bits 32 to 63 "
        "of the base",
        (unsigned long long)low, (unsigned long long)high, (unsigned long long)base);
    ck_assert_msg((low & 0x000f00000000ffff) == 103 && !(low >> 55 & 1),
                  "the TSS descriptor is 0x%016llx, and its limit is not 0x67: the TSS has 104 "
                  "bytes, and the limit is the last valid offset",
                  (unsigned long long)low);
    ck_assert_msg((low >> 40 & 0x1d) == 9 && (low >> 47 & 1),
                  "the TSS's descriptor has S=%d, type %d: a TSS is S=0, 9, or 11 when busy",
                  (int)(low >> 44 & 1), (int)(low >> 40 & 15));
    for (uint32_t i = 0; i < 104; i++)
        ck_assert_msg(space.memory[TSS_OFFSET + i] == 0, "byte %u of the TSS is not zero", i);
    ck_assert_msg(space.memory[TSS_OFFSET + 104] == 0xa5,
                  "the byte after the TSS was changed: it has 104 bytes");
    ck_assert_msg(
        sregs.tr.selector == SELECTOR_TSS && sregs.tr.limit == 103 &&
            sregs.tr.base == HIGHER_HALF_64 + TSS_OFFSET,
        "TR: selector 0x%x, base 0x%llx, limit 0x%x instead of 0x%x, 0x%llx, 0x67: in the "
        "register the base has all 64 bits",
        sregs.tr.selector, sregs.tr.base, sregs.tr.limit, SELECTOR_TSS,
        (unsigned long long)(HIGHER_HALF_64 + TSS_OFFSET));
    ck_assert_msg(sregs.efer == (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE),
                  "EFER is 0x%llx: SYSCALL needs SCE (bit 0), and LME, LMA and NXE stay",
                  sregs.efer);
}
END_TEST

START_TEST(entry_checks)
{
    struct address_space space;

    start_long(&space);
    long_rings_add(&space, &sregs);
    const char *fault = entry_state_fault(&sregs, &regs);
    ck_assert_msg(
        !fault, "AMD's processors forgive it, Intel's refuse the entry with this state: %s", fault);
    ck_assert_msg(!sregs.ss.unusable && !sregs.ds.unusable && !sregs.es.unusable &&
                      !sregs.fs.unusable && !sregs.gs.unusable,
                  "a data segment register is marked `unusable`, and a segment is loaded: the "
                  "checks skip what is unusable");
    sregs.cs.selector = SELECTOR_LONG_USER_CODE;
    sregs.cs.dpl = sregs.ss.dpl = 3;
    sregs.ss.selector = SELECTOR_LONG_USER_DATA;
    fault = entry_state_fault(&sregs, &regs);
    ck_assert_msg(!fault, "the same state in ring 3 would be refused: %s", fault);
}
END_TEST

/* ------------------------------------------------------------------ 7.4 CPUID */

#define TABLE_MAX 64

/* A table like KVM's; both processes have it. */
static struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[TABLE_MAX];
} table;

#define LEAF_BITS_KEPT(leaf, field, mask, what)                                                    \
    ck_assert_msg(((leaf)->field & ~(mask)) == (before->field & ~(mask)),                          \
                  "leaf 0x%x: " #field " was 0x%x and is 0x%x: only %s", (leaf)->function,         \
                  before->field, (leaf)->field, what)

static const uint32_t functions[] = {0x0,        0x1,        0x7,  0xb,        0xb,
                                     0xb,        0xd,        0x1f, 0x40000000, 0x40000001,
                                     0x80000000, 0x80000001, 0x8,  0x40000100, 0x8000001e};
#define FUNCTIONS (sizeof functions / sizeof functions[0])

/* The entries with random bits; `before` gets a copy. */
static void table_make(struct kvm_cpuid_entry2 *before)
{
    memset(&table, 0, sizeof table);
    table.head.nent = FUNCTIONS;
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        uint32_t index =
            i > 0 && functions[i] == functions[i - 1] ? table.entries[i - 1].index + 1 : 0;
        table.entries[i] = (struct kvm_cpuid_entry2){.function = functions[i],
                                                     .index = index,
                                                     .eax = unit_random(),
                                                     .ebx = unit_random(),
                                                     .ecx = unit_random(),
                                                     .edx = unit_random()};
        table.entries[i].flags = functions[i] == 0xb ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    }
    memcpy(before, table.entries, FUNCTIONS * sizeof *before);
}

static const struct kvm_cpuid_entry2 *leaf_find(uint32_t function, uint32_t index, unsigned *count)
{
    const struct kvm_cpuid_entry2 *found = NULL;

    *count = 0;
    for (uint32_t i = 0; i < table.head.nent && i < TABLE_MAX; i++)
        if (table.entries[i].function == function && table.entries[i].index == index) {
            found = &table.entries[i];
            ++*count;
        }
    return found;
}

static bool table_show(uint32_t entries_max, uint32_t apic_id)
{
    return cpuid_show((struct kvm_cpuid2 *)(void *)&table, entries_max, apic_id);
}

START_TEST(features)
{
    static PRIVATE struct kvm_cpuid_entry2 all_before[FUNCTIONS];
    const uint32_t apic_id = 1 + unit_random() % 254;
    unsigned count;

    for (int round = 0; round < 20; round++) {
        table_make(all_before);
        ck_assert_msg(table_show(TABLE_MAX, apic_id), "cpuid_show returns false, with room left");
        for (uint32_t i = 0; i < FUNCTIONS; i++) {
            const struct kvm_cpuid_entry2 *before = &all_before[i];
            if (before->function >> 28 == 4)
                continue;
            const struct kvm_cpuid_entry2 *leaf =
                leaf_find(before->function, before->index, &count);
            ck_assert_msg(leaf && count == 1,
                          "leaf 0x%x, index %u, is there %u times instead of once",
                          before->function, before->index, count);
            ck_assert_msg(leaf->flags == before->flags, "leaf 0x%x: flags were changed",
                          leaf->function);
            const bool one = leaf->function == 0x1,
                       topology = leaf->function == 0xb || leaf->function == 0x1f;
            LEAF_BITS_KEPT(leaf, eax, leaf->function == 0x8000001e ? UINT32_MAX : 0,
                           "that of leaf 0x8000001e changes");
            LEAF_BITS_KEPT(leaf, ebx, one ? 0xff000000 : 0,
                           "leaf 1's APIC id, bits 24-31, changes");
            LEAF_BITS_KEPT(leaf, ecx, one ? (1u << 31 | 1u << 24 | 1u << 21) : 0,
                           "the bits of hypervisor, TSC deadline and x2APIC of leaf 1 change");
            LEAF_BITS_KEPT(leaf, edx,
                           one        ? 1u << 9
                           : topology ? UINT32_MAX
                                      : 0,
                           "leaf 1's bit 9 and the x2APIC id of leaves 0xb and 0x1f change");
            if (one) {
                ck_assert_msg(leaf->ecx >> 31, "leaf 1: ECX bit 31, hypervisor, is 0");
                ck_assert_msg(!(leaf->edx >> 9 & 1),
                              "leaf 1 shows a local APIC (EDX bit 9), and this VMM has none");
                ck_assert_msg(!(leaf->ecx >> 21 & 1) && !(leaf->ecx >> 24 & 1),
                              "leaf 1 shows an x2APIC (ECX bit 21) or its TSC deadline timer (bit "
                              "24), and this VMM has no local APIC");
                ck_assert_msg(leaf->ebx >> 24 == apic_id,
                              "leaf 1: the APIC id in EBX, bits 24-31, is %u instead of %u",
                              leaf->ebx >> 24, apic_id);
            }
            if (topology)
                ck_assert_msg(leaf->edx == apic_id,
                              "leaf 0x%x, index %u: the APIC id in EDX is %u instead of %u",
                              leaf->function, leaf->index, leaf->edx, apic_id);
            if (leaf->function == 0x8000001e)
                ck_assert_msg(leaf->eax == apic_id,
                              "leaf 0x8000001e: the APIC id in EAX is %u instead of %u", leaf->eax,
                              apic_id);
        }
    }
}
END_TEST

START_TEST(signature)
{
    static PRIVATE struct kvm_cpuid_entry2 before[FUNCTIONS];
    unsigned count;

    table_make(before);
    ck_assert_msg(table_show(TABLE_MAX, 0), "cpuid_show returns false, with room left");
    const struct kvm_cpuid_entry2 *leaf = leaf_find(CPUID_SIGNATURE, 0, &count);
    ck_assert_msg(leaf && count == 1, "leaf 0x40000000 is there %u times instead of once", count);
    ck_assert_msg(leaf->ebx == CPUID_SIGNATURE_EBX && leaf->ecx == CPUID_SIGNATURE_ECX &&
                      leaf->edx == CPUID_SIGNATURE_EDX,
                  "leaf 0x40000000 has EBX 0x%x, ECX 0x%x, EDX 0x%x: not the signature of abi.h",
                  leaf->ebx, leaf->ecx, leaf->edx);
    ck_assert_msg(leaf->eax == CPUID_SIGNATURE,
                  "leaf 0x40000000 says in EAX that the last hypervisor leaf is 0x%x: it is the "
                  "only one",
                  leaf->eax);
    ck_assert_msg(leaf->flags == 0 && leaf->index == 0, "leaf 0x40000000: flags and index are 0");
    for (uint32_t i = 0; i < table.head.nent && i < TABLE_MAX; i++)
        ck_assert_msg(table.entries[i].function >> 28 != 4 ||
                          table.entries[i].function == CPUID_SIGNATURE,
                      "KVM's leaf 0x%x is still there: it offers what this VMM does not set up",
                      table.entries[i].function);
    ck_assert_msg(table.head.nent == FUNCTIONS - 3 + 1,
                  "the table had %zu entries, three of them hypervisor leaves, and has %u now",
                  FUNCTIONS, table.head.nent);
}
END_TEST

START_TEST(no_room)
{
    static PRIVATE struct kvm_cpuid_entry2 before[FUNCTIONS];

    table_make(before);
    table.head.nent = 8; /* without hypervisor leaves */
    table.entries[8].function = 0x12345678;
    ck_assert_msg(!table_show(8, 0), "8 entries have room and are used, and cpuid_show has put a "
                                     "ninth there");
    ck_assert_msg(table.entries[8].function == 0x12345678, "cpuid_show wrote past the table");
    table_make(before);
    ck_assert_msg(table_show(FUNCTIONS - 2, 0),
                  "without KVM's three leaves there is room for the signature, and cpuid_show "
                  "returns false");
}
END_TEST

START_TEST(cpuid_failure)
{
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {{KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"},
                  {KVM_SET_CPUID2, "KVM_SET_CPUID2"}};
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    int status = vcpu_show_cpuid(&vcpu);
    ck_assert_msg(status == 0, "vcpu_show_cpuid returns %d instead of 0", status);
    for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++) {
        falsified = (struct falsified){.request = ioctls[i].request, .error = EIO};
        listen_start();
        status = vcpu_show_cpuid(&vcpu);
        listen_end();
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s failed, and vcpu_show_cpuid returns %d instead of STATUS_NO_KVM",
                      ioctls[i].name, status);
        ck_assert_msg(said[0] != '\0',
                      "%s failed, and vcpu_show_cpuid said nothing: fail() says it",
                      ioctls[i].name);
    }
}
END_TEST

/* ------------------------------------------------------------------ 7.5 ELF64 */

#define MEMORY_BYTES 0x48000
#define FILL         0xa5 /* what memory holds before: a loader that only copies leaves it */

/* A file with three segments: code, nothing to load, data with zeros behind. */
static PRIVATE struct {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3];
    uint8_t code[0x300];
    uint8_t data[0x80];
} file;

static uint8_t memory[MEMORY_BYTES];
static uint64_t first;

static void file_make(void)
{
    const uint64_t code = LOAD_MIN + 16 + unit_random() % 63 * 16,
                   data = 0x40000 + unit_random() % 64 * 16;

    file.header = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = HIGHER_HALF_64 + code + 0x20,
        .e_phoff = offsetof(typeof(file), segments),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 3,
    };
    file.segments[0] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), code),
        .p_vaddr = HIGHER_HALF_64 + code,
        .p_paddr = code,
        .p_filesz = sizeof file.code,
        .p_memsz = sizeof file.code,
        .p_flags = PF_R | PF_X,
    };
    file.segments[1] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_paddr = code, .p_memsz = 64};
    file.segments[2] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), data),
        .p_vaddr = HIGHER_HALF_64 + data,
        .p_paddr = data,
        .p_filesz = sizeof file.data,
        .p_memsz = sizeof file.data + 0x1000 + unit_random() % 0x1000,
        .p_flags = PF_R | PF_W,
    };
    for (size_t i = 0; i < sizeof file.code; i++)
        file.code[i] = (uint8_t)unit_random();
    for (size_t i = 0; i < sizeof file.data; i++)
        file.data[i] = (uint8_t)unit_random();
}

/* Loads the first `bytes` of the file; the copy ends where its memory ends. */
static const char *load_cut(size_t bytes, size_t memory_bytes)
{
    memset(memory, FILL, MEMORY_BYTES);
    first = 0;
    return elf64_load(copy_at_end(&file, bytes), bytes, memory, memory_bytes, &first);
}

static const char *load(void)
{
    return load_cut(sizeof file, MEMORY_BYTES);
}

static bool filled(uint64_t from, uint64_t to, uint8_t byte)
{
    for (uint64_t at = from; at < to; at++)
        if (memory[at] != byte)
            return false;
    return true;
}

/* The whole file is right: without this a loader that refuses all files would pass. */
static void check_right(const char *what)
{
    const char *wrong = load();

    ck_assert_msg(!wrong, "%s was refused: %s", what, wrong);
}

START_TEST(loads)
{
    file_make();
    const Elf64_Phdr *code = &file.segments[0], *data = &file.segments[2];
    check_right("a right file");
    ck_assert_msg(memcmp(memory + code->p_paddr, file.code, sizeof file.code) == 0,
                  "the first segment's bytes are not at p_paddr = 0x%llx",
                  (unsigned long long)code->p_paddr);
    ck_assert_msg(memcmp(memory + data->p_paddr, file.data, sizeof file.data) == 0,
                  "the second PT_LOAD segment's bytes are not at p_paddr = 0x%llx",
                  (unsigned long long)data->p_paddr);
    ck_assert_msg(filled(data->p_paddr + data->p_filesz, data->p_paddr + data->p_memsz, 0),
                  "the bytes from p_filesz to p_memsz are not all zero");
    ck_assert_msg(filled(0, code->p_paddr, FILL) &&
                      filled(code->p_paddr + code->p_memsz, data->p_paddr, FILL) &&
                      filled(data->p_paddr + data->p_memsz, MEMORY_BYTES, FILL),
                  "memory was changed that no PT_LOAD segment covers");
    ck_assert_msg(first == file.header.e_entry, "*entry is 0x%llx, e_entry is 0x%llx",
                  (unsigned long long)first, (unsigned long long)file.header.e_entry);
    file.segments[2].p_vaddr = file.segments[2].p_paddr;
    check_right("a file with a segment whose virtual address is the physical one");
    file.segments[2].p_paddr = code->p_paddr + code->p_memsz;
    file.segments[2].p_vaddr = HIGHER_HALF_64 + file.segments[2].p_paddr;
    check_right("a file with adjacent segments");
}
END_TEST

START_TEST(wrong_files)
{
    static const struct {
        const char *what;
        size_t at;
        uint16_t value;
        size_t bytes;
    } changes[] = {
        {"a file with no ELF magic", 0, 0x7e, 1},
        {"a file with no ELF magic", 3, 'G', 1},
        {"a 32-bit file", EI_CLASS, ELFCLASS32, 1},
        {"a big-endian file", EI_DATA, ELFDATA2MSB, 1},
        {"a relocatable file", offsetof(Elf64_Ehdr, e_type), ET_REL, 2},
        {"a shared library", offsetof(Elf64_Ehdr, e_type), ET_DYN, 2},
        {"a file for ARM", offsetof(Elf64_Ehdr, e_machine), EM_AARCH64, 2},
        {"a file for i386", offsetof(Elf64_Ehdr, e_machine), EM_386, 2},
        {"a file without program headers", offsetof(Elf64_Ehdr, e_phnum), 0, 2},
        {"a file with program headers of 32 bytes", offsetof(Elf64_Ehdr, e_phentsize), 32, 2},
        {"a file with 65535 program headers", offsetof(Elf64_Ehdr, e_phnum), 65535, 2},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        file_make();
        check_right("a right file");
        memcpy((uint8_t *)&file + changes[i].at, &changes[i].value, changes[i].bytes);
        ck_assert_msg(load(), "%s was not refused", changes[i].what);
    }
}
END_TEST

START_TEST(cut_files)
{
    static const uint64_t numbers[] = {sizeof file, 0x7fffffff,        0xfffffff0,
                                       1ull << 32,  UINT64_MAX - 0x7f, UINT64_MAX};

    file_make();
    check_right("a right file");
    for (size_t bytes = 0; bytes < sizeof file; bytes += bytes < 260 ? 1 : 13)
        ck_assert_msg(load_cut(bytes, MEMORY_BYTES),
                      "a file of %zu bytes was cut to %zu and not refused", sizeof file, bytes);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        file_make();
        file.header.e_phoff = numbers[i];
        ck_assert_msg(load(), "e_phoff = 0x%llx was not refused", (unsigned long long)numbers[i]);
        file_make();
        file.segments[2].p_offset = numbers[i];
        ck_assert_msg(load(), "p_offset = 0x%llx was not refused", (unsigned long long)numbers[i]);
        file_make();
        file.segments[2].p_filesz = file.segments[2].p_memsz = numbers[i];
        ck_assert_msg(load(), "p_filesz = 0x%llx was not refused", (unsigned long long)numbers[i]);
    }
}
END_TEST

START_TEST(wrong_places)
{
    static const uint64_t places[] = {0x1000,           LOAD_MIN - 0x1000, MEMORY_BYTES - 0x40,
                                      MEMORY_BYTES,     0xffffff00,        1ull << 32,
                                      UINT64_MAX - 0xff};
    static const uint64_t above[] = {0x40000000, 0x80000000, HIGHER_HALF_64 + PAGE_BYTES,
                                     0xffffffff00000000};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        file_make();
        check_right("a right file");
        Elf64_Phdr *segment = &file.segments[places[i] < LOAD_MIN ? 0 : 2];
        segment->p_paddr = places[i];
        segment->p_vaddr = HIGHER_HALF_64 + places[i];
        if (places[i] < LOAD_MIN)
            file.header.e_entry = segment->p_vaddr;
        ck_assert_msg(load(), "a segment at 0x%llx, in memory of 0x%x bytes, was not refused",
                      (unsigned long long)places[i], MEMORY_BYTES);
    }
    for (size_t i = 0; i < sizeof above / sizeof above[0]; i++) {
        file_make();
        file.segments[2].p_vaddr = above[i] + file.segments[2].p_paddr;
        ck_assert_msg(load(),
                      "a segment with p_paddr 0x%llx and p_vaddr 0x%llx was not refused: what the "
                      "kernel finds at that virtual address is not the segment",
                      (unsigned long long)file.segments[2].p_paddr,
                      (unsigned long long)file.segments[2].p_vaddr);
    }
    file_make();
    file.segments[2].p_memsz = UINT64_MAX - 0xfff;
    ck_assert_msg(load(), "p_memsz = 0xfffffffffffff000 was not refused");
    file_make();
    file.segments[2].p_filesz = 0x40;
    file.segments[2].p_memsz = 0x3f;
    ck_assert_msg(load(), "p_filesz over p_memsz was not refused");
    file_make();
    file.segments[2].p_paddr = file.segments[0].p_paddr + file.segments[0].p_memsz - 16;
    file.segments[2].p_vaddr = HIGHER_HALF_64 + file.segments[2].p_paddr;
    ck_assert_msg(load(), "two overlapping segments were not refused");
    file_make();
    const size_t end = (size_t)(file.segments[2].p_paddr + file.segments[2].p_memsz);
    ck_assert_msg(load_cut(sizeof file, end - 1),
                  "a segment that ends one byte after the memory was not refused");
    ck_assert_msg(!load_cut(sizeof file, end),
                  "a segment that ends exactly at the memory's end was refused");
}
END_TEST

START_TEST(wrong_entry)
{
    file_make();
    const Elf64_Phdr *code = &file.segments[0];
    const uint64_t wrong[] = {0, code->p_vaddr - 1, code->p_vaddr + code->p_memsz,
                              file.segments[2].p_vaddr, code->p_paddr},
                   right[] = {code->p_vaddr, code->p_vaddr + code->p_memsz - 1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        file.header.e_entry = wrong[i];
        ck_assert_msg(load(), "the entry point 0x%llx is in no executable segment: not refused",
                      (unsigned long long)wrong[i]);
    }
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        file.header.e_entry = right[i];
        check_right("a file whose entry point is at an end of the executable segment");
    }
}
END_TEST

/* A vCPU of the real KVM, and a space that is all of its RAM. */
static struct address_space start_space(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    memset(vm->ram, FILL, TABLES_END + PAGE_BYTES);
    return (struct address_space){
        .memory = vm->ram, .bytes = (uint32_t)vm->ram_bytes, .next_table = TABLES_OFFSET};
}

START_TEST(boot_information)
{
    struct vm vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&vm, &vcpu);
    struct boot_info info;

    vcpu.index = 0;
    space.bytes = (uint32_t)vm.ram_bytes / 2; /* as of a guest that shares the RAM */
    const uint32_t tick_ms = 11 + unit_random() % 80;
    vmm.options.tick_ms = tick_ms;
    vmm.options.ram_bytes = 2 * vm.ram_bytes; /* the space is what counts */
    entry = HIGHER_HALF_64 + LOAD_DEFAULT;
    int status = long_mode_enter(&vcpu, &space, entry);
    ck_assert_msg(status == 0, "long_mode_enter returns %d instead of 0", status);
    ck_assert(kernel(vcpu.fd, KVM_GET_REGS, &regs) == 0);
    ck_assert(kernel(vcpu.fd, KVM_GET_SREGS, &sregs) == 0);
    ck_assert_msg(regs.rip == entry, "RIP is 0x%llx instead of the entry point", regs.rip);
    ck_assert_msg(regs.rdi == BOOT_INFO_OFFSET, "RDI is 0x%llx instead of BOOT_INFO_OFFSET",
                  regs.rdi);
    const uint64_t stack_at = regs.rsp - HIGHER_HALF_64;
    ck_assert_msg(stack_at >= BOOT_INFO_OFFSET + PAGE_BYTES && stack_at <= LOAD_MIN &&
                      stack_at % 16 == 0,
                  "RSP is 0x%llx: the stack is to lie in the higher half, above the boot "
                  "information and below the lowest image (LOAD_MIN), a multiple of 16",
                  regs.rsp);
    ck_assert_msg(sregs.efer == (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE),
                  "EFER is 0x%llx: long_mode_state and long_rings_add were not both called",
                  sregs.efer);
    memcpy(&info, vm.ram + BOOT_INFO_OFFSET, sizeof info);
    ck_assert_msg(info.magic == BOOT_MAGIC && info.size == sizeof info,
                  "at BOOT_INFO_OFFSET are 0x%x and %u, not magic 0x%x and size %zu", info.magic,
                  info.size, BOOT_MAGIC, sizeof info);
    ck_assert_msg(info.memory_bytes == space.bytes, "memory_bytes is 0x%x, space->bytes is 0x%x",
                  info.memory_bytes, space.bytes);
    ck_assert_msg(info.tick_ms == tick_ms, "tick_ms is %u, with --tick-ms=%u", info.tick_ms,
                  tick_ms);
    ck_assert_msg(info.archive_start == 0 && info.archive_bytes == 0,
                  "there is no archive, and archive_start is 0x%x, archive_bytes %u",
                  info.archive_start, info.archive_bytes);
}
END_TEST

START_TEST(enter_failure)
{
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {{KVM_SET_CPUID2, "KVM_SET_CPUID2"},
                  {KVM_GET_SREGS, "KVM_GET_SREGS"},
                  {KVM_SET_SREGS, "KVM_SET_SREGS"},
                  {KVM_SET_REGS, "KVM_SET_REGS"}};
    struct vm vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&vm, &vcpu);

    int status = long_mode_enter(&vcpu, &space, HIGHER_HALF_64);
    ck_assert_msg(status == 0, "long_mode_enter returns %d instead of 0", status);
    for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++) {
        falsified = (struct falsified){.request = ioctls[i].request, .error = EIO};
        space.next_table = TABLES_OFFSET;
        listen_start();
        status = long_mode_enter(&vcpu, &space, HIGHER_HALF_64);
        listen_end();
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s failed, and long_mode_enter returns %d instead of STATUS_NO_KVM",
                      ioctls[i].name, status);
        ck_assert_msg(said[0] != '\0',
                      "%s failed, and long_mode_enter said nothing: fail() says it",
                      ioctls[i].name);
    }
}
END_TEST

/* ------------------------------------------------------------------ 7.6 the walk */

#define WALK_RAM 0x40000u
#define WALK_CR3 0x5000u
#define EFER     (EFER_LME | EFER_LMA | EFER_NXE)

/* Where the tables of the levels PML4, PDPT, PD and page table are. */
static const uint64_t walk_tables[] = {WALK_CR3, 0x9000, 0xf000, 0x12000};

static uint64_t random_canonical(void)
{
    return (uint64_t)((int64_t)(random64() << 16) >> 16);
}

static uint64_t *walk_entry(uint64_t virt, unsigned depth)
{
    const unsigned index = virt >> (39 - 9 * depth) & 511;

    return (uint64_t *)(void *)(ram + walk_tables[depth] + index * 8);
}

/* Tables that lead to `frame` at this depth, with these rights in all levels above. */
static void walk_make(uint64_t virt, unsigned last, uint64_t frame, const uint64_t rights[4])
{
    memset(ram, 0, WALK_RAM);
    for (unsigned depth = 0; depth < last; depth++)
        *walk_entry(virt, depth) = walk_tables[depth + 1] | rights[depth] | PAGE_PRESENT;
    *walk_entry(virt, last) = frame | rights[last] | PAGE_PRESENT | (last < 3 ? PAGE_LARGE : 0);
}

static struct long_walk walk(uint64_t virt)
{
    return long_walk(ram, WALK_RAM, WALK_CR3 | (unit_random() & 0x18), EFER, virt);
}

static void check_walk(struct long_walk found, uint64_t virt, unsigned last, uint64_t phys,
                       const uint64_t rights[4])
{
    uint64_t granted = PAGE_WRITABLE | PAGE_USER, denied = 0;

    ck_assert_msg(found.mapped, "long_walk finds no page for 0x%llx, and there is one: %s",
                  (unsigned long long)virt, found.reason ? found.reason : "(no reason)");
    ck_assert_msg(found.phys == phys,
                  "long_walk of 0x%llx, in a page of %s, finds 0x%llx instead of 0x%llx",
                  (unsigned long long)virt,
                  last == 3   ? "4 KB"
                  : last == 2 ? "2 MB"
                              : "1 GB",
                  (unsigned long long)found.phys, (unsigned long long)phys);
    for (unsigned depth = 0; depth <= last; depth++) {
        granted &= rights[depth];
        denied |= rights[depth] & PAGE_NX;
        ck_assert_msg(found.entries[depth] == *walk_entry(virt, depth),
                      "entries[%u] is 0x%llx instead of 0x%llx, as read", depth,
                      (unsigned long long)found.entries[depth],
                      (unsigned long long)*walk_entry(virt, depth));
    }
    ck_assert_msg(found.levels == last + 1, "%u entries were read, and levels is %u", last + 1,
                  found.levels);
    ck_assert_msg(found.writable == !!(granted & PAGE_WRITABLE) &&
                      found.user == !!(granted & PAGE_USER) && found.executable == !denied,
                  "long_walk finds %s, %s, %s instead of %s: write and user need every level, and "
                  "PAGE_NX at one level is enough",
                  found.writable ? "writable" : "read-only", found.user ? "user" : "kernel",
                  found.executable ? "executable" : "no execute", rights_text(granted | denied));
}

/* All rights in most levels, so that each level decides at times. */
static void rights_make(uint64_t rights[4])
{
    for (unsigned depth = 0; depth < 4; depth++) {
        uint64_t random = random64();
        rights[depth] = PAGE_WRITABLE | PAGE_USER;
        if (random % 4 == 0)
            rights[depth] = random >> 8 & (PAGE_WRITABLE | PAGE_USER);
        if (random >> 32 & 3 ? false : true)
            rights[depth] |= PAGE_NX;
        rights[depth] |= random & 0x60; /* accessed, dirty */
    }
}

START_TEST(walks)
{
    uint64_t rights[4];

    for (int i = 0; i < 200; i++) {
        uint64_t virt = random_canonical(), frame = random64() & 0x000ffffffffff000;
        rights_make(rights);
        walk_make(virt, 3, frame, rights);
        check_walk(walk(virt), virt, 3, frame | (virt & 0xfff), rights);
    }
}
END_TEST

START_TEST(walks_large)
{
    uint64_t rights[4];

    for (int i = 0; i < 200; i++) {
        const unsigned last = i % 2 ? 2 : 1;
        const uint64_t in_page = (1ull << (39 - 9 * last)) - 1, virt = random_canonical();
        const uint64_t frame = random64() & 0x000ffffffffff000 & ~in_page;
        rights_make(rights);
        walk_make(virt, last, frame, rights);
        *walk_entry(virt, last) |= unit_random() & 0x1000; /* bit 12: a cache type */
        check_walk(walk(virt), virt, last, frame | (virt & in_page), rights);
    }
}
END_TEST

/* The walk ended without a page, and returns the entries that it has read. */
static void check_nowhere(uint64_t virt, const char *what, unsigned levels)
{
    struct long_walk found = walk(virt);

    ck_assert_msg(!found.mapped, "%s, and long_walk finds a page", what);
    ck_assert_msg(found.reason && found.reason[0], "%s, and long_walk gives no reason", what);
    ck_assert_msg(found.levels == levels, "%s: %u entries were read, and levels is %u", what,
                  levels, found.levels);
    for (unsigned depth = 0; depth < levels; depth++)
        ck_assert_msg(found.entries[depth] == *walk_entry(virt, depth),
                      "%s: entries[%u] is 0x%llx instead of 0x%llx; the post-mortem needs them "
                      "most when there is no page",
                      what, depth, (unsigned long long)found.entries[depth],
                      (unsigned long long)*walk_entry(virt, depth));
}

static void reason_keep(char *text, struct long_walk found)
{
    snprintf(text, RESULT_BYTES, "%s", found.reason ? found.reason : "");
}

static const uint64_t all_rights[4] = {PAGE_WRITABLE | PAGE_USER, PAGE_WRITABLE | PAGE_USER,
                                       PAGE_WRITABLE | PAGE_USER, PAGE_WRITABLE | PAGE_USER};

START_TEST(walks_nowhere)
{
    static const char *const names[] = {"PML4", "PDPT", "PD", "page table"};
    const uint64_t virt = random_canonical();
    char what[80];
    char reasons[3][RESULT_BYTES] = {"", "", ""};

    walk_make(virt, 3, 0x8000, all_rights);
    check_walk(walk(virt), virt, 3, 0x8000 | (virt & 0xfff), all_rights);
    for (unsigned depth = 0; depth < 4; depth++) {
        walk_make(virt, 3, 0x8000, all_rights);
        *walk_entry(virt, depth) &= ~(uint64_t)PAGE_PRESENT;
        snprintf(what, sizeof what, "the %s entry is not present", names[depth]);
        check_nowhere(virt, what, depth + 1);
        if (depth == 0)
            reason_keep(reasons[0], walk(virt));
        if (depth == 3)
            continue;
        walk_make(virt, 3, 0x8000, all_rights);
        *walk_entry(virt, depth) = WALK_RAM | all_rights[0] | PAGE_PRESENT;
        snprintf(what, sizeof what, "the %s is outside of RAM", names[depth + 1]);
        check_nowhere(virt, what, depth + 1);
        reason_keep(reasons[1], walk(virt));
        const uint64_t above_4g = 1ull << (32 + unit_random() % 20);
        walk_make(virt, 3, 0x8000, all_rights);
        *walk_entry(virt, depth) |= above_4g;
        snprintf(what, sizeof what, "the %s is outside of RAM, at 0x%llx", names[depth + 1],
                 (unsigned long long)(above_4g | walk_tables[depth + 1]));
        check_nowhere(virt, what, depth + 1);
    }
    struct long_walk outside = long_walk(ram, WALK_RAM, 0xffffff000, EFER, virt);
    ck_assert_msg(!outside.mapped && outside.levels == 0 && outside.reason,
                  "the PML4 is outside of RAM, and long_walk finds a page or gives no reason");
    walk_make(virt, 3, 0x8000, all_rights);
    const uint64_t cr3 = WALK_CR3 | 1ull << (32 + unit_random() % 20);
    outside = long_walk(ram, WALK_RAM, cr3, EFER, virt);
    ck_assert_msg(!outside.mapped && outside.levels == 0 && outside.reason,
                  "CR3 is 0x%llx, outside of RAM, and long_walk finds a page or gives no reason",
                  (unsigned long long)cr3);
    static const uint64_t crooked[] = {0x800000000000, 0xffff7fffffffffff, 1ull << 63, 1ull << 48,
                                       0xfffe800000000000};
    for (size_t i = 0; i < sizeof crooked / sizeof crooked[0]; i++) {
        walk_make(crooked[i], 3, 0x8000, all_rights);
        struct long_walk found = walk(crooked[i]);
        ck_assert_msg(!found.mapped && found.reason,
                      "0x%llx is not canonical, and long_walk finds a page or gives no reason",
                      (unsigned long long)crooked[i]);
        reason_keep(reasons[2], found);
    }
    for (int i = 1; i < 3; i++)
        for (int j = 0; j < i; j++)
            ck_assert_msg(strcmp(reasons[i], reasons[j]) != 0,
                          "\"%s\" is long_walk's reason both for an entry that is not present, a "
                          "table outside of RAM or an address that is not canonical: say which",
                          reasons[i]);
}
END_TEST

START_TEST(walks_reserved)
{
    const uint64_t virt = random_canonical();

    walk_make(virt, 3, 0x8000, all_rights);
    check_walk(walk(virt), virt, 3, 0x8000 | (virt & 0xfff), all_rights);
    *walk_entry(virt, 3) &= ~(uint64_t)PAGE_PRESENT;
    char absent[RESULT_BYTES];
    reason_keep(absent, walk(virt));

    walk_make(virt, 3, 0x8000, all_rights);
    *walk_entry(virt, 0) |= PAGE_LARGE;
    check_nowhere(virt, "the PML4 entry has bit 7, which is reserved there", 1);
    ck_assert_msg(strcmp(absent, walk(virt).reason) != 0,
                  "a reserved bit is set, and the reason is \"%s\", as for an entry that is not "
                  "present",
                  absent);
    for (unsigned last = 1; last < 3; last++) {
        walk_make(virt, last, 0, all_rights);
        *walk_entry(virt, last) |= 1ull << (13 + unit_random() % (26 - 9 * last));
        check_nowhere(virt,
                      last == 1 ? "the entry of a 1 GB page has an address bit below 1 GB"
                                : "the entry of a 2 MB page has an address bit below 2 MB",
                      last + 1);
    }
    for (unsigned depth = 0; depth < 4; depth++) {
        walk_make(virt, 3, 0x8000, all_rights);
        *walk_entry(virt, depth) |= PAGE_NX;
        struct long_walk found = long_walk(ram, WALK_RAM, WALK_CR3, EFER & ~EFER_NXE, virt);
        ck_assert_msg(!found.mapped && found.reason && found.levels == depth + 1,
                      "PAGE_NX is set and EFER.NXE is 0, so the bit is reserved, and long_walk "
                      "finds a page or gives no reason");
        ck_assert_msg(walk(virt).mapped && !walk(virt).executable,
                      "PAGE_NX is set and EFER.NXE is 1: there is a page, which is not executable");
    }
    *walk_entry(virt, 3) = PAGE_LARGE | PAGE_PRESENT | 0x8000;
    ck_assert_msg(walk(virt).mapped, "bit 7 of a page table's entry is a cache type, not reserved");
}
END_TEST

/* The last entry of a table ends where RAM does. */
START_TEST(walks_edges)
{
    const uint64_t virt = 0xfffffffffffff000, last = WALK_RAM - PAGE_BYTES;

    memset(ram, 0, WALK_RAM + PAGE_BYTES);
    for (unsigned i = 0; i < 2; i++) { /* entry 511 of a table that leads to itself */
        const uint64_t table_at = i == 0 ? last : WALK_RAM;
        memset(ram, 0, WALK_RAM + PAGE_BYTES);
        poke(table_at + 4088, table_at | PAGE_WRITABLE | PAGE_PRESENT);
        struct long_walk found = long_walk(ram, WALK_RAM, table_at, EFER, virt);
        if (i == 0)
            ck_assert_msg(found.mapped && found.phys == table_at,
                          "the tables are the last 4 KB of RAM, and long_walk finds no page: %s",
                          found.reason ? found.reason : "(no reason)");
        else
            ck_assert_msg(
                !found.mapped,
                "the table is the first page past the end of RAM, and long_walk reads it");
    }
    walk_make(virt, 3, 0x8000, all_rights);
    *walk_entry(virt, 0) = 0x000ffffffffff000 | PAGE_PRESENT;
    ck_assert_msg(!walk(virt).mapped,
                  "a table at the largest address that an entry can have, and long_walk finds it");
}
END_TEST

/* ------------------------------------------------------------------ WRITE */

/* The guest's WRITE as KVM reports it; the data is at data_offset. */
static struct {
    struct kvm_run run;
    uint8_t number[4];
} write_exit;

/* What a string is, the judge sees in guests; here the registers can't be read. */
START_TEST(write_unread)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    guest.kind = GUEST_ELF64;
    vcpu.run = &write_exit.run;
    write_exit.run.exit_reason = KVM_EXIT_IO;
    write_exit.run.io.direction = KVM_EXIT_IO_OUT;
    write_exit.run.io.port = HYPERCALL_PORT;
    write_exit.run.io.size = 4;
    write_exit.run.io.count = 1;
    write_exit.run.io.data_offset = offsetof(typeof(write_exit), number);
    write_exit.number[0] = HC_WRITE;
    ck_assert_msg(long_mode_io(&vcpu) == STEP_RUN,
                  "after a WRITE of 0 bytes, as RCX is after reset, the vCPU does not run on");
    falsified = (struct falsified){.request = KVM_GET_REGS, .error = EFAULT};
    listen_start();
    enum step step = long_mode_io(&vcpu);
    listen_end();
    ck_assert_msg(step == STEP_END && vcpu.status == STATUS_CRASHED,
                  "KVM_GET_REGS failed at WRITE, and %s: when vcpu_registers does not return 0, "
                  "return vcpu_end(vcpu, STATUS_CRASHED)",
                  step == STEP_END ? "the status is not STATUS_CRASHED" : "the vCPU runs on");
    ck_assert_msg(!strstr(said, "5c5c5c5c"),
                  "KVM_GET_REGS failed at WRITE, and the message gives an address that was never "
                  "read: when vcpu_registers does not return 0, return vcpu_end(vcpu, "
                  "STATUS_CRASHED)");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("long_mode");

    unit_add(suite, "tables", tables);
    unit_add(suite, "map", map);
    unit_add(suite, "split", split);
    unit_add(suite, "two_spaces", two_spaces);
    unit_add(suite, "refused", refused);
    unit_add(suite, "exhausted", exhausted);
    unit_add(suite, "gdt", gdt);
    unit_add(suite, "state", state);
    unit_add(suite, "segments", segments);
    unit_add(suite, "rings", rings);
    unit_add(suite, "entry_checks", entry_checks);
    unit_add(suite, "features", features);
    unit_add(suite, "signature", signature);
    unit_add(suite, "no_room", no_room);
    unit_add(suite, "cpuid_failure", cpuid_failure);
    unit_add(suite, "loads", loads);
    unit_add(suite, "wrong_files", wrong_files);
    unit_add(suite, "cut_files", cut_files);
    unit_add(suite, "wrong_places", wrong_places);
    unit_add(suite, "wrong_entry", wrong_entry);
    unit_add(suite, "boot_information", boot_information);
    unit_add(suite, "enter_failure", enter_failure);
    unit_add(suite, "walks", walks);
    unit_add(suite, "walks_large", walks_large);
    unit_add(suite, "walks_nowhere", walks_nowhere);
    unit_add(suite, "walks_reserved", walks_reserved);
    unit_add(suite, "walks_edges", walks_edges);
    unit_add(suite, "write_unread", write_unread);
    return unit_main(suite);
}
