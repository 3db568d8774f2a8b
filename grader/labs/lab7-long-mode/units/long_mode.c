/*
 * long_mode.c - lab 7's module function by function. No guest runs here: what the module writes
 * into memory is read as a processor would read it. Only what sets a vCPU's state needs KVM.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "../../locks.h"
#include "lab7.h"

#include <elf.h>

#include "debug/entry_state.h"

MODULE_VOID(long_tables_build, (struct address_space * space), (space), SEE_SPACE(space))
MODULE(int, long_page_map,
       (struct address_space * space, uint64_t virt, uint32_t phys, uint64_t flags),
       (space, virt, phys, flags), SEE_SPACE(space))
MODULE_VOID(long_gdt_build, (struct address_space * space), (space), SEE_SPACE(space))
MODULE_VOID(long_mode_state,
            (const struct address_space *space, uint64_t entry, uint64_t stack,
             struct kvm_sregs *sregs, struct kvm_regs *regs),
            (space, entry, stack, sregs, regs), KEEP(*space), SEE(*sregs), SEE(*regs))
MODULE_VOID(long_rings_add, (struct address_space * space, struct kvm_sregs *sregs), (space, sregs),
            SEE_SPACE(space), SEE(*sregs))
MODULE(bool, cpuid_show, (struct kvm_cpuid2 * cpuid, uint32_t entries_max, uint32_t apic_id),
       (cpuid, entries_max, apic_id))
MODULE(int, vcpu_show_cpuid, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))
MODULE(const char *, elf64_load,
       (const uint8_t *bytes, size_t byte_count, uint8_t *to, size_t to_bytes, uint64_t *first),
       (bytes, byte_count, to, to_bytes, first), see_text(&result))
MODULE(int, long_mode_enter, (struct vcpu * vcpu, struct address_space *space, uint64_t entry),
       (vcpu, space, entry), see_vcpu(vcpu), SEE_SPACE(space))
MODULE(struct long_walk, long_walk,
       (const uint8_t *ram, size_t ram_bytes, uint64_t cr3, uint64_t efer, uint64_t virt),
       (ram, ram_bytes, cr3, efer, virt), see_text(&result.reason))
MODULE(enum step, long_mode_io, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))

#define SPACE_BYTES 0x800000u   /* of most address spaces here: 8 MB */
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
    uint64_t virt, phys, rights;
    uint64_t place;      /* guest-physical, of the last entry that was read */
    unsigned level;      /* of that entry: 0 to 3 */
    uint64_t entries[4]; /* as read, by their level */
};

static unsigned index_at(uint64_t virt, unsigned level)
{
    return virt >> (12 + 9 * level) & 511;
}

/* The entries down to this level in words. */
static const char *entries_text(const struct found *found, unsigned last)
{
    static char text[160];
    int used = 0;

    text[0] = '\0';
    for (unsigned level = 4; level-- > last;)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%s[%u] = 0x%llx",
                         used ? ", " : "", level_names[level], index_at(found->virt, level),
                         (unsigned long long)found->entries[level]);
    return text;
}

static struct found translate(const struct address_space *space, uint64_t virt)
{
    struct found found = {.virt = virt, .level = 3, .rights = RIGHTS & ~PAGE_NX};
    uint64_t table = space->base + DIRECTORY_OFFSET, entry;

    for (;; found.level--) {
        found.place = table + index_at(virt, found.level) * 8;
        ck_assert_msg(found.place >= space->base + GDT_OFFSET &&
                          found.place < space->base + TABLES_END,
                      "address 0x%llx: %s leads to a table at 0x%llx, which is not one of the "
                      "guest's, up to TABLES_END",
                      (unsigned long long)virt, entries_text(&found, found.level + 1),
                      (unsigned long long)table);
        memcpy(&entry, ram + found.place, sizeof entry);
        found.entries[found.level] = entry;
        if (!(entry & PAGE_PRESENT))
            return found;
        found.rights = (found.rights & entry) | ((found.rights | entry) & PAGE_NX);
        if (found.level == 0 || entry & PAGE_LARGE) {
            uint64_t in_page = (1ull << (12 + 9 * found.level)) - 1;
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
                     when, address, found.mapped ? "" : "not ", entries_text(&found, found.level),
                     space->bytes, space->base);
    if (!found.mapped)
        return;
    if (found.phys != space->base + phys)
        ck_abort_msg("%s: address 0x%llx leads to 0x%llx instead of 0x%llx: %s (the guest's memory "
                     "starts at 0x%x)",
                     when, address, (unsigned long long)found.phys,
                     (unsigned long long)(space->base + phys), entries_text(&found, found.level),
                     space->base);
    if (found.rights != flags)
        ck_abort_msg("%s: address 0x%llx is %s instead of %s: %s (a right needs every level)", when,
                     address, rights_text(found.rights), rights_text(flags),
                     entries_text(&found, found.level));
}

/* ------------------------------------------------------------------ two vCPUs at once */

/* After so many of the module's instructions another vCPU's thread makes a call: `meanwhile`. */
#define AT_STEP 2ul
static unsigned step_wanted, steps_done;

/* The thread sanitizer is built in: a step may be one of its own, and then no thread can start. */
void __tsan_init(void) __attribute__((weak));

BOTH static void step_count(int signal, siginfo_t *info, void *context)
{
    if (steps_done++ == step_wanted && !__tsan_init)
        meanwhile_run(AT_STEP);
}

/* Before a call that makes `what` meanwhile; the first one, of NULL, counts the instructions. */
static void between_steps(void (*what)(void))
{
    step_wanted = what && steps_done > 0 ? unit_random() % steps_done : 0;
    steps_done = 0;
    meanwhile = what;
    meanwhile_at = AT_STEP;
}

/* ------------------------------------------------------------------ all that is mapped */

#define EXTENTS_MAX 4096
#define NO_PAGE     1 /* the address of none */

/* Addresses that follow each other, and so does where they lead to, with the same rights. */
struct extent {
    uint64_t virt, bytes, phys, rights;
};

/* A reading of all tables: of all addresses, or without the two halves, but for one page. */
struct mapped {
    uint64_t but_for;
    bool without_halves;
    unsigned tables; /* that were read */
    size_t count;
    struct extent extents[EXTENTS_MAX];
};
static PRIVATE struct mapped all_before, all_now;

static void extent_add(struct mapped *all, uint64_t virt, uint64_t bytes, uint64_t phys,
                       uint64_t rights)
{
    struct extent *last = all->count > 0 ? &all->extents[all->count - 1] : NULL;

    if (bytes == 0)
        return;
    if (last && last->virt + last->bytes == virt && last->phys + last->bytes == phys &&
        last->rights == rights) {
        last->bytes += bytes;
        return;
    }
    ck_assert_msg(all->count < EXTENTS_MAX,
                  "the tables map more than anybody asked for, the last of it address 0x%llx: "
                  "memory is not zero before you write to it",
                  (unsigned long long)virt);
    all->extents[all->count++] =
        (struct extent){.virt = virt, .bytes = bytes, .phys = phys, .rights = rights};
}

/* What one entry maps, which is a page of this size. */
static void page_add(const struct address_space *space, struct mapped *all, struct extent page)
{
    const bool in_half = page.virt < space->bytes || page.virt >= HIGHER_HALF_64;
    const uint64_t skipped = all->but_for - page.virt;

    if (all->without_halves && in_half)
        return;
    if (all->but_for == NO_PAGE || skipped >= page.bytes) {
        extent_add(all, page.virt, page.bytes, page.phys, page.rights);
        return;
    }
    const uint64_t after = skipped + PAGE_BYTES;
    extent_add(all, page.virt, skipped, page.phys, page.rights);
    extent_add(all, page.virt + after, page.bytes - after, page.phys + after, page.rights);
}

static void table_check(const struct address_space *space, struct mapped *all, uint64_t table,
                        unsigned level)
{
    const uint64_t offset = table - space->base;

    ck_assert_msg(offset == DIRECTORY_OFFSET ||
                      (offset >= TABLES_OFFSET && offset < space->next_table),
                  "an entry leads to a %s at 0x%llx; the guest's memory starts at 0x%x, tables are "
                  "taken from TABLES_OFFSET on, and space->next_table, 0x%x, is the first unused",
                  level_names[level], (unsigned long long)table, space->base, space->next_table);
    ck_assert_msg(++all->tables < 1000, "the tables lead to each other");
}

static void table_read(const struct address_space *space, struct mapped *all, uint64_t table,
                       unsigned level, struct extent above)
{
    const unsigned shift = 12 + 9 * level;
    const uint64_t size = 1ull << shift;
    uint64_t entry;

    table_check(space, all, table, level);
    for (uint64_t i = 0; i < 512; i++) {
        memcpy(&entry, ram + table + i * 8, sizeof entry);
        if (!(entry & PAGE_PRESENT))
            continue;
        struct extent page = {.virt = above.virt | i << shift, .bytes = size};
        page.virt |= page.virt >> 47 & 1 ? 0xffff000000000000 : 0;
        page.phys = entry & LONG_FRAME;
        page.rights = (above.rights & entry) | ((above.rights | entry) & PAGE_NX);
        const bool last = level == 0 || (level < 3 && entry & PAGE_LARGE);
        ck_assert_msg(!(entry & PAGE_LARGE && (level == 0 || level == 3)) &&
                          !(last && page.phys & (size - 1)),
                      "%s[%u] is 0x%llx, which has a bit that must be 0 there", level_names[level],
                      (unsigned)i, (unsigned long long)entry);
        if (last)
            page_add(space, all, page);
        else
            table_read(space, all, page.phys, level - 1, page);
    }
}

static void all_read(const struct address_space *space, struct mapped *all, uint64_t but_for,
                     bool without_halves)
{
    all->but_for = but_for;
    all->without_halves = without_halves;
    all->count = all->tables = 0;
    table_read(space, all, space->base + DIRECTORY_OFFSET, 3,
               (struct extent){.rights = RIGHTS & ~PAGE_NX});
}

/* Where this address leads to, in words. */
static const char *extent_text(const struct mapped *all, uint64_t virt)
{
    static char texts[2][120];
    static unsigned next;
    char *text = texts[next++ % 2];

    snprintf(text, sizeof texts[0], "nothing");
    for (size_t i = 0; i < all->count; i++) {
        const struct extent *extent = &all->extents[i];
        if (virt - extent->virt < extent->bytes)
            snprintf(text, sizeof texts[0], "0x%llx, %s",
                     (unsigned long long)(extent->phys + virt - extent->virt),
                     rights_text(extent->rights));
    }
    return text;
}

/* The first address that the two do not map alike, or NO_PAGE. */
static uint64_t extents_differ(const struct mapped *one, const struct mapped *other)
{
    for (size_t i = 0; i < one->count || i < other->count; i++) {
        const struct extent *a = &one->extents[i], *b = &other->extents[i];
        if (i >= one->count || i >= other->count)
            return i < one->count ? a->virt : b->virt;
        if (a->virt != b->virt)
            return a->virt < b->virt ? a->virt : b->virt;
        if (a->phys != b->phys || a->rights != b->rights)
            return a->virt;
        if (a->bytes != b->bytes)
            return a->virt + (a->bytes < b->bytes ? a->bytes : b->bytes);
    }
    return NO_PAGE;
}

/* All is mapped as in all_before, which has been read in the same way. */
static void check_all(const struct address_space *space, const char *when)
{
    all_read(space, &all_now, all_before.but_for, all_before.without_halves);
    const uint64_t virt = extents_differ(&all_before, &all_now);
    ck_assert_msg(virt == NO_PAGE, "%s: address 0x%llx maps %s instead of %s", when,
                  (unsigned long long)virt, extent_text(&all_now, virt),
                  extent_text(&all_before, virt));
}

/* These bytes of RAM are as space_at made them. */
static void check_untouched(uint64_t start, uint64_t end, const char *when)
{
    uint64_t at = start;

    if (start == end || (ram[start] == 0xa5 &&
                         memcmp(ram + start, ram + start + 1, (size_t)(end - start - 1)) == 0))
        return;
    while (ram[at] == 0xa5)
        at++;
    ck_abort_msg(
        "%s: the byte at guest-physical 0x%llx was changed, where nothing is to be written", when,
        (unsigned long long)at);
}

/* Of RAM nothing has changed since space_at but these bytes. */
static void check_ram_kept(uint64_t start, uint64_t end, const char *when)
{
    check_untouched(0, start, when);
    check_untouched(end, sizeof ram, when);
}

/* The same, of the tables. */
static void check_only_tables(const struct address_space *space, const char *when)
{
    check_ram_kept(space->base + DIRECTORY_OFFSET, space->base + TABLES_END, when);
}

/* ------------------------------------------------------------------ 7.1 tables */

static uint64_t random_page(uint64_t bytes)
{
    return unit_random() % (bytes / PAGE_BYTES) * PAGE_BYTES;
}

/* All of the space is mapped twice, nothing else is, and tables begin at space->next_table. */
static void check_built(const struct address_space *space, uint32_t first_table, const char *when)
{
    const uint64_t bytes =
        (space->bytes + MEDIUM_PAGE_BYTES - 1ull) / MEDIUM_PAGE_BYTES * MEDIUM_PAGE_BYTES;

    all_before.but_for = NO_PAGE;
    all_before.without_halves = false;
    all_before.count = 2;
    for (int half = 0; half < 2; half++)
        all_before.extents[half] = (struct extent){.virt = half ? HIGHER_HALF_64 : 0,
                                                   .bytes = bytes,
                                                   .phys = space->base,
                                                   .rights = KERNEL};
    check_all(space, when);
    check_only_tables(space, when);
    for (uint32_t at = TABLES_OFFSET; at < first_table; at++)
        ck_assert_msg(space->memory[at] == 0xa5,
                      "%s, with space->next_table = 0x%x: the table at 0x%x was changed, which is "
                      "in use already",
                      when, first_table, at & ~0xfffu);
}

START_TEST(tables)
{
    static const struct {
        uint32_t base, bytes;
    } spaces[] = {{0, SPACE_BYTES}, {BASE, SPACE_BYTES}, {BASE, SLOT_BYTES},
                  {0, 1 << 20},     {0, 5 << 20},        {0, MEMORY_MAX}};
    char when[80];

    enum { KNOWN = sizeof spaces / sizeof spaces[0] };

    for (size_t i = 0; i < KNOWN + 3; i++) {
        struct address_space space = space_at(0, (1 + unit_random() % 50) * MEDIUM_PAGE_BYTES);
        if (i < KNOWN)
            space = space_at(spaces[i].base, spaces[i].bytes);
        else
            space.bytes += i == KNOWN ? PAGE_BYTES : (uint32_t)random_page(MEDIUM_PAGE_BYTES);
        const uint64_t bytes = space.bytes,
                       end = (bytes + MEDIUM_PAGE_BYTES - 1) & ~(uint64_t)(MEDIUM_PAGE_BYTES - 1);
        /* In a guest's tables there may be others already; these take 6 at most. */
        space.next_table += i ? unit_random() % 24 * PAGE_BYTES : 0;
        const uint32_t first_table = space.next_table;
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
        check_built(&space, first_table, when);
    }
}
END_TEST

/*
 * long_page_map of one page, and what became of it, and of all others, or of those outside of the
 * halves that long_tables_build maps.
 */
static void map_one_of(struct address_space *space, bool without_halves, uint64_t virt,
                       uint32_t phys, uint64_t flags, const char *where)
{
    char when[280];

    all_read(space, &all_before, virt, without_halves);

    snprintf(when, sizeof when, "after long_page_map(0x%llx, 0x%x, %s), %s",
             (unsigned long long)virt, phys, rights_text(flags), where);
    int error = long_page_map(space, virt, phys, flags);
    ck_assert_msg(error == 0, "long_page_map(0x%llx, 0x%x, %s), %s, returns %d instead of 0",
                  (unsigned long long)virt, phys, rights_text(flags), where, error);
    check_page(space, virt, phys, flags, when);
    snprintf(when + strlen(when), sizeof when - strlen(when),
             ", every other page keeps its mapping and its rights");
    check_all(space, when);
}

static void map_one(struct address_space *space, uint64_t virt, uint32_t phys, uint64_t flags,
                    const char *where)
{
    map_one_of(space, true, virt, phys, flags, where);
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

    long_tables_build(&space);
    for (uint64_t i = 0; i < 120; i++) {
        uint64_t virt = regions[i % 4] + i % 60 * 5 * PAGE_BYTES;
        uint32_t phys = i % 5 ? (uint32_t)random_page(SPACE_BYTES) : 0;
        uint64_t flags = PAGE_PRESENT | (random64() & RIGHTS);
        map_one(&space, virt, phys, flags,
                i < 4    ? "in 2 MB without a page table"
                : i < 60 ? "in 2 MB that had a page table already"
                         : "which was mapped already");
        pages[i % 60].virt = virt;
        pages[i % 60].phys = phys;
        pages[i % 60].flags = flags;
    }
    for (int i = 0; i < 60; i++)
        check_page(&space, pages[i].virt, pages[i].phys, pages[i].flags,
                   "after other pages were mapped");
    for (int i = 0; i < 60; i += 2) {
        all_read(&space, &all_before, pages[i].virt, true);
        ck_assert_msg(long_page_map(&space, pages[i].virt, 0, 0) == 0,
                      "long_page_map with flags 0 unmaps a page, and does not return 0");
        check_page(&space, pages[i].virt, 0, 0, "after it was unmapped (flags 0)");
        check_all(&space, "after another page was unmapped (flags 0)");
    }
    for (int i = 1; i < 60; i += 2)
        check_page(&space, pages[i].virt, pages[i].phys, pages[i].flags,
                   "after other pages were unmapped");
    for (uint64_t page = 0; page < 512; page++)
        check_page(
            &space, regions[0] + page * PAGE_BYTES, 0, 0,
            "in a table that long_page_map made, a page that nobody mapped, or was unmapped");
    const uint64_t edges[] = {0, 0x7ffffffff000, 0xffff800000000000, 0xfffffffffffff000};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        map_one(&space, edges[i], (uint32_t)random_page(SPACE_BYTES), PAGE_PRESENT,
                "at an end of the canonical addresses");
    int error = long_page_map(&space, FAR, 0, 0);
    ck_assert_msg(error == 0,
                  "long_page_map with flags 0 of a page that nobody had mapped returns %d "
                  "instead of 0: it is unmapped, as asked",
                  error);
    check_page(&space, FAR, 0, 0, "after it was unmapped, and nobody had mapped it");
    check_only_tables(&space, "after long_tables_build, and pages were mapped and unmapped");
}
END_TEST

/* Memory above 1 GB has PDs of its own, in each half. */
static void split_far(void)
{
    enum { MAPS = 12 };
    const uint64_t gigabyte = 1ull << 30;
    struct address_space space =
        space_at(0, (uint32_t)(gigabyte + (1 + unit_random() % (1 << 18)) * PAGE_BYTES));
    int order[MAPS];

    long_tables_build(&space);
    shuffle(order, MAPS);
    for (int i = 0; i < MAPS; i++) {
        const bool high = order[i] % 2, second = order[i] / 2 % 2;
        const uint64_t virt =
            (high ? HIGHER_HALF_64 : 0) +
            (second ? gigabyte + random_page(space.bytes - gigabyte) : random_page(gigabyte));
        const uint64_t flags = order[i] < 4 ? 0 : PAGE_PRESENT | (random64() & RIGHTS);
        map_one_of(&space, false, virt, (uint32_t)random_page(space.bytes), flags,
                   "in a space of more than 1 GB");
    }
}

/*
 * The first and the last page of a 2 MB page, mapped and unmapped in turns, to where a 2 MB page
 * could lead, to the end of one, and to where the page leads already.
 */
static void split_at_ends(void)
{
    enum { FIRST_OF_2MB, LAST_OF_2MB, SAME, PLACES, CASES = 8 * PLACES };
    const uint32_t bytes = CASES / 2 * MEDIUM_PAGE_BYTES;
    struct address_space space;
    int order[CASES];

    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const bool last = order[i] & 1, high = order[i] & 2, mapped = order[i] & 4;
        const int place = order[i] / 8;
        const uint64_t in_large = last ? MEDIUM_PAGE_BYTES - PAGE_BYTES : 0,
                       same = (uint64_t)i % (CASES / 2) * MEDIUM_PAGE_BYTES + in_large,
                       virt = (high ? HIGHER_HALF_64 : 0) + same,
                       flags = PAGE_PRESENT | (random64() & RIGHTS);
        const uint32_t large = unit_random() % (CASES / 2) * MEDIUM_PAGE_BYTES,
                       phys = place == FIRST_OF_2MB  ? large
                              : place == LAST_OF_2MB ? large + MEDIUM_PAGE_BYTES - PAGE_BYTES
                                                     : (uint32_t)same;
        const char *where = last ? "the last page of a 2 MB page" : "the first page of a 2 MB page";
        if (i % (CASES / 2) == 0) {
            space = space_at(0, bytes);
            long_tables_build(&space);
        }
        map_one_of(&space, false, virt, phys, mapped ? flags : 0, where);
        map_one_of(&space, false, virt, phys, mapped ? 0 : flags,
                   mapped ? "which has just been mapped" : "which has just been unmapped");
    }
}

START_TEST(split)
{
    enum { PARTS = SPACE_BYTES / MEDIUM_PAGE_BYTES, COMBINATIONS = 8 };
    struct address_space space;
    const int unmapped = (int)(unit_random() % COMBINATIONS);
    int rights[COMBINATIONS]; /* each once */
    char when[80];

    shuffle(rights, COMBINATIONS);
    for (int i = 0; i < COMBINATIONS; i++) {
        if (i % PARTS == 0) {
            space = space_at(BASE, SPACE_BYTES);
            long_tables_build(&space);
        }
        const uint64_t half = unit_random() % 2 ? HIGHER_HALF_64 : 0,
                       part = (uint64_t)i % PARTS * MEDIUM_PAGE_BYTES,
                       in_large = random_page(MEDIUM_PAGE_BYTES), virt = half + part + in_large;
        const uint64_t before = PAGE_PRESENT | (rights[i] & 1 ? PAGE_WRITABLE : 0u) |
                                (rights[i] & 2 ? PAGE_USER : 0u) | (rights[i] & 4 ? PAGE_NX : 0);
        /* One of the two pages has PAGE_NX: no entry above them can have it for both. */
        const uint64_t flags = i == unmapped
                                   ? 0
                                   : PAGE_PRESENT | (random64() & (PAGE_WRITABLE | PAGE_USER)) |
                                         (before & PAGE_NX ? 0 : PAGE_NX);
        const uint32_t phys = (uint32_t)random_page(SPACE_BYTES);
        uint64_t large = part;
        if (before != KERNEL) { /* what long_tables_build does not write: the split keeps it */
            large = unit_random() % PARTS * MEDIUM_PAGE_BYTES;
            poke(translate(&space, virt).place, (space.base + large) | PAGE_LARGE | before);
        }
        snprintf(when, sizeof when, "after page 0x%llx of a 2 MB page was %smapped",
                 (unsigned long long)virt, flags ? "" : "un");
        all_read(&space, &all_before, virt, false);
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
                      when, entries_text(&other, other.level));
        check_page(&space, (half ? 0 : HIGHER_HALF_64) + part + in_large, part + in_large, KERNEL,
                   "the same 2 MB in the other half");
        check_all(&space, when);
    }
    check_only_tables(&space, "after long_tables_build, and pages in 2 MB pages were mapped");
    split_at_ends();
    split_far();
}
END_TEST

static struct {
    struct address_space space;
    uint64_t virt;
} mapping, other_mapping;

#define MAPPED_PHYS 0x200000u /* what both map */

/* The other vCPU's thread. */
BOTH static void other_maps(void)
{
    long_page_map(&other_mapping.space, other_mapping.virt, MAPPED_PHYS, PAGE_PRESENT);
}

THERE(int, map_in_steps, (void), ())
{
    steps_begin(step_count);
    const int error = long_page_map(&mapping.space, mapping.virt, MAPPED_PHYS, PAGE_PRESENT);
    steps_end();
    return error;
}

/* While a 2 MB page of one guest is split, another vCPU's thread splits one of another guest. */
static void check_mapped_at_once(void)
{
    if (__tsan_init) /* step by step it takes too long */
        return;
    for (int round = 0; round < 13; round++) {
        mapping.space = space_at(0, SLOT_BYTES);
        other_mapping.space = space_at(BASE, SLOT_BYTES);
        mapping.virt = HIGHER_HALF_64 + random_page(SLOT_BYTES);
        other_mapping.virt = HIGHER_HALF_64 + random_page(SLOT_BYTES);
        long_tables_build(&mapping.space);
        long_tables_build(&other_mapping.space);
        all_read(&mapping.space, &all_before, mapping.virt, false);
        between_steps(round ? other_maps : NULL);
        const int error = map_in_steps();
        ck_assert_msg(error == 0, "long_page_map(0x%llx) returns %d instead of 0",
                      (unsigned long long)mapping.virt, error);
        check_page(&mapping.space, mapping.virt, MAPPED_PHYS, PAGE_PRESENT,
                   "after long_page_map, while another thread called it for another guest");
        check_all(&mapping.space, "after long_page_map, while another thread called it for another "
                                  "guest: use no static variable");
    }
}

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
            all_read(&spaces[1 - i], &all_before, NO_PAGE, false);
            int error = long_page_map(&spaces[i], virt, phys, PAGE_PRESENT | PAGE_USER);
            ck_assert_msg(error == 0,
                          "long_page_map(0x%llx) for guest %d of 2 returns %d instead of 0",
                          (unsigned long long)virt, i, error);
            check_all(&spaces[1 - i], i ? "the first of two guests, after a page of the second "
                                          "was mapped"
                                        : "the second of two guests, after a page of the first "
                                          "was mapped");
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
    check_mapped_at_once();
}
END_TEST

/* The last page of the guest's memory can be mapped here. */
static void check_last_page(struct address_space *space, uint64_t virt)
{
    const uint32_t phys = space->bytes - PAGE_BYTES;
    int error = long_page_map(space, virt, phys, PAGE_PRESENT);

    ck_assert_msg(error == 0,
                  "the last page of the guest's 0x%x bytes of memory, at the canonical address "
                  "0x%llx, is refused (%d)",
                  space->bytes, (unsigned long long)virt, error);
    check_page(space, virt, phys, PAGE_PRESENT,
               "after the last page of the guest's memory was mapped");
}

START_TEST(refused)
{
    /* virt or phys with a low bit; other bits 47 to 63 of virt; phys outside of the memory */
    enum { LOW = 12, HIGH = 2 * LOW, OUTSIDE = HIGH + 17, KINDS = OUTSIDE + 3, RIGHT = 3 };
    static const uint64_t right[RIGHT] = {FAR, 0x7ffffffff000, 0xffff800000000000};
    static PRIVATE uint8_t before[TABLES_END];
    struct address_space space = space_at(BASE, SPACE_BYTES);
    int order[2 * KINDS];
    char what[200];

    long_tables_build(&space);
    shuffle(order, 2 * KINDS);
    for (int i = 0; i < 2 * KINDS; i++) {
        for (uint32_t rights = unit_random() % 3; rights > 0; rights--)
            check_last_page(&space, right[unit_random() % RIGHT]);
        /* Of the 2 MB around it nothing is mapped, or there is a table, or a 2 MB page. */
        const uint64_t regions[] = {0x40000000, FAR, HIGHER_HALF_64};
        const int kind = order[i] % KINDS;
        const uint64_t flags = order[i] < KINDS ? 0 : PAGE_PRESENT | (random64() & RIGHTS);
        uint64_t virt = regions[unit_random() % 3];
        uint32_t phys = (uint32_t)random_page(SPACE_BYTES);
        const char *why = "phys is outside of the guest's memory";
        if (kind < LOW) {
            virt |= 1u << kind;
            why = "virt is not a multiple of 4096";
        } else if (kind < HIGH) {
            phys |= 1u << (kind - LOW);
            why = "phys is not a multiple of 4096";
        } else if (kind < OUTSIDE) {
            virt ^= 1ull << (47 + kind - HIGH);
            why = "virt is not canonical";
        } else {
            phys = kind == OUTSIDE       ? SPACE_BYTES
                   : kind == OUTSIDE + 1 ? 0u - PAGE_BYTES
                                         : SPACE_BYTES + (uint32_t)random_page(0u - SPACE_BYTES);
        }
        snprintf(what, sizeof what, "long_page_map(0x%llx, 0x%x, %s): %s%s",
                 (unsigned long long)virt, phys, flags ? rights_text(flags) : "0", why,
                 flags ? "" : ", and flags 0 do not change that");
        const uint32_t next_table = space.next_table;
        memcpy(before, space.memory, sizeof before);
        int error = long_page_map(&space, virt, phys, flags);
        ck_assert_msg(error == EINVAL, "%s: long_page_map returns %d instead of EINVAL", what,
                      error);
        ck_assert_msg(memcmp(before, space.memory, sizeof before) == 0 &&
                          space.next_table == next_table,
                      "%s: long_page_map refuses it, and has changed the tables, or next_table, "
                      "all the same",
                      what);
    }
    for (int i = 0; i < RIGHT; i++)
        check_last_page(&space, right[i]);
    const uint32_t sizes[] = {MEMORY_MAX, /* --mem=2G */
                              MEDIUM_PAGE_BYTES * (1 + unit_random() % 8) - PAGE_BYTES,
                              PAGE_BYTES * (1 + unit_random() % 0x7fffe)};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        space = space_at(0, sizes[i]);
        long_tables_build(&space);
        check_last_page(&space, FAR);
        int error = long_page_map(&space, FAR, sizes[i], PAGE_PRESENT);
        ck_assert_msg(error == EINVAL,
                      "the first page after the guest's 0x%x bytes of memory is mapped: "
                      "long_page_map returns %d instead of EINVAL",
                      sizes[i], error);
        check_last_page(&space, FAR);
    }
}
END_TEST

/* Pages that need one to three tables, and so many tables that are left. */
static void few_left(void)
{
    static const struct {
        uint64_t virt;
        unsigned needs; /* tables */
        unsigned flags;
    } pages[] = {{0x201000, 1, PAGE_PRESENT},
                 {HIGHER_HALF_64 + 0x401000, 1, PAGE_PRESENT | PAGE_USER},
                 {0x202000, 1, 0}, /* to unmap a page of a larger one takes a table, too */
                 {0x40000000, 2, PAGE_PRESENT | PAGE_USER},
                 {FAR, 3, PAGE_PRESENT | PAGE_USER},
                 {0xffff800000000000, 3, PAGE_PRESENT}};
    enum { PAGES = sizeof pages / sizeof pages[0], LEFT = 5, CASES = PAGES * LEFT };
    struct address_space space = space_at(BASE, SPACE_BYTES);
    int order[CASES];
    char when[120];

    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const unsigned left = (unsigned)order[i] % LEFT, needs = pages[order[i] / LEFT].needs;
        const uint64_t virt = pages[order[i] / LEFT].virt;
        const unsigned flags = pages[order[i] / LEFT].flags;
        memset(space.memory, 0xa5, TABLES_END);
        space.next_table = TABLES_OFFSET;
        long_tables_build(&space);
        all_read(&space, &all_before, NO_PAGE, false);
        space.next_table = TABLES_END - left * PAGE_BYTES;
        const int error = long_page_map(&space, virt, 0x600000, flags);
        snprintf(when, sizeof when, "%u tables are left, long_page_map(0x%llx, ..., 0x%x) needs %u",
                 left, (unsigned long long)virt, flags, needs);
        ck_assert_msg(error == (left < needs ? ENOMEM : 0), "%s and returns %d", when, error);
        check_untouched(BASE + TABLES_END, BASE + TABLES_END + PAGE_BYTES, when);
        if (left < needs)
            check_all(&space, when);
        else
            check_page(&space, virt, flags ? 0x600000 : 0, flags, when);
    }
}

START_TEST(exhausted)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const uint32_t tables_max = (TABLES_END - TABLES_OFFSET) / PAGE_BYTES;
    uint32_t count = 0;
    int error = 0;

    long_tables_build(&space);
    memset(space.memory + TABLES_END, 0xcc, PAGE_BYTES);
    while (count <= tables_max &&
           (error = long_page_map(&space, 0x40000000 + count * MEDIUM_PAGE_BYTES, 0x200000,
                                  PAGE_PRESENT)) == 0)
        count++;
    ck_assert_msg(
        error == ENOMEM,
        "%u pages, each of which needs a page table of its own, were mapped, and the area "
        "up to TABLES_END has room for %u tables; then long_page_map must return ENOMEM",
        count, tables_max);
    ck_assert_msg(count >= tables_max - 6, "only %u of %u page tables could be used", count,
                  tables_max);
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
    few_left();
}
END_TEST

/* ------------------------------------------------------------------ 7.2, 7.3: descriptors and
 * state */

#define GDT_BYTES 56u

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
    ck_assert_msg(code || !(raw >> 53 & 1),
                  "selector 0x%x, %s: descriptor 0x%016llx; L is for code segments only", selector,
                  name, (unsigned long long)raw);
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
    check_ram_kept(BASE + GDT_OFFSET, BASE + GDT_OFFSET + GDT_BYTES, "after long_gdt_build");
}
END_TEST

static struct kvm_sregs sregs;
static struct kvm_regs regs;
static PRIVATE struct kvm_sregs sregs_before; /* as KVM would return them */
static PRIVATE uint64_t entry, stack;
static PRIVATE bool kept_before; /* long_mode_state has not changed memory */

#define APIC_BITS 0x900        /* of the APIC base, as after reset: enabled, first processor */
#define AVAILABLE (1ull << 52) /* of a descriptor: AVL, which means nothing to the processor */

static uint64_t random_linear(void)
{
    return (unit_random() % 2 ? HIGHER_HALF_64 : 0) + unit_random() / 2;
}

static struct kvm_segment segment_make(void)
{
    return (struct kvm_segment){.base = random_linear(),
                                .limit = unit_random(),
                                .selector = (uint16_t)unit_random(),
                                .type = unit_random() % 16,
                                .present = unit_random() % 2,
                                .dpl = unit_random() % 4,
                                .db = unit_random() % 2,
                                .s = unit_random() % 2,
                                .l = unit_random() % 2,
                                .g = unit_random() % 2,
                                .avl = unit_random() % 2};
}

/* All that a processor has of CR0 and EFER: SVM's and AMD's own bits of EFER among them. */
#define CR0_KNOWN     0xe005003full
#define CR0_MINOR     0x4000eull /* MP, EM, TS, AM: of no use to the mode */
#define EFER_KNOWN    0xfd01ull
#define FLAGS_OF_CODE 0x244ed5ull /* that any code may set: IF, DF, NT and AC among them */

/* A register of these bits as it may come in: often all of them are 1. */
static uint64_t bits_make(uint64_t known)
{
    return unit_random() % 2 ? known : random64() & known;
}

/* The state comes in with other values than those of the reset. */
static void sregs_make(void)
{
    struct kvm_segment *segments[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs,
                                      &sregs.gs, &sregs.ss, &sregs.tr, &sregs.ldt};

    sregs = entry_reset_state();
    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++)
        *segments[i] = segment_make();
    sregs.cr2 = random64();
    sregs.cr3 = unit_random() & LONG_FRAME;
    sregs.gdt.base = random_linear();
    sregs.idt.base = random_linear() | 1;
    for (size_t i = 0; i < sizeof sregs.interrupt_bitmap / sizeof sregs.interrupt_bitmap[0]; i++)
        sregs.interrupt_bitmap[i] = random64();
    sregs.gdt.limit = (uint16_t)unit_random();
    sregs.idt.limit = 0xffff;
    sregs.cr0 = bits_make(CR0_KNOWN);
    sregs.cr4 = bits_make(ENTRY_CR4_KNOWN);
    sregs.efer = bits_make(EFER_KNOWN);
    sregs.ldt.type ^= sregs.ldt.type == TYPE_LDT;
    sregs.cr8 = unit_random() % 16;
    sregs.apic_base = (random64() & LONG_FRAME) | bits_make(APIC_BITS);
}

/*
 * AVL of the descriptors in memory, and the entries that are 0, are changed between long_gdt_build
 * and long_mode_state: that is the GDT to load from.
 */
static void start_long(struct address_space *space)
{
    static PRIVATE uint8_t before[TABLES_END];

    entry = HIGHER_HALF_64 + LOAD_DEFAULT + unit_random() % 4096;
    stack = HIGHER_HALF_64 + 0x200000 + unit_random() % 1024 * 16;
    *space = space_at(BASE, SPACE_BYTES);
    long_gdt_build(space);
    for (uint32_t at = SELECTOR_KERNEL_CODE; at <= SELECTOR_KERNEL_DATA; at += 8)
        poke(space->base + GDT_OFFSET + at,
             gdt_entry(space, at) ^ (unit_random() % 2 ? AVAILABLE : 0));
    for (uint32_t at = SELECTOR_KERNEL_DATA + 8; at < GDT_BYTES; at += 8)
        poke(space->base + GDT_OFFSET + at, random64());
    sregs_make();
    sregs_before = sregs;
    random_fill(&regs, sizeof regs);
    memcpy(before, space->memory, sizeof before);
    long_mode_state(space, entry, stack, &sregs, &regs);
    kept_before = memcmp(before, space->memory, sizeof before) == 0;
    for (uint32_t at = SELECTOR_KERNEL_DATA + 8; at < GDT_BYTES; at += 8)
        poke(space->base + GDT_OFFSET + at, 0);
}

/* Padding apart, which means nothing. */
static bool segments_equal(struct kvm_segment one, struct kvm_segment other)
{
    return one.base == other.base && one.limit == other.limit && one.selector == other.selector &&
           one.type == other.type && one.present == other.present && one.dpl == other.dpl &&
           one.db == other.db && one.s == other.s && one.l == other.l && one.g == other.g &&
           one.avl == other.avl && one.unusable == other.unusable;
}

/* long_mode_state with what came in at random. */
static void check_state(void)
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
                  "CR0 came in as 0x%llx and is 0x%llx: PE, ET, NE, WP and PG are 1, all else is 0",
                  sregs_before.cr0, sregs.cr0);
    ck_assert_msg(sregs.cr4 & CR4_PAE, "CR4.PAE (bit 5) is 0: long mode needs it");
    ck_assert_msg(sregs.cr4 & CR4_OSFXSR,
                  "CR4.OSFXSR (bit 9) is 0: the first SSE instruction is an invalid opcode");
    ck_assert_msg(sregs.cr4 & CR4_OSXMMEXCPT,
                  "CR4.OSXMMEXCPT (bit 10) is 0: an SSE exception is an invalid opcode");
    ck_assert_msg(sregs.cr4 == (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT),
                  "CR4 came in as 0x%llx and is 0x%llx: PAE, OSFXSR and OSXMMEXCPT are 1, all else "
                  "is 0",
                  sregs_before.cr4, sregs.cr4);
    ck_assert_msg(sregs.efer & EFER_LME && sregs.efer & EFER_LMA,
                  "EFER is 0x%llx: LME (bit 8) enables long mode, and LMA (bit 10) says that it is "
                  "active; the processor sets LMA with CR0.PG, here you do",
                  sregs.efer);
    ck_assert_msg(sregs.efer & EFER_NXE, "EFER.NXE (bit 11) is 0: PAGE_NX would be a reserved bit");
    ck_assert_msg(sregs.cr3 == space.base + DIRECTORY_OFFSET,
                  "CR3 is 0x%llx instead of 0x%x: guest-physical, so with the base of this guest's "
                  "memory",
                  sregs.cr3, space.base + DIRECTORY_OFFSET);
    ck_assert_msg(sregs.efer == (EFER_LME | EFER_LMA | EFER_NXE),
                  "EFER came in as 0x%llx and is 0x%llx: LME, LMA and NXE are 1, all else is 0",
                  sregs_before.efer, sregs.efer);
    ck_assert_msg(sregs.idt.limit == 0,
                  "IDTR's limit is 0x%x, as after reset, instead of 0: there is no IDT yet",
                  sregs.idt.limit);
    ck_assert_msg(sregs.idt.base == 0, "IDTR's base came in as 0x%llx and is 0x%llx instead of 0",
                  sregs_before.idt.base, sregs.idt.base);
    ck_assert_msg(regs.rip == entry, "RIP is 0x%llx instead of 0x%llx", regs.rip,
                  (unsigned long long)entry);
    ck_assert_msg(regs.rsp == stack, "RSP is 0x%llx instead of 0x%llx", regs.rsp,
                  (unsigned long long)stack);
    ck_assert_msg(regs.rflags == FLAGS_ALWAYS_ONE, "RFLAGS is 0x%llx instead of 2", regs.rflags);
    ck_assert_msg((regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rsi | regs.rdi | regs.rbp |
                   regs.r8 | regs.r9 | regs.r10 | regs.r11 | regs.r12 | regs.r13 | regs.r14 |
                   regs.r15) == 0,
                  "the other general registers, r8 to r15 among them, must be 0");
    ck_assert_msg(sregs.apic_base == (sregs_before.apic_base & ~(uint64_t)APIC_BASE_ENABLE),
                  "the APIC base came in as 0x%llx and is 0x%llx: only APIC_BASE_ENABLE changes, "
                  "because there is no local APIC",
                  sregs_before.apic_base, sregs.apic_base);
    ck_assert_msg(segments_equal(sregs.tr, sregs_before.tr),
                  "TR came in with selector 0x%x and base 0x%llx, and long_mode_state has changed "
                  "it: long_rings_add loads it",
                  sregs_before.tr.selector, sregs_before.tr.base);
    ck_assert_msg(sregs.cr2 == sregs_before.cr2 && sregs.cr8 == sregs_before.cr8 &&
                      memcmp(sregs.interrupt_bitmap, sregs_before.interrupt_bitmap,
                             sizeof sregs.interrupt_bitmap) == 0,
                  "CR2, CR8 or interrupt_bitmap is not as it came in: what the table of section "
                  "7.2 does not name stays as KVM returned it");
    ck_assert_msg(kept_before, "long_mode_state has changed the guest's memory: it only computes "
                               "the state, and the GDT is that in memory");
}

START_TEST(state)
{
    for (int round = 0; round < 10; round++)
        check_state();
}
END_TEST

/* What a segment register holds once this descriptor is loaded: SDM vol. 3, figure 3-8. */
static struct kvm_segment segment_of(uint64_t raw, uint16_t selector)
{
    return (struct kvm_segment){
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
}

/* The register is what the descriptor in memory says. */
static void check_loaded(const struct address_space *space, const char *name,
                         const struct kvm_segment *segment, uint16_t selector)
{
    const uint64_t raw = gdt_entry(space, selector);
    const struct kvm_segment right = segment_of(raw, selector);

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
    ck_assert_msg(sregs.ldt.type == TYPE_LDT,
                  "LDTR's type is %u instead of %u, the only one that LDTR may have",
                  sregs.ldt.type, TYPE_LDT);
}
END_TEST

/* Padding apart. */
static bool tables_equal(struct kvm_dtable one, struct kvm_dtable other)
{
    return one.base == other.base && one.limit == other.limit;
}

/* All of `sregs` but TR and EFER. */
static bool rest_equal(const struct kvm_sregs *one, const struct kvm_sregs *other)
{
    return segments_equal(one->cs, other->cs) && segments_equal(one->ds, other->ds) &&
           segments_equal(one->es, other->es) && segments_equal(one->fs, other->fs) &&
           segments_equal(one->gs, other->gs) && segments_equal(one->ss, other->ss) &&
           segments_equal(one->ldt, other->ldt) && tables_equal(one->gdt, other->gdt) &&
           tables_equal(one->idt, other->idt) && one->cr0 == other->cr0 && one->cr2 == other->cr2 &&
           one->cr3 == other->cr3 && one->cr4 == other->cr4 && one->cr8 == other->cr8 &&
           one->apic_base == other->apic_base &&
           memcmp(one->interrupt_bitmap, other->interrupt_bitmap, sizeof one->interrupt_bitmap) ==
               0;
}

/* What both halves of the TSS's descriptor say, and that TR is loaded with it. */
static void check_tss(const struct address_space *space)
{
    const uint64_t low = gdt_entry(space, SELECTOR_TSS),
                   any = AVAILABLE | 2ull << 40; /* the busy bit: that of TR counts */
    const struct kvm_segment *tr = &sregs.tr;

    ck_assert_msg((low & ~any) == 0x8000890018000067,
                  "the TSS descriptor's first half is 0x%016llx: as lab 5's it has S, DPL, L, D/B "
                  "and G 0",
                  (unsigned long long)low);
    ck_assert_msg(tr->type == (low >> 40 & 15) && tr->s == 0 && tr->dpl == 0 && tr->present == 1 &&
                      tr->l == 0 && tr->db == 0 && tr->g == 0 && tr->avl == (low >> 52 & 1) &&
                      !tr->unusable,
                  "TR has type %u, S %u, DPL %u, P %u, L %u, D/B %u, G %u, AVL %u, unusable %u, "
                  "and the descriptor in memory is 0x%016llx, of type %d: TR is loaded from there, "
                  "and both are of a busy TSS, type 11",
                  tr->type, tr->s, tr->dpl, tr->present, tr->l, tr->db, tr->g, tr->avl,
                  tr->unusable, (unsigned long long)low, (int)(low >> 40 & 15));
}

/* long_rings_add to what 7.2 leaves, or to other entries and another state. */
static void check_rings(bool other)
{
    static PRIVATE uint8_t kept[TABLES_END];
    const uint32_t added = SELECTOR_KERNEL_DATA + 8; /* entries from here on */
    struct address_space space;

    start_long(&space);
    if (other) {
        for (uint32_t at = 0; at < GDT_BYTES; at += 8)
            poke(space.base + GDT_OFFSET + at, random64());
        sregs_make();
        sregs.efer = random64() & ~(uint64_t)EFER_SCE;
    }
    const uint64_t kernel_code = gdt_entry(&space, SELECTOR_KERNEL_CODE);
    const struct kvm_sregs before = sregs;
    memcpy(kept, space.memory, sizeof kept);
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
    ck_assert_msg(sregs.efer == (before.efer | EFER_SCE),
                  "EFER came in as 0x%llx and is 0x%llx: SYSCALL needs SCE (bit 0), and every "
                  "other bit stays",
                  before.efer, sregs.efer);
    check_tss(&space);
    ck_assert_msg(rest_equal(&before, &sregs), "long_rings_add has changed something else in "
                                               "`sregs` than TR and EFER");
    memcpy(kept + GDT_OFFSET + added, space.memory + GDT_OFFSET + added, GDT_BYTES - added);
    memset(kept + TSS_OFFSET, 0, 104);
    ck_assert_msg(memcmp(kept, space.memory, sizeof kept) == 0,
                  "long_rings_add has changed memory outside of the four entries and the TSS");
}

START_TEST(rings)
{
    check_rings(false);
    for (int round = 0; round < 8; round++)
        check_rings(true);
}
END_TEST

/*
 * The entry checks accept many states, real mode among them; this is the one that they are to be
 * about. Of a segment counts what they ask for, so AVL does not.
 */
static void check_in_long_mode(const struct address_space *space)
{
    static const char *const names[] = {"CS", "SS", "DS", "ES", "FS", "GS"};
    const struct kvm_segment *const all[] = {&sregs.cs, &sregs.ss, &sregs.ds,
                                             &sregs.es, &sregs.fs, &sregs.gs};
    const struct kvm_segment *tr = &sregs.tr;

    ck_assert_msg(sregs.cr0 & CR0_PE && sregs.cr0 & CR0_PG && sregs.cr4 & CR4_PAE &&
                      sregs.efer & EFER_LME && sregs.efer & EFER_LMA,
                  "CR0 is 0x%llx, CR4 0x%llx, EFER 0x%llx, which is not long mode: that needs "
                  "CR0.PE and PG, CR4.PAE, EFER.LME and LMA",
                  sregs.cr0, sregs.cr4, sregs.efer);
    ck_assert_msg(sregs.cr3 == space->base + DIRECTORY_OFFSET,
                  "CR3 is 0x%llx instead of the PML4's address, 0x%x", sregs.cr3,
                  space->base + DIRECTORY_OFFSET);
    check_flat(space, SELECTOR_KERNEL_CODE, true, "kernel code");
    check_flat(space, SELECTOR_KERNEL_DATA, false, "kernel data");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const uint16_t selector = i ? SELECTOR_KERNEL_DATA : SELECTOR_KERNEL_CODE;
        struct kvm_segment right = segment_of(gdt_entry(space, selector), selector);
        right.avl = all[i]->avl;
        ck_assert_msg(segments_equal(*all[i], right),
                      "%s has selector 0x%x, base 0x%llx, limit 0x%x, type %u, unusable %u, which "
                      "is not the GDT's descriptor of selector 0x%x: load it from there",
                      names[i], all[i]->selector, all[i]->base, all[i]->limit, all[i]->type,
                      all[i]->unusable, selector);
    }
    ck_assert_msg(gdt_entry(space, SELECTOR_TSS) >> 47 & 1 && tr->selector == SELECTOR_TSS &&
                      (uint32_t)tr->base == (uint32_t)(HIGHER_HALF_64 + TSS_OFFSET),
                  "TR has selector 0x%x and base 0x%llx, and its descriptor in the GDT is "
                  "0x%016llx: long_rings_add writes that of the TSS, and loads TR with it",
                  tr->selector, tr->base, (unsigned long long)gdt_entry(space, SELECTOR_TSS));
}

START_TEST(entry_checks)
{
    struct address_space space;

    start_long(&space);
    long_rings_add(&space, &sregs);
    check_in_long_mode(&space);
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

#define TABLE_MAX 256

/* A table like KVM's (struct kvm_cpuid2); both processes have it. */
static struct {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entries[TABLE_MAX];
} table;

/* Its leaves, hypervisor leaves apart: `count` entries, of which the first are always there. */
static PRIVATE struct kvm_cpuid_entry2 made[TABLE_MAX];
static PRIVATE uint32_t made_count,
    made_hypervisor; /* of all, and of the hypervisor's among them */

#define IS_HYPERVISOR(function) ((function) >> 28 == 4)

static void leaf_make(uint32_t function, uint32_t index, uint32_t flags)
{
    for (uint32_t i = 0; i < made_count; i++)
        if (made[i].function == function && made[i].index == index)
            return;
    made[made_count++] = (struct kvm_cpuid_entry2){.function = function,
                                                   .index = index,
                                                   .flags = flags,
                                                   .eax = unit_random(),
                                                   .ebx = unit_random(),
                                                   .ecx = unit_random(),
                                                   .edx = unit_random()};
    made_hypervisor += IS_HYPERVISOR(function);
}

/* Entries with random bits in random order, this many of them KVM's hypervisor leaves. */
static void table_make(uint32_t hypervisor)
{
    static const uint32_t single[] = {0x0, 0x1, 0x8, 0x80000000, 0x80000001, 0x8000001e},
                          indexed[] = {0x4, 0x7, 0xb, 0xd, 0x1f},
                          others[] = {0x20, 0x3ffffff0, 0x50000000, 0x80000002, 0xc0000000},
                          first[] = {0x40000000, 0x40000001, 0x40000100, 0x4fffffff};
    int order[TABLE_MAX];

    made_count = made_hypervisor = 0;
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++)
        leaf_make(single[i], 0, 0);
    for (size_t i = 0; i < sizeof indexed / sizeof indexed[0]; i++)
        for (uint32_t index = 0, count = 1 + unit_random() % 4; index < count; index++)
            leaf_make(indexed[i], index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        for (uint32_t count = unit_random() % 3; count > 0; count--)
            leaf_make(others[i] + unit_random() % 16, 0, 0);
    for (uint32_t i = unit_random(); made_hypervisor < hypervisor; i++)
        leaf_make(made_hypervisor < 4 ? first[i % 4] : 0x40000000 + (unit_random() & 0xfffffff), 0,
                  0);
    memset(&table, 0, sizeof table);
    table.nent = made_count;
    shuffle(order, (int)made_count);
    for (uint32_t i = 0; i < made_count; i++)
        table.entries[i] = made[order[i]];
}

static const struct kvm_cpuid_entry2 *leaf_find(uint32_t function, uint32_t index, unsigned *count)
{
    const struct kvm_cpuid_entry2 *found = NULL;

    *count = 0;
    for (uint32_t i = 0; i < table.nent && i < TABLE_MAX; i++)
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

#define LEAF_BITS_KEPT(leaf, field, mask, what)                                                    \
    ck_assert_msg(((leaf)->field & ~(mask)) == (before->field & ~(mask)),                          \
                  "leaf 0x%x: " #field " was 0x%x and is 0x%x: only %s", (leaf)->function,         \
                  before->field, (leaf)->field, what)

/* A leaf that is not the hypervisor's is there as it was, but for what the guest is not shown. */
static void check_leaf(const struct kvm_cpuid_entry2 *before, uint32_t apic_id)
{
    unsigned count;
    const struct kvm_cpuid_entry2 *leaf = leaf_find(before->function, before->index, &count);

    ck_assert_msg(leaf && count == 1, "leaf 0x%x, index %u, is there %u times instead of once",
                  before->function, before->index, count);
    ck_assert_msg(leaf->flags == before->flags, "leaf 0x%x: flags were changed", leaf->function);
    const bool one = leaf->function == 0x1,
               topology = leaf->function == 0xb || leaf->function == 0x1f;
    LEAF_BITS_KEPT(leaf, eax, leaf->function == 0x8000001e ? UINT32_MAX : 0,
                   "that of leaf 0x8000001e changes");
    LEAF_BITS_KEPT(leaf, ebx, one ? 0xff000000 : 0, "leaf 1's APIC id, bits 24-31, changes");
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
                      "leaf 1 shows an x2APIC (ECX bit 21) or its TSC deadline timer (bit 24), and "
                      "this VMM has no local APIC");
        ck_assert_msg(leaf->ebx >> 24 == apic_id,
                      "leaf 1: the APIC id in EBX, bits 24-31, is %u instead of %u",
                      leaf->ebx >> 24, apic_id);
    }
    if (topology)
        ck_assert_msg(leaf->edx == apic_id,
                      "leaf 0x%x, index %u: the APIC id in EDX is %u instead of %u", leaf->function,
                      leaf->index, leaf->edx, apic_id);
    if (leaf->function == 0x8000001e)
        ck_assert_msg(leaf->eax == apic_id,
                      "leaf 0x8000001e: the APIC id in EAX is %u instead of %u", leaf->eax,
                      apic_id);
}

START_TEST(features)
{
    for (int round = 0; round < 20; round++) {
        const uint32_t apic_id = unit_random() % 255;
        table_make(unit_random() % 6);
        ck_assert_msg(table_show(TABLE_MAX, apic_id), "cpuid_show returns false, with room left");
        for (uint32_t i = 0; i < made_count; i++)
            if (!IS_HYPERVISOR(made[i].function))
                check_leaf(&made[i], apic_id);
    }
}
END_TEST

/* The signature is there, no other hypervisor leaf, and as many of the others as before. */
static void check_signature(void)
{
    unsigned count;
    const struct kvm_cpuid_entry2 *leaf = leaf_find(CPUID_SIGNATURE, 0, &count);

    ck_assert_msg(leaf && count == 1, "leaf 0x40000000, index 0, is there %u times instead of once",
                  count);
    ck_assert_msg(leaf->ebx == CPUID_SIGNATURE_EBX && leaf->ecx == CPUID_SIGNATURE_ECX &&
                      leaf->edx == CPUID_SIGNATURE_EDX,
                  "leaf 0x40000000 has EBX 0x%x, ECX 0x%x, EDX 0x%x: not the signature of abi.h",
                  leaf->ebx, leaf->ecx, leaf->edx);
    ck_assert_msg(leaf->eax == CPUID_SIGNATURE,
                  "leaf 0x40000000 says in EAX that the last hypervisor leaf is 0x%x: it is the "
                  "only one",
                  leaf->eax);
    ck_assert_msg(leaf->flags == 0 && leaf->index == 0, "leaf 0x40000000: flags and index are 0");
    for (uint32_t i = 0; i < table.nent && i < TABLE_MAX; i++)
        ck_assert_msg(!IS_HYPERVISOR(table.entries[i].function) ||
                          table.entries[i].function == CPUID_SIGNATURE,
                      "KVM's leaf 0x%x is still there: it offers what this VMM does not set up",
                      table.entries[i].function);
    ck_assert_msg(table.nent == made_count - made_hypervisor + 1,
                  "the table had %u entries, %u of them hypervisor leaves, and has %u now",
                  made_count, made_hypervisor, table.nent);
}

START_TEST(signature)
{
    for (int round = 0; round < 20; round++) {
        table_make(unit_random() % 6);
        ck_assert_msg(table_show(TABLE_MAX, unit_random() % 255),
                      "cpuid_show returns false, with room left");
        check_signature();
    }
}
END_TEST

START_TEST(no_room)
{
    enum { FULL, ONE_MORE, REPLACED, KINDS };
    static PRIVATE struct kvm_cpuid_entry2 behind[TABLE_MAX];
    int order[10 * KINDS];

    shuffle(order, 10 * KINDS);
    for (int i = 0; i < 10 * KINDS; i++) {
        const int kind = order[i] % KINDS;
        table_make(kind == REPLACED ? 1 + unit_random() % 3 : 0);
        const uint32_t room = made_count + (kind == ONE_MORE);
        for (uint32_t j = room; j < TABLE_MAX; j++)
            table.entries[j] = behind[j] = (struct kvm_cpuid_entry2){.function = unit_random()};
        const bool shown = table_show(room, unit_random() % 255);
        ck_assert_msg(
            memcmp(&table.entries[room], &behind[room], (TABLE_MAX - room) * sizeof behind[0]) == 0,
            "%u entries have room, and cpuid_show wrote past them", room);
        if (kind == FULL) {
            ck_assert_msg(!shown,
                          "%u entries have room, all are used, none is a hypervisor leaf, and "
                          "cpuid_show returns true: the signature has no place",
                          room);
            continue;
        }
        ck_assert_msg(shown,
                      "%u entries have room, %u are used, %u of them are KVM's hypervisor leaves, "
                      "and cpuid_show returns false: the signature has a place",
                      room, made_count, made_hypervisor);
        check_signature();
    }
}
END_TEST

/* The vCPU was given the table of cpuid_show, and all of it. */
static void check_given(int apic_id, const char *what)
{
    const uint32_t supported = cpuid_supported.count;

    ck_assert(supported <= TABLE_MAX);
    memset(&table, 0, sizeof table);
    table.nent = supported;
    memcpy(table.entries, cpuid_supported.entries, supported * sizeof table.entries[0]);
    ck_assert_msg(table_show(TABLE_MAX, (uint32_t)apic_id),
                  "cpuid_show returns false for KVM's table of %u entries, with room for %d",
                  supported, TABLE_MAX);
    ck_assert_msg(
        cpuid_set.count == table.nent &&
            memcmp(cpuid_set.entries, table.entries, table.nent * sizeof table.entries[0]) == 0,
        "%svcpu_show_cpuid gives the vCPU %u entries, and cpuid_show makes %u of those "
        "that KVM supports, or others: pass on what cpuid_show leaves in the table",
        what, cpuid_set.count, table.nent);
}

/* As in lab 1: as many entries as a server's processor has, and some more. */
enum { CPUID_OF_LARGE_PROCESSORS = 128 };

/* KVM has the vCPU's CPUID, with its APIC id. */
static void check_has_cpuid(const struct vcpu *vcpu, const char *function)
{
    static struct { /* a struct kvm_cpuid2 */
        uint32_t nent, padding;
        struct kvm_cpuid_entry2 entries[256];
    } shown;
    unsigned signatures = 0;

    shown.nent = sizeof shown.entries / sizeof shown.entries[0];
    ck_assert(kernel(vcpu->fd, KVM_GET_CPUID2, &shown) == 0);
    for (uint32_t i = 0; i < shown.nent; i++) {
        const struct kvm_cpuid_entry2 *leaf = &shown.entries[i];
        signatures += leaf->function == CPUID_SIGNATURE && leaf->ebx == CPUID_SIGNATURE_EBX;
        ck_assert_msg(leaf->function != 0x1 || leaf->ebx >> 24 == (uint32_t)vcpu->index,
                      "vcpu->index is %d, %s returns 0, and the vCPU's CPUID has the APIC id %u in "
                      "leaf 1",
                      vcpu->index, function, leaf->ebx >> 24);
    }
    ck_assert_msg(signatures == 1,
                  "%s returns 0, and leaf 0x40000000 with the signature is %u times in the vCPU's "
                  "CPUID instead of once",
                  function, signatures);
}

/* Where nothing fails the vCPU has its table. */
static void check_shown(struct vcpu *vcpu)
{
    vcpu->index = (int)(unit_random() % 16);
    falsified = (struct falsified){0};
    cpuid_wanted = CPUID_OF_LARGE_PROCESSORS;
    const int status = vcpu_show_cpuid(vcpu);
    const struct call *asked = call_find(KVM_GET_SUPPORTED_CPUID);
    ck_assert_msg(!cpuid_too_small,
                  "the table for KVM_GET_SUPPORTED_CPUID has no room for nent entries: KVM writes "
                  "past its end");
    ck_assert_msg(!asked || asked->result == 0,
                  "KVM_GET_SUPPORTED_CPUID fails with E2BIG, as it does on a processor with more "
                  "entries than the table has room for: give it %d or more",
                  CPUID_OF_LARGE_PROCESSORS);
    check_works("vcpu_show_cpuid", status);
    check_has_cpuid(vcpu, "vcpu_show_cpuid");
    check_given(vcpu->index, "");
}

THERE(size_t, heap_used, (void), ())
{
    const struct mallinfo2 heap = mallinfo2();

    return heap.uordblks + heap.hblkhd;
}

/*
 * The table does not stay allocated, whatever fails; 0: nothing. Memory that was freed counts as
 * used while malloc keeps it at hand: that grows at first only.
 */
static void check_freed(struct vcpu *vcpu, unsigned long request, const char *name)
{
    enum { WARM_UP = 8, ROUNDS = 3 };
    size_t before = 0;

    for (int round = 0; round < WARM_UP + ROUNDS; round++) {
        if (round == WARM_UP)
            before = heap_used();
        falsified = (struct falsified){.request = request, .error = request ? EIO : 0};
        listen_start();
        vcpu_show_cpuid(vcpu);
        listen_end();
    }
    const size_t kept = heap_used() - before;
    ck_assert_msg(kept < ROUNDS * sizeof(struct kvm_cpuid2),
                  "after %d calls of vcpu_show_cpuid (%s) %zu bytes more are allocated: free the "
                  "table on every way out",
                  ROUNDS, name, kept);
}

/* KVM uses all of the table's entries, so that the signature has no room. */
static void check_full(struct vcpu *vcpu)
{
    bool signature_set = false;

    falsified = (struct falsified){0};
    cpuid_full = true;
    cpuid_set.count = 0;
    listen_start();
    const int status = vcpu_show_cpuid(vcpu);
    listen_end();
    for (uint32_t i = 0; i < cpuid_set.count; i++)
        signature_set |= cpuid_set.entries[i].function == CPUID_SIGNATURE;
    ck_assert_msg(status == STATUS_NO_KVM || (status == 0 && signature_set),
                  "KVM_GET_SUPPORTED_CPUID fills the whole table, and vcpu_show_cpuid returns %d "
                  "with no signature in the vCPU's table: where cpuid_show returns false, return "
                  "STATUS_NO_KVM",
                  status);
    ck_assert_msg(status == 0 || said[0] != '\0',
                  "the signature has no room, and vcpu_show_cpuid said nothing: fail() says it");
    check_freed(vcpu, 0, "KVM fills the table, and the signature has no room");
    cpuid_full = false;
}

static struct vm other_vm;
static struct vcpu other;

/* The other vCPU's thread. */
BOTH static void other_is_shown(void)
{
    vcpu_show_cpuid(&other);
}

/* Its table is another one. */
static void check_shown_at_once(struct vcpu *vcpu)
{
    static const unsigned long moments[] = {AFTER(KVM_GET_SUPPORTED_CPUID), KVM_SET_CPUID2};

    falsified = (struct falsified){0};
    cpuid_varied = true;
    start_created(&other_vm, &other);
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        vcpu->index = (int)(unit_random() % 16);
        other.index = vcpu->index ^ 1;
        meanwhile = other_is_shown;
        meanwhile_at = moments[i];
        check_works("vcpu_show_cpuid", vcpu_show_cpuid(vcpu));
        check_given(vcpu->index,
                    "while vcpu_show_cpuid was at work, another vCPU's thread called it, and ");
    }
    meanwhile = NULL;
    cpuid_varied = false;
}

/* The table is the only memory that vcpu_show_cpuid may ask for; it may do without. */
static void check_no_memory(struct vcpu *vcpu)
{
    falsified = (struct falsified){0};
    memory_refused = 0;
    no_memory = true;
    listen_start();
    const int status = vcpu_show_cpuid(vcpu);
    listen_end();
    no_memory = false;
    check_memory_refused("vcpu_show_cpuid", status);
}

START_TEST(cpuid_failure)
{
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {{KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"},
                  {KVM_SET_CPUID2, "KVM_SET_CPUID2"}};
    enum { CASES = 6 };
    int order[CASES];
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    shuffle(order, CASES);
    check_shown(&vcpu);
    for (int i = 0; i < CASES; i++) {
        const size_t which = (size_t)order[i] % 2;
        falsified = (struct falsified){.request = ioctls[which].request, .error = unit_error()};
        listen_start();
        int status = vcpu_show_cpuid(&vcpu);
        listen_end();
        check_met("vcpu_show_cpuid", ioctls[which].name);
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s failed, and vcpu_show_cpuid returns %d instead of STATUS_NO_KVM",
                      ioctls[which].name, status);
        ck_assert_msg(said[0] != '\0',
                      "%s failed, and vcpu_show_cpuid said nothing: fail() says it",
                      ioctls[which].name);
        for (uint32_t rights = unit_random() % 3; rights > 0; rights--)
            check_shown(&vcpu);
    }
    check_shown(&vcpu);
    check_no_memory(&vcpu);
    check_shown(&vcpu);
    check_freed(&vcpu, 0, "all was well");
    for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++)
        check_freed(&vcpu, ioctls[i].request, ioctls[i].name);
    check_full(&vcpu);
    check_shown(&vcpu);
    check_shown_at_once(&vcpu);
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

/* A segment that a loader skips: of another type than PT_LOAD, or without memory. */
static Elf64_Phdr not_loaded(uint64_t phys)
{
    Elf64_Phdr segment = {.p_type = PT_GNU_STACK, .p_paddr = phys, .p_memsz = 64};

    if (unit_random() % 2) {
        segment.p_type = unit_random() % 2 ? PT_NOTE : PT_LOPROC + unit_random() % 0x10000000;
        segment.p_offset = random64();
        segment.p_vaddr = random64();
        segment.p_paddr = random64();
        segment.p_filesz = random64();
        segment.p_memsz = random64();
        segment.p_flags = unit_random();
    }
    if (unit_random() % 3 == 0) {
        segment.p_type = PT_LOAD;
        segment.p_filesz = segment.p_memsz = 0;
    }
    return segment;
}

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
        .p_memsz = sizeof file.code + (unit_random() % 2 ? unit_random() % 0x800 : 0),
        .p_flags = PF_R | PF_X,
    };
    file.segments[1] = not_loaded(code);
    file.segments[2] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), data),
        .p_vaddr = HIGHER_HALF_64 + data,
        .p_paddr = data,
        .p_filesz = sizeof file.data,
        .p_memsz = sizeof file.data + 0x1000 + unit_random() % 0x1000,
        .p_flags = PF_R | PF_W,
    };
    random_fill(file.code, sizeof file.code);
    random_fill(file.data, sizeof file.data);
}

/* Loads a file that comes after `before` bytes; the copy of both ends where its memory ends. */
static const char *load_bytes(const void *bytes, size_t before, size_t count, size_t memory_bytes)
{
    memset(memory, FILL, MEMORY_BYTES);
    first = 0;
    const uint8_t *copy = copy_at_end(bytes, before + count);
    const char *wrong = elf64_load(copy + before, count, memory, memory_bytes, &first);
    ck_assert_msg(!wrong || wrong[0],
                  "a file was refused, and elf64_load does not say why in words");
    return wrong;
}

/* Loads the first `bytes` of the file. */
static const char *load_cut(size_t bytes, size_t memory_bytes)
{
    return load_bytes(&file, 0, bytes, memory_bytes);
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

/* The file is right: it is not refused, and its bytes are where they belong. */
static void check_right_in(const char *what, size_t memory_bytes)
{
    const char *wrong = load_cut(sizeof file, memory_bytes);

    ck_assert_msg(!wrong, "%s was refused: %s", what, wrong);
    for (int i = 0; i < 3; i++) {
        const Elf64_Phdr *segment = &file.segments[i];
        ck_assert_msg(segment->p_type != PT_LOAD || segment->p_filesz == 0 ||
                          memcmp(memory + segment->p_paddr,
                                 (const uint8_t *)&file + segment->p_offset,
                                 segment->p_filesz) == 0,
                      "%s was not refused, and a PT_LOAD segment's bytes are not at p_paddr = "
                      "0x%llx",
                      what, (unsigned long long)segment->p_paddr);
    }
    ck_assert_msg(first == file.header.e_entry, "%s: *entry is 0x%llx, e_entry is 0x%llx", what,
                  (unsigned long long)first, (unsigned long long)file.header.e_entry);
}

static void check_right(const char *what)
{
    check_right_in(what, MEMORY_BYTES);
}

/* Right files at random places between the wrong ones; then a file that a test makes wrong. */
static void files_between(void)
{
    for (uint32_t rights = unit_random() % 3; rights > 0; rights--) {
        file_make();
        check_right("a right file");
    }
    file_make();
}

/* Both addresses of the segment. */
static void segment_move(Elf64_Phdr *segment, uint64_t phys)
{
    segment->p_paddr = phys;
    segment->p_vaddr = HIGHER_HALF_64 + phys;
}

/* Every byte of memory is as the file says, or as it was before. */
static void check_memory(const char *what)
{
    static PRIVATE uint8_t right[MEMORY_BYTES];

    check_right(what);
    memset(right, FILL, sizeof right);
    for (int i = 0; i < 3; i++) {
        const Elf64_Phdr *segment = &file.segments[i];
        if (segment->p_type != PT_LOAD || segment->p_memsz == 0)
            continue;
        memset(right + segment->p_paddr, 0, segment->p_memsz);
        memcpy(right + segment->p_paddr, (const uint8_t *)&file + segment->p_offset,
               segment->p_filesz);
    }
    for (uint64_t at = 0; memcmp(memory, right, sizeof right) != 0 && at < sizeof right; at++)
        ck_assert_msg(memory[at] == right[at],
                      "%s: the byte at 0x%llx is 0x%x instead of 0x%x: a segment has its bytes of "
                      "the file and zeros up to p_memsz, all else stays",
                      what, (unsigned long long)at, memory[at], right[at]);
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
    for (int i = 0; i < 4; i++) {
        file_make();
        segment_move(&file.segments[2], LOAD_MIN + 0x2000);
        file.segments[2].p_filesz = i % 2 ? 0 : sizeof file.data;
        file.segments[2].p_memsz = 0x10000 + unit_random() % 0x6000;
        check_right("a file with many zeros");
        ck_assert_msg(filled(data->p_paddr + data->p_filesz, data->p_paddr + data->p_memsz, 0),
                      "the bytes from p_filesz = 0x%llx to p_memsz = 0x%llx are not all zero",
                      (unsigned long long)data->p_filesz, (unsigned long long)data->p_memsz);
    }
    for (int i = 0; i < 20; i++) {
        file_make();
        if (unit_random() % 2)
            segment_move(&file.segments[2], file.segments[2].p_paddr + unit_random() % 0x1000);
        if (unit_random() % 2)
            file.segments[2].p_filesz = unit_random() % (sizeof file.data + 1);
        if (unit_random() % 2)
            file.segments[2].p_memsz = file.segments[2].p_filesz + unit_random() % 3;
        check_memory("a right file");
    }
}
END_TEST

/* Not this one. */
static uint16_t value_except(uint16_t right, uint16_t max)
{
    const uint16_t value = (uint16_t)(unit_random() % max);

    return value < right ? value : (uint16_t)(value + 1);
}

START_TEST(wrong_files)
{
    const struct {
        const char *what;
        size_t at;
        uint16_t value;
        size_t bytes;
    } changes[] = {
        {"no ELF magic", 0, value_except(ELFMAG0, 255), 1},
        {"no ELF magic", 1, value_except(ELFMAG1, 255), 1},
        {"no ELF magic", 2, value_except(ELFMAG2, 255), 1},
        {"no ELF magic", 3, value_except(ELFMAG3, 255), 1},
        {"the class of a 32-bit file", EI_CLASS, ELFCLASS32, 1},
        {"another class than ELFCLASS64", EI_CLASS, value_except(ELFCLASS64, 255), 1},
        {"big-endian numbers", EI_DATA, ELFDATA2MSB, 1},
        {"another data encoding than ELFDATA2LSB", EI_DATA, value_except(ELFDATA2LSB, 255), 1},
        {"the type of a relocatable file", offsetof(Elf64_Ehdr, e_type), ET_REL, 2},
        {"the type of a shared library", offsetof(Elf64_Ehdr, e_type), ET_DYN, 2},
        {"another type than ET_EXEC", offsetof(Elf64_Ehdr, e_type), value_except(ET_EXEC, 0xffff),
         2},
        {"ARM's e_machine", offsetof(Elf64_Ehdr, e_machine), EM_AARCH64, 2},
        {"i386's e_machine", offsetof(Elf64_Ehdr, e_machine), EM_386, 2},
        {"another e_machine than EM_X86_64", offsetof(Elf64_Ehdr, e_machine),
         value_except(EM_X86_64, 0xffff), 2},
        {"no program headers", offsetof(Elf64_Ehdr, e_phnum), 0, 2},
        {"program headers of 32 bytes", offsetof(Elf64_Ehdr, e_phentsize), 32, 2},
        {"program headers of another size", offsetof(Elf64_Ehdr, e_phentsize),
         value_except(sizeof(Elf64_Phdr), 0xffff), 2},
        {"program headers of another size", offsetof(Elf64_Ehdr, e_phentsize),
         value_except(sizeof(Elf64_Phdr), 128), 2},
        {"65535 program headers", offsetof(Elf64_Ehdr, e_phnum), 65535, 2},
    };
    /* And each bit of the first 6 bytes, of e_type with e_machine, and of e_phentsize. */
    enum { CHANGES = sizeof changes / sizeof changes[0], BITS = (6 + 4 + 2) * 8 };
    int order[CHANGES + BITS];

    shuffle(order, CHANGES + BITS);
    for (int i = 0; i < CHANGES + BITS; i++) {
        const size_t n = (size_t)order[i];
        files_between();
        if (n >= CHANGES) {
            const size_t byte = (n - CHANGES) / 8,
                         at = byte < 6    ? byte
                              : byte < 10 ? offsetof(Elf64_Ehdr, e_type) + byte - 6
                                          : offsetof(Elf64_Ehdr, e_phentsize) + byte - 10;
            ((uint8_t *)&file)[at] ^= (uint8_t)(1 << (n - CHANGES) % 8);
            ck_assert_msg(load(), "a file with %s (0x%x at offset %zu) was not refused",
                          byte < 6    ? "another e_ident"
                          : byte < 8  ? "another type than ET_EXEC"
                          : byte < 10 ? "another e_machine than EM_X86_64"
                                      : "program headers of another size",
                          ((uint8_t *)&file)[at], at);
            continue;
        }
        memcpy((uint8_t *)&file + changes[n].at, &changes[n].value, changes[n].bytes);
        ck_assert_msg(load(), "a file with %s (%u at offset %zu) was not refused", changes[n].what,
                      changes[n].value, changes[n].at);
    }
    file_make();
    check_right("a right file");
}
END_TEST

/* The program headers are the last bytes of the file, cut by so many. */
static void check_headers_last(size_t cut)
{
    static PRIVATE uint8_t bytes[sizeof file + sizeof file.segments];

    file.header.e_phoff = sizeof file;
    memcpy(bytes, &file, sizeof file);
    memcpy(bytes + sizeof file, file.segments, sizeof file.segments);
    const char *wrong = load_bytes(bytes, 0, sizeof bytes - cut, MEMORY_BYTES);
    ck_assert_msg(cut == 0 || wrong,
                  "a file that ends with its program headers was cut by %zu bytes and not refused",
                  cut);
    ck_assert_msg(cut > 0 || !wrong, "a file that ends with its program headers was refused: %s",
                  wrong);
}

/* e_phoff and the size of the program headers wrap around: to what lies before the file. */
static void check_headers_before(void)
{
    static PRIVATE uint8_t bytes[sizeof file.segments + sizeof file];
    const unsigned before = 1 + unit_random() % 3;

    file.header.e_phoff = 0 - before * sizeof(Elf64_Phdr);
    memset(bytes, 0, sizeof file.segments); /* PT_NULL */
    memcpy(bytes + 2 * sizeof(Elf64_Phdr), &file.segments[0], sizeof(Elf64_Phdr));
    memcpy(bytes + sizeof file.segments, &file, sizeof file);
    ck_assert_msg(load_bytes(bytes, sizeof file.segments, sizeof file, MEMORY_BYTES),
                  "e_phoff = 0x%llx with %u program headers was not refused: that sum wraps around",
                  (unsigned long long)file.header.e_phoff, file.header.e_phnum);
}

/* A segment without bytes in the file; where it would have them decides. */
static void check_no_bytes(unsigned kind)
{
    const uint64_t offsets[] = {sizeof file, sizeof file + 1, sizeof file + 1 + unit_random(),
                                0 - (uint64_t)unit_random() - 1},
                   offset = offsets[kind % 4];

    file.segments[2].p_filesz = 0;
    file.segments[2].p_offset = offset;
    if (offset == sizeof file)
        check_right("a file of which a segment without bytes is at the end (p_offset)");
    else
        ck_assert_msg(load(),
                      "a file of %zu bytes with p_offset = 0x%llx, p_filesz = 0 was not "
                      "refused: p_offset is past its end",
                      sizeof file, (unsigned long long)offset);
}

/* p_offset and p_filesz wrap around. */
static void check_bytes_before(void)
{
    file.segments[2].p_offset = 0 - (uint64_t)(1 + unit_random() % sizeof file.data);
    ck_assert_msg(load(), "p_offset = 0x%llx was not refused",
                  (unsigned long long)file.segments[2].p_offset);
}

START_TEST(cut_files)
{
    static const uint64_t numbers[] = {sizeof file, 0x7fffffff,        0xfffffff0,
                                       1ull << 32,  UINT64_MAX - 0x7f, UINT64_MAX};
    const size_t headers = offsetof(typeof(file), code), ends[] = {0,
                                                                   1,
                                                                   sizeof(Elf64_Ehdr) - 1,
                                                                   sizeof(Elf64_Ehdr),
                                                                   headers - 1,
                                                                   sizeof file - 1};
    enum {
        ENDS = sizeof ends / sizeof ends[0],
        IN_HEADERS = ENDS + 60,
        CUTS = IN_HEADERS + 30,
        NUMBERS = sizeof numbers / sizeof numbers[0],
        PLACES = CUTS + 3 * (NUMBERS + 20), /* of headers and of bytes, four kinds of each */
        CASES = PLACES + 4 * 12
    };
    int order[CASES];

    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const int n = order[i];
        files_between();
        if (n < CUTS) {
            const size_t bytes = n < ENDS ? ends[n]
                                 : n < IN_HEADERS
                                     ? unit_random() % headers
                                     : headers + unit_random() % (sizeof file - headers);
            ck_assert_msg(load_cut(bytes, MEMORY_BYTES),
                          "a file of %zu bytes was cut to %zu and not refused", sizeof file, bytes);
            continue;
        }
        if (n >= PLACES) {
            const unsigned which = (unsigned)(n - PLACES);
            if (which % 4 == 0)
                check_headers_last(which % 8 ? 1 + unit_random() % sizeof file.segments : 0);
            else if (which % 4 == 1)
                check_headers_before();
            else if (which % 4 == 2)
                check_no_bytes(which / 4);
            else
                check_bytes_before();
            continue;
        }
        const int which = (n - CUTS) / 3, field = n % 3;
        /* One of these, or the right one in fewer bits. */
        uint64_t number = which < NUMBERS ? numbers[which] : 1ull << (11 + unit_random() % 53);
        if (which >= NUMBERS)
            number += field == 0   ? file.header.e_phoff
                      : field == 1 ? file.segments[2].p_offset
                                   : file.segments[2].p_filesz;
        if (field == 0)
            file.header.e_phoff = number;
        else if (field == 1)
            file.segments[2].p_offset = number;
        else
            file.segments[2].p_filesz = file.segments[2].p_memsz = number;
        ck_assert_msg(load(), "%s = 0x%llx was not refused",
                      field == 0   ? "e_phoff"
                      : field == 1 ? "p_offset"
                                   : "p_filesz",
                      (unsigned long long)number);
    }
    file_make();
    check_right("a right file");
}
END_TEST

/* The last segment ends where 2 GB of memory do, and its last byte is the entry point. */
static void check_top(void)
{
    static PRIVATE uint8_t *top;
    Elf64_Phdr *data = &file.segments[2];

    top = top ? top : memory_for_both(MEMORY_BYTES);
    memset(top, FILL, MEMORY_BYTES);
    file.segments[0].p_type = PT_NULL;
    data->p_flags = PF_R | PF_X;
    segment_move(data, MEMORY_MAX - data->p_memsz);
    file.header.e_entry = data->p_vaddr + data->p_memsz - 1;
    const char *wrong = elf64_load(copy_at_end(&file, sizeof file), sizeof file,
                                   top + MEMORY_BYTES - MEMORY_MAX, MEMORY_MAX, &first);
    ck_assert_msg(!wrong,
                  "a segment that ends at 0x%llx, where 2 GB of memory end, with the entry point "
                  "in it, was refused: %s",
                  (unsigned long long)(data->p_vaddr + data->p_memsz), wrong);
    ck_assert_msg(memcmp(top + MEMORY_BYTES - data->p_memsz, file.data, sizeof file.data) == 0,
                  "a segment that ends at the end of 2 GB of memory is not at p_paddr = 0x%llx",
                  (unsigned long long)data->p_paddr);
}

/* Any address that is wrong for a segment. */
static uint64_t random_place(const Elf64_Phdr *segment)
{
    switch (unit_random() % 4) {
    case 0:
        return unit_random() % LOAD_MIN;
    case 1:
        return MEMORY_BYTES - segment->p_memsz + 1 + unit_random() % 0x10000;
    case 2: /* one bit above the memory */
        return segment->p_paddr | 1ull << (19 + unit_random() % 45);
    default:
        return 0 - (uint64_t)(1 + unit_random() % segment->p_memsz);
    }
}

/* Either of the two is the executable one, with the entry point. */
static void entry_choose(void)
{
    Elf64_Phdr *segment = &file.segments[unit_random() % 2 * 2];

    file.segments[0].p_flags = file.segments[2].p_flags = PF_R;
    segment->p_flags |= PF_X;
    file.header.e_entry = segment->p_vaddr;
}

enum { WIDE_PADDR, WIDE_FILESZ, WIDE_MEMSZ, WIDE_SIZES, WIDE_FIELDS };

/* A field is right in its lower 32 bits, and only there. */
static void check_wide(unsigned field)
{
    const uint64_t bit = 1ull << (32 + unit_random() % 32);
    Elf64_Phdr *segment = &file.segments[unit_random() % 2 * 2];

    segment->p_paddr |= field == WIDE_PADDR ? bit : 0;
    segment->p_filesz |= field == WIDE_FILESZ || field == WIDE_SIZES ? bit : 0;
    segment->p_memsz |= field == WIDE_MEMSZ || field == WIDE_SIZES ? bit : 0;
    entry_choose();
    ck_assert_msg(load(),
                  "a segment with p_paddr 0x%llx, p_filesz 0x%llx and p_memsz 0x%llx, in a file of "
                  "%zu bytes and memory of 0x%x, was not refused: all 64 bits count",
                  (unsigned long long)segment->p_paddr, (unsigned long long)segment->p_filesz,
                  (unsigned long long)segment->p_memsz, sizeof file, MEMORY_BYTES);
}

START_TEST(wrong_places)
{
    static const uint64_t places[] = {0x1000,           LOAD_MIN - 0x1000, MEMORY_BYTES - 0x40,
                                      MEMORY_BYTES,     0xffffff00,        1ull << 32,
                                      UINT64_MAX - 0xff};
    enum {
        PLACES = sizeof places / sizeof places[0],
        ABOVE = PLACES + 64,
        RANDOM = ABOVE + 16,
        HUGE_MEMSZ = RANDOM,
        SHORT_MEMSZ,
        IN_ZEROS, /* overlap, where the first has no bytes in the file */
        OVERLAP,
        DESCENDING = OVERLAP + 4,
        MEMORY_SHORT,
        MEMORY_FULL,
        LOWEST,
        BELOW,
        TOP,
        WIDE, /* a bit above 31 */
        CASES = WIDE + WIDE_FIELDS * 8
    };
    int order[2 * CASES];

    shuffle(order, 2 * CASES);
    for (int i = 0; i < 2 * CASES; i++) {
        const int n = order[i] % CASES;
        files_between();
        Elf64_Phdr *code = &file.segments[0], *data = &file.segments[2];
        const size_t end = (size_t)(data->p_paddr + data->p_memsz);
        if (n < PLACES) {
            segment_move(places[n] < LOAD_MIN ? code : data, places[n]);
            entry_choose();
            ck_assert_msg(load(), "a segment at 0x%llx, in memory of 0x%x bytes, was not refused",
                          (unsigned long long)places[n], MEMORY_BYTES);
        } else if (n < ABOVE) {
            Elf64_Phdr *segment = unit_random() % 2 ? code : data;
            segment->p_vaddr ^= 1ull << (n - PLACES);
            entry_choose();
            ck_assert_msg(load(),
                          "a segment with p_paddr 0x%llx and p_vaddr 0x%llx was not refused: what "
                          "the kernel finds at that virtual address is not the segment",
                          (unsigned long long)segment->p_paddr,
                          (unsigned long long)segment->p_vaddr);
        } else if (n < RANDOM) {
            segment_move(data, random_place(data));
            entry_choose();
            ck_assert_msg(load(),
                          "a segment at 0x%llx of 0x%llx bytes, in memory of 0x%x bytes, was not "
                          "refused",
                          (unsigned long long)data->p_paddr, (unsigned long long)data->p_memsz,
                          MEMORY_BYTES);
        } else if (n == HUGE_MEMSZ) {
            data->p_memsz = unit_random() % 2 ? UINT64_MAX - 0xfff
                                              : 0 - (uint64_t)(1 + unit_random() % data->p_paddr);
            ck_assert_msg(load(), "p_memsz = 0x%llx was not refused",
                          (unsigned long long)data->p_memsz);
        } else if (n == SHORT_MEMSZ) {
            data->p_memsz = unit_random() % data->p_filesz / 2 + 1;
            ck_assert_msg(load(), "p_filesz over p_memsz was not refused");
        } else if (n >= IN_ZEROS && n < DESCENDING) {
            const uint64_t zeros = 1 + unit_random() % 0x400;
            code->p_memsz += n == IN_ZEROS || unit_random() % 2 ? zeros : 0;
            segment_move(data, code->p_paddr + code->p_memsz - 1 -
                                   unit_random() % (n == IN_ZEROS ? zeros : code->p_memsz));
            ck_assert_msg(load(),
                          "two overlapping segments were not refused: the first has 0x%llx bytes "
                          "in memory at 0x%llx, the second begins at 0x%llx",
                          (unsigned long long)code->p_memsz, (unsigned long long)code->p_paddr,
                          (unsigned long long)data->p_paddr);
        } else if (n == DESCENDING) {
            const Elf64_Phdr lower = *code;
            *code = *data;
            *data = lower;
            ck_assert_msg(load(),
                          "a segment at 0x%llx comes before one at 0x%llx, and the file was not "
                          "refused: the order is to be ascending",
                          (unsigned long long)code->p_paddr, (unsigned long long)data->p_paddr);
        } else if (n == MEMORY_SHORT) {
            ck_assert_msg(load_cut(sizeof file, end - 1),
                          "a segment that ends one byte after the memory was not refused");
        } else if (n == TOP) {
            check_top();
        } else if (n >= WIDE) {
            check_wide((unsigned)(n - WIDE) % WIDE_FIELDS);
        } else if (n == LOWEST) {
            segment_move(code, LOAD_MIN);
            entry_choose();
            check_right("a file with a segment at LOAD_MIN, the lowest address that a segment may "
                        "have,");
        } else if (n == BELOW) {
            segment_move(code, LOAD_MIN - 1 - unit_random() % code->p_memsz);
            entry_choose();
            ck_assert_msg(load(), "a segment at 0x%llx, below LOAD_MIN, was not refused",
                          (unsigned long long)code->p_paddr);
        } else {
            check_right_in("a segment that ends exactly at the memory's end", end);
        }
    }
    file_make();
    check_right("a right file");
}
END_TEST

START_TEST(wrong_entry)
{
    enum { WRONG = 5, CASES = 7, FLAGS = 8, BITS = 64, ALL = 2 * CASES + FLAGS + BITS };
    int order[ALL];

    shuffle(order, ALL);
    for (int i = 0; i < ALL; i++) {
        const int n = order[i] % CASES;
        files_between();
        if (order[i] >= ALL - BITS) { /* another bit than in a right one */
            const Elf64_Phdr *code = &file.segments[0];
            const uint64_t right = code->p_vaddr + unit_random() % code->p_memsz;
            file.header.e_entry = right ^ 1ull << (order[i] - (ALL - BITS));
            const bool inside = file.header.e_entry - code->p_vaddr < code->p_memsz;
            ck_assert_msg(inside == !load(),
                          "the entry point 0x%llx is %s the executable segment, of 0x%llx bytes "
                          "from 0x%llx on: %srefused",
                          (unsigned long long)file.header.e_entry, inside ? "in" : "not in",
                          (unsigned long long)code->p_memsz, (unsigned long long)code->p_vaddr,
                          inside ? "" : "not ");
            continue;
        }
        if (order[i] >= 2 * CASES) { /* in the last segment, with any flags */
            Elf64_Phdr *last = &file.segments[2];
            last->p_flags = (uint32_t)(order[i] - 2 * CASES);
            file.header.e_entry = last->p_vaddr + unit_random() % last->p_memsz;
            ck_assert_msg((last->p_flags & PF_X) == !load(),
                          "the entry point is in %s executable segment (p_flags 0x%x): %srefused",
                          last->p_flags & PF_X ? "an" : "no", last->p_flags,
                          last->p_flags & PF_X ? "" : "not ");
            continue;
        }
        const Elf64_Phdr *code = &file.segments[0];
        const uint64_t entries[CASES] = {0,
                                         code->p_vaddr - 1,
                                         code->p_vaddr + code->p_memsz,
                                         file.segments[2].p_vaddr,
                                         code->p_paddr,
                                         code->p_vaddr,
                                         code->p_vaddr + code->p_memsz - 1};
        file.header.e_entry = entries[n];
        if (n < WRONG)
            ck_assert_msg(load(), "the entry point 0x%llx is in no executable segment: not refused",
                          (unsigned long long)entries[n]);
        else
            check_right("a file whose entry point is at an end of the executable segment");
    }
}
END_TEST

/* A vCPU of the real KVM, and a space in what is its RAM for the module. */
static struct address_space start_space(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    vm->ram = ram;
    vm->ram_bytes = BASE + SPACE_BYTES;
    return space_at(0, SPACE_BYTES);
}

/* All of the RAM's first part, or what one of several guests has. */
static struct address_space random_space(void)
{
    if (unit_random() % 2)
        return space_at(0, SPACE_BYTES / 4 * (1 + unit_random() % 4));
    return space_at(unit_random() % ((BASE + SPACE_BYTES) / SLOT_BYTES) * SLOT_BYTES, SLOT_BYTES);
}

/* Of memory long_mode_enter writes GDT, TSS, tables and boot information. */
static void check_written(const struct address_space *space)
{
    uint8_t *info = space->memory + BOOT_INFO_OFFSET;

    memset(info, FILL, sizeof(struct boot_info)); /* the test has read it */
    check_ram_kept(space->base + GDT_OFFSET, space->base + TABLES_END, "after long_mode_enter");
}

/* Tables, GDT and state are those that the module's other functions make. */
static void check_together(struct vcpu *vcpu, struct address_space *space)
{
    static PRIVATE uint8_t page_then[PAGE_BYTES]; /* with GDT and TSS */
    struct kvm_sregs then;

    ck_assert(kernel(vcpu->fd, KVM_GET_SREGS, &then) == 0);
    if (space->base == 0)
        all_read(space, &all_before, NO_PAGE, false);
    memcpy(page_then, space->memory + GDT_OFFSET, PAGE_BYTES);
    *space = space_at(space->base, space->bytes);
    sregs = then;
    long_tables_build(space);
    long_gdt_build(space);
    long_mode_state(space, entry, stack, &sregs, &regs);
    long_rings_add(space, &sregs);
    if (space->base == 0)
        check_all(space, "long_tables_build alone, and before it long_mode_enter");
    ck_assert_msg(memcmp(page_then, space->memory + GDT_OFFSET, PAGE_BYTES) == 0,
                  "after long_mode_enter GDT and TSS are not as long_gdt_build and long_rings_add "
                  "together make them");
    ck_assert_msg(
        sregs.cr3 == then.cr3 && tables_equal(sregs.gdt, then.gdt) &&
            tables_equal(sregs.idt, then.idt) && sregs.tr.base == then.tr.base &&
            sregs.tr.selector == then.tr.selector && sregs.cs.selector == then.cs.selector &&
            sregs.cr4 == then.cr4 && sregs.cr0 == then.cr0,
        "after long_mode_enter CR0, CR3, CR4, GDTR, IDTR, TR or CS is not as long_mode_state "
        "and long_rings_add together make it");
}

/* The vCPU comes with such registers as it never has after reset. */
static void registers_disturb(struct vcpu *vcpu)
{
    random_fill(&regs, sizeof regs);
    regs.rflags = FLAGS_ALWAYS_ONE | bits_make(FLAGS_OF_CODE);
    ck_assert(kernel(vcpu->fd, KVM_GET_SREGS, &sregs_before) == 0);
    sregs_before.cr0 |= bits_make(CR0_MINOR);
    sregs_before.cr2 = random64();
    sregs_before.cr8 = unit_random() % 16;
    ck_assert(kernel(vcpu->fd, KVM_SET_SREGS, &sregs_before) == 0);
    ck_assert(kernel(vcpu->fd, KVM_SET_REGS, &regs) == 0);
    ck_assert(kernel(vcpu->fd, KVM_GET_SREGS, &sregs_before) == 0);
}

/* With a random entry point; `regs` and `sregs` are then the vCPU's. */
static void enter(struct vcpu *vcpu, struct address_space *space)
{
    entry = HIGHER_HALF_64 + LOAD_DEFAULT + unit_random() % 0x10000;
    *space = space_at(space->base, space->bytes);
    falsified = (struct falsified){0};
    registers_disturb(vcpu);
    check_works("long_mode_enter", long_mode_enter(vcpu, space, entry));
    ck_assert(kernel(vcpu->fd, KVM_GET_REGS, &regs) == 0);
    ck_assert(kernel(vcpu->fd, KVM_GET_SREGS, &sregs) == 0);
}

static void check_start(struct vcpu *vcpu, const struct address_space *space)
{
    ck_assert_msg(regs.rip == entry, "RIP is 0x%llx instead of the entry point, 0x%llx", regs.rip,
                  (unsigned long long)entry);
    ck_assert_msg(regs.rdi == BOOT_INFO_OFFSET,
                  "RDI is 0x%llx instead of BOOT_INFO_OFFSET; the guest's memory starts at 0x%x, "
                  "and its tables map that to 0",
                  regs.rdi, space->base);
    ck_assert_msg((regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rsi | regs.rbp | regs.r8 |
                   regs.r9 | regs.r10 | regs.r11 | regs.r12 | regs.r13 | regs.r14 | regs.r15) ==
                          0 &&
                      regs.rflags == FLAGS_ALWAYS_ONE,
                  "after long_mode_enter RFLAGS is 0x%llx instead of 2, or a general register but "
                  "RIP, RSP and RDI is not 0",
                  regs.rflags);
    ck_assert_msg(sregs.efer == (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE),
                  "EFER is 0x%llx: long_mode_state and long_rings_add were not both called",
                  sregs.efer);
    ck_assert_msg(sregs.cr2 == sregs_before.cr2 && sregs.cr8 == sregs_before.cr8 &&
                      sregs.apic_base == (sregs_before.apic_base & ~(uint64_t)APIC_BASE_ENABLE),
                  "after long_mode_enter CR2 is 0x%llx, CR8 0x%llx and the APIC base 0x%llx; "
                  "KVM_GET_SREGS returned 0x%llx, 0x%llx and 0x%llx, of which only "
                  "APIC_BASE_ENABLE changes",
                  sregs.cr2, sregs.cr8, sregs.apic_base, sregs_before.cr2, sregs_before.cr8,
                  sregs_before.apic_base);
    check_has_cpuid(vcpu, "long_mode_enter");
}

static void check_entered(struct vcpu *vcpu, struct address_space *space)
{
    enter(vcpu, space);
    check_start(vcpu, space);
}

static struct address_space other_space;

/* The other vCPU's thread. */
BOTH static void other_enters(void)
{
    long_mode_enter(&other, &other_space, HIGHER_HALF_64 + LOAD_MIN);
}

/* Two guests of one VM: while one is put into its start state, so is the other. */
static void check_entered_at_once(struct vm *vm, struct vcpu *vcpu)
{
    static const unsigned long moments[] = {AFTER(KVM_GET_SUPPORTED_CPUID), AFTER(KVM_SET_CPUID2),
                                            AFTER(KVM_GET_SREGS), KVM_SET_SREGS, KVM_SET_REGS};

    other_vm = *vm;
    vcpu_init(&other, 1, 1, &other_vm, &guest);
    other.fd = (int)kernel(vm->fd, KVM_CREATE_VCPU, (void *)1ul);
    ck_assert_msg(other.fd >= 0, "the grader's own vCPU could not be created: see make doctor");
    vcpu->index = 0;
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        struct address_space space = space_at(0, SLOT_BYTES);
        other_space = space_at(SLOT_BYTES, SLOT_BYTES - MEDIUM_PAGE_BYTES);
        struct boot_info info;
        meanwhile = other_enters;
        meanwhile_at = moments[i];
        enter(vcpu, &space);
        ck_assert_msg(sregs.cr3 == space.base + DIRECTORY_OFFSET && sregs.cr2 == sregs_before.cr2,
                      "while long_mode_enter was at work, another vCPU's thread called it for a "
                      "guest whose memory starts at 0x%x, and CR3 is 0x%llx instead of 0x%x, or "
                      "CR2 0x%llx instead of 0x%llx: use no static variable",
                      other_space.base, sregs.cr3, space.base + DIRECTORY_OFFSET, sregs.cr2,
                      sregs_before.cr2);
        check_start(vcpu, &space);
        memcpy(&info, space.memory + BOOT_INFO_OFFSET, sizeof info);
        ck_assert_msg(info.memory_bytes == space.bytes,
                      "while long_mode_enter was at work, another vCPU's thread called it for a "
                      "guest of 0x%x bytes, and memory_bytes is 0x%x instead of 0x%x: use no "
                      "static variable",
                      other_space.bytes, info.memory_bytes, space.bytes);
    }
    meanwhile = NULL;
}

START_TEST(boot_information)
{
    struct vm vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&vm, &vcpu);
    struct boot_info info;

    vcpu.index = 0;
    for (int round = 0; round < 8; round++) {
        space = random_space();
        const uint32_t tick_ms = 11 + unit_random() % 80;
        vmm.options.tick_ms = tick_ms;
        vmm.options.ram_bytes = 2 * vm.ram_bytes; /* the space is what counts */
        vcpu.index = (vcpu.index + 1 + (int)(unit_random() % (VCPUS_MAX - 1))) % VCPUS_MAX;
        check_entered(&vcpu, &space);
        const uint64_t stack_at = regs.rsp - HIGHER_HALF_64;
        ck_assert_msg(stack_at >= BOOT_INFO_OFFSET + PAGE_BYTES && stack_at <= LOAD_MIN &&
                          stack_at % 16 == 0,
                      "RSP is 0x%llx: the stack is to lie in the higher half, above the boot "
                      "information and below the lowest image (LOAD_MIN), a multiple of 16",
                      regs.rsp);
        memcpy(&info, space.memory + BOOT_INFO_OFFSET, sizeof info);
        ck_assert_msg(info.magic == BOOT_MAGIC && info.size == sizeof info,
                      "at BOOT_INFO_OFFSET are 0x%x and %u, not magic 0x%x and size %zu",
                      info.magic, info.size, BOOT_MAGIC, sizeof info);
        ck_assert_msg(info.memory_bytes == space.bytes,
                      "memory_bytes is 0x%x, space->bytes is 0x%x", info.memory_bytes, space.bytes);
        ck_assert_msg(info.tick_ms == tick_ms, "tick_ms is %u, with --tick-ms=%u", info.tick_ms,
                      tick_ms);
        ck_assert_msg(info.archive_start == 0 && info.archive_bytes == 0,
                      "there is no archive, and archive_start is 0x%x, archive_bytes %u",
                      info.archive_start, info.archive_bytes);
        check_written(&space);
        check_together(&vcpu, &space);
    }
    check_entered_at_once(&vm, &vcpu);
}
END_TEST

START_TEST(enter_failure)
{
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {{KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"},
                  {KVM_SET_CPUID2, "KVM_SET_CPUID2"},
                  {KVM_GET_SREGS, "KVM_GET_SREGS"},
                  {KVM_SET_SREGS, "KVM_SET_SREGS"},
                  {KVM_SET_REGS, "KVM_SET_REGS"}};
    enum { IOCTLS = sizeof ioctls / sizeof ioctls[0] };
    int order[2 * IOCTLS];
    struct vm vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&vm, &vcpu);

    vcpu.index = 0;
    shuffle(order, 2 * IOCTLS);
    check_entered(&vcpu, &space);
    for (int i = 0; i < 2 * IOCTLS; i++) {
        const size_t which = (size_t)order[i] % IOCTLS;
        falsified = (struct falsified){.request = ioctls[which].request, .error = unit_error()};
        space = random_space();
        listen_start();
        int status = long_mode_enter(&vcpu, &space, HIGHER_HALF_64);
        listen_end();
        check_met("long_mode_enter", ioctls[which].name);
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s failed, and long_mode_enter returns %d instead of STATUS_NO_KVM",
                      ioctls[which].name, status);
        ck_assert_msg(said[0] != '\0',
                      "%s failed, and long_mode_enter said nothing: fail() says it",
                      ioctls[which].name);
        for (uint32_t rights = unit_random() % 3; rights > 0; rights--)
            check_entered(&vcpu, &space);
    }
    check_entered(&vcpu, &space);
}
END_TEST

/* ------------------------------------------------------------------ 7.6 the walk */

#define WALK_PAGES 64u /* of RAM at most */
#define WALK_RAM   (WALK_PAGES * PAGE_BYTES)
#define EFER       (EFER_LME | EFER_LMA | EFER_NXE)
#define NO_NXE     (EFER_LME | EFER_LMA)
/* Bits of an entry that a walk ignores: those of caches, accessed, dirty, global, software. */
#define IGNORED 0x7ff0000000000f78ull

/* The walk's RAM, and where in it the tables of the levels PML4, PDPT, PD and page table are. */
static PRIVATE uint64_t walk_bytes, walk_tables[4];
static PRIVATE uint8_t walk_before[WALK_RAM + PAGE_BYTES]; /* the judge's copy */

static const char *const depth_names[] = {"PML4", "PDPT", "PD", "page table"};

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
    int pages[WALK_PAGES];

    walk_bytes = (8 + unit_random() % (WALK_PAGES - 7)) * PAGE_BYTES;
    shuffle(pages, (int)(walk_bytes / PAGE_BYTES));
    memset(ram, 0, WALK_RAM + PAGE_BYTES);
    for (unsigned depth = 0; depth < 4; depth++)
        walk_tables[depth] = (uint64_t)pages[depth] * PAGE_BYTES;
    for (unsigned depth = 0; depth < last; depth++)
        *walk_entry(virt, depth) = walk_tables[depth + 1] | rights[depth] | PAGE_PRESENT;
    *walk_entry(virt, last) = frame | rights[last] | PAGE_PRESENT | (last < 3 ? PAGE_LARGE : 0);
}

/* RAM is the module's to read: what is compared with it afterwards is what was there before. */
static struct long_walk walk_from(uint64_t cr3, uint64_t efer, uint64_t virt)
{
    memcpy(walk_before, ram, sizeof walk_before);
    struct long_walk found = long_walk(ram, walk_bytes, cr3, efer, virt);
    ck_assert_msg(memcmp(walk_before, ram, sizeof walk_before) == 0,
                  "long_walk has changed RAM: it only reads");
    if (found.mapped || !found.reason)
        return found;
    char reason[RESULT_BYTES];
    snprintf(reason, sizeof reason, "%s", found.reason);
    found = long_walk(ram, walk_bytes, cr3, efer, virt);
    ck_assert_msg(!found.mapped && found.reason && strcmp(found.reason, reason) == 0,
                  "long_walk's reason for the same walk is \"%s\", and then \"%s\": it says what "
                  "was found, which is the same",
                  reason, found.mapped || !found.reason ? "(none)" : found.reason);
    return found;
}

static struct long_walk walk_with(uint64_t efer, uint64_t virt)
{
    return walk_from(walk_tables[0] | (unit_random() & 0x18), efer, virt); /* PWT, PCD */
}

static struct long_walk walk(uint64_t virt)
{
    return walk_with(EFER, virt);
}

static const char *depth_size(unsigned last)
{
    return last == 3 ? "4 KB" : last == 2 ? "2 MB" : "1 GB";
}

/* The walk has read these entries, and found that there is a page; which one, check_walk asks. */
static void check_read(struct long_walk found, uint64_t virt, unsigned last)
{
    ck_assert_msg(found.mapped,
                  "long_walk finds no page for 0x%llx, and there is one of %s, of the entry "
                  "0x%llx: %s",
                  (unsigned long long)virt, depth_size(last),
                  (unsigned long long)*walk_entry(virt, last),
                  found.reason ? found.reason : "(no reason)");
    for (unsigned depth = 0; depth <= last; depth++)
        ck_assert_msg(found.entries[depth] == *walk_entry(virt, depth),
                      "entries[%u] is 0x%llx instead of 0x%llx, as read", depth,
                      (unsigned long long)found.entries[depth],
                      (unsigned long long)*walk_entry(virt, depth));
    ck_assert_msg(found.levels == last + 1, "%u entries were read, and levels is %u", last + 1,
                  found.levels);
}

static void check_walk(struct long_walk found, uint64_t virt, unsigned last, uint64_t phys,
                       const uint64_t rights[4])
{
    uint64_t granted = PAGE_WRITABLE | PAGE_USER, denied = 0;

    check_read(found, virt, last);
    ck_assert_msg(found.phys == phys,
                  "long_walk of 0x%llx, in a page of %s, of the entry 0x%llx, finds 0x%llx instead "
                  "of 0x%llx",
                  (unsigned long long)virt, depth_size(last),
                  (unsigned long long)*walk_entry(virt, last), (unsigned long long)found.phys,
                  (unsigned long long)phys);
    for (unsigned depth = 0; depth <= last; depth++) {
        granted &= rights[depth];
        denied |= rights[depth] & PAGE_NX;
    }
    ck_assert_msg(found.writable == !!(granted & PAGE_WRITABLE) &&
                      found.user == !!(granted & PAGE_USER) && found.executable == !denied,
                  "long_walk finds %s, %s, %s instead of %s: write and user need every level, and "
                  "PAGE_NX at one level is enough",
                  found.writable ? "writable" : "read-only", found.user ? "user" : "kernel",
                  found.executable ? "executable" : "no execute", rights_text(granted | denied));
}

/* All rights in most levels, so that each level decides at times; and what does not count. */
static void rights_make(uint64_t rights[4])
{
    for (unsigned depth = 0; depth < 4; depth++) {
        uint64_t random = random64();
        rights[depth] = PAGE_WRITABLE | PAGE_USER;
        if (random % 4 == 0)
            rights[depth] = random >> 8 & (PAGE_WRITABLE | PAGE_USER);
        if (random >> 32 & 3 ? false : true)
            rights[depth] |= PAGE_NX;
        rights[depth] |= random64() & IGNORED;
    }
}

/* A random page whose last entry is at this depth; where it leads. */
static uint64_t page_make(uint64_t virt, unsigned last, uint64_t rights[4])
{
    const uint64_t in_page = (1ull << (39 - 9 * last)) - 1,
                   frame = random64() & 0x000ffffffffff000 & ~in_page;

    rights_make(rights);
    walk_make(virt, last, frame, rights);
    if (last < 3)
        *walk_entry(virt, last) |= unit_random() & 0x1000; /* bit 12: a cache type */
    return frame | (virt & in_page);
}

/* Before a test makes it one that is not there, the walk finds it. */
static void check_mapped(uint64_t virt, unsigned last, uint64_t rights[4])
{
    page_make(virt, last, rights);
    check_read(walk(virt), virt, last);
}

/* Between the walks that find no page, at random places. */
static void walks_between(void)
{
    uint64_t rights[4];

    for (uint32_t count = unit_random() % 3; count > 0; count--)
        check_mapped(random_canonical(), 3, rights);
}

static struct {
    uint64_t bytes, cr3, virt, other_virt;
} stepped;

/* The other vCPU's thread. */
BOTH static void other_walks(void)
{
    long_walk(ram, stepped.bytes, stepped.cr3, EFER, stepped.other_virt);
}

THERE(struct long_walk, walk_in_steps, (void), (), see_text(&result.reason))
{
    steps_begin(step_count);
    const struct long_walk found = long_walk(ram, stepped.bytes, stepped.cr3, EFER, stepped.virt);
    steps_end();
    return found;
}

/* While one thread walks, so does another, for an address that is not mapped. */
static void check_walked_at_once(void)
{
    uint64_t rights[4];

    for (int round = 0; round < 25; round++) {
        const uint64_t virt = random_canonical(), phys = page_make(virt, 3, rights);
        stepped.bytes = walk_bytes;
        stepped.cr3 = walk_tables[0];
        stepped.virt = virt;
        stepped.other_virt = virt ^ 1ull << (12 + unit_random() % 35); /* at any level */
        between_steps(round ? other_walks : NULL);
        const struct long_walk found = walk_in_steps();
        bool as_read = true;
        for (unsigned depth = 0; depth < 4; depth++)
            as_read = as_read && found.entries[depth] == *walk_entry(virt, depth);
        ck_assert_msg(found.mapped && found.levels == 4 && found.phys == phys && as_read,
                      "while long_walk of 0x%llx was at work, another thread called it for 0x%llx, "
                      "and it finds 0x%llx (mapped: %d, levels: %u) instead of 0x%llx (1, 4), or "
                      "entries that are not those of the tables: use no static variable",
                      (unsigned long long)virt, (unsigned long long)stepped.other_virt,
                      (unsigned long long)found.phys, found.mapped, found.levels,
                      (unsigned long long)phys);
        check_walk(found, virt, 3, phys, rights);
    }
}

START_TEST(walks)
{
    uint64_t rights[4];

    for (int i = 0; i < 200; i++) {
        const uint64_t virt = random_canonical(), phys = page_make(virt, 3, rights);
        check_walk(walk(virt), virt, 3, phys, rights);
    }
    check_walked_at_once();
}
END_TEST

START_TEST(walks_large)
{
    uint64_t rights[4];

    for (int i = 0; i < 200; i++) {
        const unsigned last = i % 2 ? 2 : 1;
        const uint64_t virt = random_canonical(), phys = page_make(virt, last, rights);
        check_walk(walk(virt), virt, last, phys, rights);
    }
}
END_TEST

/* The walk ended without a page, and returned the entries that it has read. */
static void check_nowhere(struct long_walk found, uint64_t virt, const char *what, unsigned levels)
{
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

/* One bit above 4 GB, of those that an address can have. */
static uint64_t above_4g(void)
{
    return 1ull << (32 + unit_random() % 20);
}

/* The first page after RAM, or one after it. */
static uint64_t outside_ram(void)
{
    return walk_bytes + (unit_random() % 2 ? 0 : unit_random() % 0x1000 * PAGE_BYTES);
}

START_TEST(walks_nowhere)
{
    enum {
        ABSENT,                     /* at four depths */
        TABLE_OUTSIDE = ABSENT + 4, /* at three */
        TABLE_ABOVE = TABLE_OUTSIDE + 3,
        PML4_OUTSIDE = TABLE_ABOVE + 3,
        PML4_ABOVE,
        CROOKED,
        CASES = CROOKED + 6
    };
    char what[80];
    char reasons[3][RESULT_BYTES] = {"", "", ""};
    uint64_t rights[4];
    int order[2 * CASES];

    shuffle(order, 2 * CASES);
    for (int i = 0; i < 2 * CASES; i++) {
        const int n = order[i] % CASES;
        walks_between();
        uint64_t virt = random_canonical();
        check_mapped(virt, 3, rights);
        if (n < TABLE_OUTSIDE) {
            const unsigned depth = (unsigned)n;
            *walk_entry(virt, depth) &= ~(uint64_t)PAGE_PRESENT;
            snprintf(what, sizeof what, "the %s entry is not present", depth_names[depth]);
            struct long_walk found = walk(virt);
            check_nowhere(found, virt, what, depth + 1);
            reason_keep(reasons[0], found);
        } else if (n < PML4_OUTSIDE) {
            const bool above = n >= TABLE_ABOVE;
            const unsigned depth = (unsigned)(n - (above ? TABLE_ABOVE : TABLE_OUTSIDE));
            const uint64_t table_at = above ? above_4g() | walk_tables[depth + 1] : outside_ram();
            *walk_entry(virt, depth) = table_at | rights[depth] | PAGE_PRESENT;
            snprintf(what, sizeof what, "the %s is outside of RAM, at 0x%llx",
                     depth_names[depth + 1], (unsigned long long)table_at);
            struct long_walk found = walk(virt);
            check_nowhere(found, virt, what, depth + 1);
            reason_keep(reasons[1], found);
        } else if (n < CROOKED) {
            const uint64_t cr3 = n == PML4_ABOVE ? walk_tables[0] | above_4g() : outside_ram();
            snprintf(what, sizeof what, "CR3 is 0x%llx, outside of RAM", (unsigned long long)cr3);
            check_nowhere(walk_from(cr3, EFER, virt), virt, what, 0);
        } else { /* the same tables, and bits 47 to 63 that are not all equal */
            static const uint64_t crooked[] = {0x800000000000, 0xffff7fffffffffff, 1ull << 63,
                                               1ull << 48, 0xfffe800000000000};
            virt =
                n - CROOKED < 5 ? crooked[n - CROOKED] : virt ^ 1ull << (47 + unit_random() % 17);
            rights_make(rights);
            walk_make(virt, 3, 0x8000, rights);
            struct long_walk found = walk(virt);
            ck_assert_msg(!found.mapped && found.reason,
                          "0x%llx is not canonical, and long_walk finds a page or gives no reason",
                          (unsigned long long)virt);
            reason_keep(reasons[2], found);
        }
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
    enum { PML4_LARGE, IN_PAGE, NX = IN_PAGE + 6, CASES = NX + 9 };
    char absent[RESULT_BYTES], what[120];
    uint64_t rights[4];
    int order[2 * CASES];

    const uint64_t nowhere = random_canonical();
    check_mapped(nowhere, 3, rights);
    *walk_entry(nowhere, 3) &= ~(uint64_t)PAGE_PRESENT;
    reason_keep(absent, walk(nowhere));

    shuffle(order, 2 * CASES);
    for (int i = 0; i < 2 * CASES; i++) {
        const int n = order[i] % CASES;
        const uint64_t virt = random_canonical();
        uint64_t efer = EFER;
        unsigned broken = 0; /* the entry's depth */
        char reserved[RESULT_BYTES];
        struct long_walk found;
        walks_between();
        if (n == PML4_LARGE) {
            check_mapped(virt, 3, rights);
            *walk_entry(virt, 0) |= PAGE_LARGE;
            found = walk(virt);
            check_nowhere(found, virt, "the PML4 entry has bit 7, which is reserved there", 1);
        } else if (n < NX) { /* one bit, or several, of those from 13 on */
            const unsigned last = 1 + (unsigned)(n - IN_PAGE) % 2, bits = 26 - 9 * last;
            check_mapped(virt, last, rights);
            *walk_entry(virt, last) |= 1ull << (13 + unit_random() % bits);
            if (unit_random() % 2)
                *walk_entry(virt, last) |= random64() & ((1ull << bits) - 1) << 13;
            snprintf(what, sizeof what,
                     "the entry of a %s page, 0x%llx, has an address bit below %s",
                     last == 1 ? "1 GB" : "2 MB", (unsigned long long)*walk_entry(virt, last),
                     last == 1 ? "1 GB" : "2 MB");
            found = walk(virt);
            check_nowhere(found, virt, what, last + 1);
            broken = last;
        } else { /* PAGE_NX at each depth of a page of each size, without EFER.NXE and with it */
            const unsigned last = n - NX < 2   ? 1
                                  : n - NX < 5 ? 2
                                               : 3,
                           depth = (unsigned)(n - NX) - (last == 1   ? 0
                                                         : last == 2 ? 2
                                                                     : 5);
            check_mapped(virt, last, rights);
            for (unsigned above = 0; above <= last; above++)
                *walk_entry(virt, above) &= ~PAGE_NX;
            check_read(walk_with(NO_NXE, virt), virt, last);
            *walk_entry(virt, depth) |= PAGE_NX;
            found = walk(virt);
            check_read(found, virt, last);
            ck_assert_msg(!found.executable,
                          "PAGE_NX is set in the %s entry and EFER.NXE is 1: there is a page, "
                          "which is not executable",
                          depth_names[depth]);
            snprintf(what, sizeof what,
                     "PAGE_NX is set in the %s entry and EFER.NXE is 0, so the bit is reserved",
                     depth_names[depth]);
            found = walk_with(NO_NXE, virt);
            check_nowhere(found, virt, what, depth + 1);
            efer = NO_NXE;
            broken = depth;
        }
        ck_assert_msg(strcmp(absent, found.reason) != 0,
                      "a reserved bit is set, and the reason is \"%s\", as for an entry that is "
                      "not present",
                      absent);
        reason_keep(reserved, found);
        *walk_entry(virt, broken) &= ~(uint64_t)PAGE_PRESENT;
        snprintf(what, sizeof what, "the %s entry, 0x%llx, is not present", depth_names[broken],
                 (unsigned long long)*walk_entry(virt, broken));
        found = walk_with(efer, virt);
        check_nowhere(found, virt, what, broken + 1);
        ck_assert_msg(strcmp(reserved, found.reason) != 0,
                      "%s, and the reason is \"%s\": the other bits of such an entry mean nothing",
                      what, reserved);
    }
    const uint64_t virt = random_canonical();
    check_mapped(virt, 3, rights);
    *walk_entry(virt, 3) |= PAGE_LARGE;
    ck_assert_msg(walk(virt).mapped, "bit 7 of a page table's entry is a cache type, not reserved");
}
END_TEST

/* The last entry of a table ends where RAM does. */
START_TEST(walks_edges)
{
    enum { LAST_PAGE, ANY_PAGE, PAST_RAM, LARGEST, CASES };
    uint64_t rights[4];
    char what[80];
    int order[4 * CASES];

    shuffle(order, 4 * CASES);
    for (int i = 0; i < 4 * CASES; i++) {
        const int n = order[i] % CASES;
        walks_between();
        if (n == LARGEST) {
            const uint64_t virt = random_canonical();
            const unsigned depth = unit_random() % 3;
            check_mapped(virt, 3, rights);
            *walk_entry(virt, depth) = 0x000ffffffffff000 | PAGE_PRESENT;
            check_nowhere(walk(virt), virt,
                          "a table is at the largest address that an entry can have", depth + 1);
            continue;
        }
        /* Entry 511 of a table that leads to itself. */
        const uint64_t virt = 0xfffffffffffff000 | (unit_random() & 0xfff);
        page_make(virt, 3, rights);
        const uint64_t table_at = n == LAST_PAGE  ? walk_bytes - PAGE_BYTES
                                  : n == PAST_RAM ? walk_bytes
                                                  : walk_tables[0];
        memset(ram, 0, WALK_RAM + PAGE_BYTES);
        for (unsigned depth = 0; depth < 4; depth++)
            walk_tables[depth] = table_at;
        *walk_entry(virt, 0) = table_at | (unit_random() & 0x66) | PAGE_PRESENT;
        struct long_walk found = walk(virt);
        if (n == PAST_RAM) {
            check_nowhere(found, virt, "the PML4 is the first page past the end of RAM", 0);
            continue;
        }
        snprintf(what, sizeof what, "all tables are one page of RAM, 0x%llx of 0x%llx bytes",
                 (unsigned long long)table_at, (unsigned long long)walk_bytes);
        ck_assert_msg(found.mapped, "%s, and long_walk finds no page: %s", what,
                      found.reason ? found.reason : "(no reason)");
        check_read(found, virt, 3);
        ck_assert_msg(found.phys == (table_at | (virt & 0xfff)),
                      "%s, and long_walk of 0x%llx finds 0x%llx", what, (unsigned long long)virt,
                      (unsigned long long)found.phys);
    }
}
END_TEST

/* ------------------------------------------------------------------ WRITE */

/* The guest's WRITE as KVM reports it; the data is at data_offset. */
static struct {
    struct kvm_run run;
    uint8_t number[4];
} write_exit;

static void start_write(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    guest.kind = GUEST_ELF64;
    vcpu->run = &write_exit.run;
    write_exit.run.exit_reason = KVM_EXIT_IO;
    write_exit.run.io.direction = KVM_EXIT_IO_OUT;
    write_exit.run.io.port = HYPERCALL_PORT;
    write_exit.run.io.size = 4;
    write_exit.run.io.count = 1;
    write_exit.run.io.data_offset = offsetof(typeof(write_exit), number);
    write_exit.number[0] = HC_WRITE;
}

/* The registers can't be read. */
START_TEST(write_unread)
{
    struct kvm_regs spoiled; /* what the failed call leaves */
    char address[20];
    struct vm vm;
    struct vcpu vcpu;

    start_write(&vm, &vcpu);
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
    memcpy(&spoiled, junk, sizeof spoiled);
    snprintf(address, sizeof address, "%llx", spoiled.rsi);
    ck_assert_msg(!strstr(said, address),
                  "KVM_GET_REGS failed at WRITE, and the message gives an address that was never "
                  "read: when vcpu_registers does not return 0, return vcpu_end(vcpu, "
                  "STATUS_CRASHED)");
}
END_TEST

#define STRING_PAGES 4
#define STRING_RAM   (16 * PAGE_BYTES)

/* Where the pages of a string are; 1: nowhere. Its bytes, for as long as there are pages. */
static uint64_t string_virt, string_phys[STRING_PAGES];
static PRIVATE uint8_t string_text[STRING_PAGES * PAGE_BYTES];

static char written[STRING_PAGES * PAGE_BYTES]; /* what stage.console_write got */
static size_t written_bytes;                    /* all of it */

BOTH static bool string_translate(uint64_t linear, uint64_t *phys)
{
    const uint64_t page = (linear - string_virt) / PAGE_BYTES;

    if (page >= STRING_PAGES || string_phys[page] == NO_PAGE)
        return false;
    *phys = string_phys[page] + linear % PAGE_BYTES;
    return true;
}

BOTH static void string_keep(struct vcpu *vcpu, const char *bytes, size_t count)
{
    if (in_meanwhile)
        return;
    if (written_bytes + count <= sizeof written)
        memcpy(written + written_bytes, bytes, count);
    written_bytes += count;
}

/* Pages at a random address, often over a multiple of 4 GB, in random places of RAM. */
static void string_make(void)
{
    int places[STRING_RAM / PAGE_BYTES];

    shuffle(places, STRING_RAM / PAGE_BYTES);
    string_virt = random_canonical() & ~(1ull << 46 | 0xfffff); /* not at the end of a half */
    if (unit_random() % 2)
        string_virt = (string_virt & ~0xffffffffull) + (1ull << 32) - 2 * PAGE_BYTES;
    for (size_t i = 0; i < STRING_PAGES; i++) {
        string_phys[i] = (uint64_t)places[i] * PAGE_BYTES;
        memcpy(string_text + i * PAGE_BYTES, ram + string_phys[i], PAGE_BYTES);
    }
}

/* WRITE of `bytes` bytes, of which `right` can be read: all of them, or what is before a page. */
static void check_string(struct vcpu *vcpu, uint64_t offset, uint64_t bytes, uint64_t right,
                         const char *what)
{
    struct kvm_regs general = {.rsi = string_virt + offset, .rcx = bytes, .rflags = 2};
    char text[200];

    ck_assert(kernel(vcpu->fd, KVM_SET_REGS, &general) == 0);
    snprintf(text, sizeof text, "WRITE with RSI 0x%llx and RCX 0x%llx, %s", general.rsi,
             general.rcx, what);
    written_bytes = 0;
    vcpu->status = 0;
    listen_start();
    const enum step step = long_mode_io(vcpu);
    listen_end();
    ck_assert_msg(written_bytes <= right &&
                      memcmp(written, string_text + offset, written_bytes) == 0,
                  "%s: stage.console_write got %zu bytes, which are others than the string's", text,
                  written_bytes);
    if (bytes == right)
        ck_assert_msg(step == STEP_RUN && written_bytes == right,
                      "%s: %s, and stage.console_write got %zu bytes", text,
                      step == STEP_RUN ? "the vCPU runs on" : "the vCPU has ended", written_bytes);
    else
        ck_assert_msg(step == STEP_END && vcpu->status == STATUS_CRASHED,
                      "%s: %s instead of crashing the guest", text,
                      step == STEP_RUN ? "the vCPU runs on" : "the vCPU ends in another way");
}

/* With a page that has no place, or one outside of RAM. */
static void check_string_cut(struct vcpu *vcpu, uint64_t offset, uint64_t bytes, int kind)
{
    const uint64_t outside[] = {NO_PAGE, STRING_RAM, STRING_RAM + random_page(1ull << 40),
                                0x000ffffffffff000};
    const uint64_t last = (offset + bytes - 1) / PAGE_BYTES,
                   page = offset / PAGE_BYTES + unit_random() % (last - offset / PAGE_BYTES + 1),
                   start = page * PAGE_BYTES;

    string_phys[page] = outside[kind % 4];
    check_string(vcpu, offset, bytes, start > offset ? start - offset : 0,
                 string_phys[page] == NO_PAGE ? "with a page that is not mapped"
                                              : "with a page outside of RAM");
}

/* A string without bytes has no page. */
static void check_string_empty(struct vcpu *vcpu, uint64_t offset)
{
    for (size_t i = 0; i < STRING_PAGES; i++)
        string_phys[i] = NO_PAGE;
    check_string(vcpu, offset, 0, 0, "which is empty");
}

/* The other vCPU's thread. */
BOTH static void other_writes(void)
{
    long_mode_io(&other);
}

/* The same WRITE, and while it is at work another vCPU's, of the string's first bytes. */
static void check_string_at_once(struct vcpu *vcpu, uint64_t offset, uint64_t bytes)
{
    struct kvm_regs general = {.rsi = string_virt, .rcx = 1 + unit_random() % 16, .rflags = 2};

    ck_assert(kernel(other.fd, KVM_SET_REGS, &general) == 0);
    meanwhile = other_writes;
    meanwhile_at = unit_random() % 2 ? AT_TRANSLATE : AFTER(KVM_GET_REGS);
    check_string(vcpu, offset, bytes, bytes, "in RAM, while another vCPU's thread does a WRITE");
    meanwhile = NULL;
}

/* Between strings that are right: such that leave RAM, and lengths that need all 64 bits. */
START_TEST(strings)
{
    enum { RIGHT = 40, CUT = RIGHT + 40, LONG = CUT + 32, EMPTY = LONG + 8, CASES = EMPTY + 16 };
    struct stage changed = stage;
    struct vm vm;
    struct vcpu vcpu;
    int order[CASES];

    start_write(&other_vm, &other);
    start_write(&vm, &vcpu);
    changed.console_write = string_keep;
    stage_set(&changed);
    translate_instead = string_translate;
    vm.ram = other_vm.ram = ram;
    vm.ram_bytes = other_vm.ram_bytes = STRING_RAM;
    random_fill(ram, STRING_RAM + PAGE_BYTES);
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const uint64_t offset = unit_random() % (3 * PAGE_BYTES),
                       room = sizeof string_text - offset, bytes = 1 + unit_random() % room;
        string_make();
        if (order[i] < RIGHT)
            check_string(&vcpu, offset, bytes, bytes, "in RAM");
        else if (order[i] < CUT)
            check_string_cut(&vcpu, offset, bytes, order[i]);
        else if (order[i] < LONG)
            check_string(&vcpu, offset, bytes | 1ull << (32 + order[i] - CUT), room,
                         "more than what is mapped");
        else if (order[i] < EMPTY)
            check_string_empty(&vcpu, offset);
        else
            check_string_at_once(&vcpu, offset, bytes);
    }
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
    unit_add(suite, "strings", strings);
    return unit_main(suite);
}
