/*
 * paging.c - lab 5's module function by function. No guest runs here: what the module writes into
 * memory is read as a processor would read it. Only paging_enter needs KVM.
 */
#include "../../unit.h"
#include "lab5.h"

#include "debug/entry_state.h"

#define GDT_ENTRIES 8192 /* of the GDT that segment_load is given: all that a selector can name */

MODULE(uint64_t, descriptor_encode, (const struct descriptor *descriptor), (descriptor),
       KEEP(*descriptor))
MODULE(struct kvm_segment, segment_load, (const uint64_t *gdt, uint16_t selector), (gdt, selector),
       call_give(gdt, GDT_ENTRIES * sizeof *gdt))
MODULE_VOID(gdt_build, (struct address_space * space), (space), SEE_SPACE(space))
MODULE_VOID(directory_build, (struct address_space * space), (space), SEE_SPACE(space))
MODULE(int, page_map, (struct address_space * space, uint32_t virt, uint32_t phys, uint32_t flags),
       (space, virt, phys, flags), SEE_SPACE(space))
MODULE_VOID(paging_state,
            (const struct address_space *space, uint32_t entry, uint32_t stack,
             struct kvm_sregs *sregs, struct kvm_regs *regs),
            (space, entry, stack, sregs, regs), KEEP(*space), SEE(*sregs), SEE(*regs))
MODULE(struct page_walk, page_walk,
       (const uint8_t *ram, size_t ram_bytes, uint32_t cr3, uint32_t cr4, uint32_t virt),
       (ram, ram_bytes, cr3, cr4, virt), see_text(&result.reason))
MODULE(int, space_open, (struct vcpu * vcpu, struct address_space *space), (vcpu, space),
       SEE(*space))
MODULE(int, paging_enter,
       (struct vcpu * vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
        uint32_t ebx),
       (vcpu, space, entry, stack, ebx), see_vcpu(vcpu), SEE_SPACE(space))

#define SPACE_BYTES 0x1000000u  /* of most address spaces here: 16 MB */
#define BASE        0x400000u   /* and where they start in their VM's RAM */
#define MEMORY_MAX  HIGHER_HALF /* 2 GB: the largest --mem; only its tables are really there */
#define RIGHTS      (PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER)

static _Alignas(PAGE_BYTES) uint8_t ram[BASE + SPACE_BYTES + PAGE_BYTES];
static PRIVATE uint8_t before[TABLES_END + PAGE_BYTES]; /* of a space's memory */

/* Memory is not always zero, neither where the tables are nor where they would be without `base`.
 */
static struct address_space space_at(uint32_t base, uint32_t bytes)
{
    memset(before, (int)(unit_random() | 1), sizeof before);
    memcpy(ram, before, sizeof before);
    memcpy(ram + base, before, sizeof before);
    return (struct address_space){
        .memory = ram + base, .base = base, .bytes = bytes, .next_table = TABLES_OFFSET};
}

static void check_kept(const struct address_space *space, uint32_t start, uint32_t end,
                       const char *what)
{
    for (uint32_t i = start; i < end; i++)
        if (space->memory[i] != before[i])
            ck_abort_msg("%s: the byte at offset 0x%x is changed, which must stay as it is", what,
                         i);
}

/*
 * The module's first access to a page that is held waits until another vCPU's thread has acted. A
 * module that keeps in a static variable what belongs to one call mixes the two up.
 */
#define AT_ACCESS 2ul /* meanwhile_at */

static uint8_t *held;
static struct sigaction before_held;
static struct address_space other_space; /* the other vCPU's */

BOTH static void page_open(void)
{
    mprotect(held, PAGE_BYTES, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &before_held, NULL);
}

BOTH static void page_accessed(int number, siginfo_t *info, void *context)
{
    const uint8_t *place = info->si_addr;

    page_open(); /* the access is made again, and another fault is the module's own */
    if (place >= held && place < held + PAGE_BYTES)
        meanwhile_run(AT_ACCESS);
}

THERE_VOID(page_close, (void), ())
{
    struct sigaction action = {.sa_sigaction = page_accessed, .sa_flags = SA_SIGINFO};

    sigaction(SIGSEGV, &action, &before_held);
    mprotect(held, PAGE_BYTES, PROT_NONE);
}

THERE_VOID(page_open_again, (void), ())
{
    page_open();
}

static void page_hold(uint8_t *page, void (*other)(void))
{
    held = page;
    meanwhile = other;
    meanwhile_at = AT_ACCESS;
    page_close();
}

/* The module must have accessed the page. */
static void page_release(const char *function, const char *what)
{
    const bool accessed = !meanwhile;

    if (!accessed)
        page_open_again();
    meanwhile = NULL;
    ck_assert_msg(accessed, "%s did not access %s", function, what);
}

static uint32_t random_page(uint32_t bytes)
{
    return unit_random() % (bytes / PAGE_BYTES) * PAGE_BYTES;
}

/* ------------------------------------------------------------------ 5.1 descriptors */

/* A descriptor's fields as SDM vol. 3, figure 3-8 has them. */
static uint32_t raw_base(uint64_t raw)
{
    return (uint32_t)((raw >> 16 & 0xffffff) | (raw >> 56) << 24);
}

static uint32_t raw_limit(uint64_t raw)
{
    uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 48 & 0xf) << 16);

    return raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static uint64_t raw_of(const struct descriptor *d)
{
    const bool pages = d->limit > 0xfffff;
    const uint64_t limit = pages ? d->limit >> 12 : d->limit, base = d->base;

    return (limit & 0xffff) | (limit >> 16) << 48 | (base & 0xffffff) << 16 | (base >> 24) << 56 |
           (uint64_t)d->type << 40 | (uint64_t)d->code_data << 44 | (uint64_t)d->dpl << 45 |
           (uint64_t)d->present << 47 | (uint64_t)d->big << 54 | (uint64_t)pages << 55;
}

static uint64_t raw_random(void)
{
    return (uint64_t)unit_random() << 32 | unit_random();
}

/* The descriptor's type, as it is or with the mark of a load: accessed; of a free TSS, busy. */
static bool is_type(unsigned type, uint64_t raw)
{
    const unsigned is = raw >> 40 & 15;
    const bool code_data = raw >> 44 & 1, free_tss = !code_data && (is == 1 || is == 9);

    return type == is || (code_data && type == (is | 1)) || (free_tss && type == (is | 2));
}

/* The names of the fields in which two descriptors differ. */
static const char *raw_difference(uint64_t one, uint64_t other)
{
    static const struct {
        uint64_t bits;
        const char *name;
    } fields[] = {
        {0x000f00000000ffff, " limit (bits 0-15 and 48-51)"},
        {0xff0000ffffff0000, " base (bits 16-39 and 56-63)"},
        {0x00000f0000000000, " type (bits 40-43)"},
        {0x0000100000000000, " S (bit 44)"},
        {0x0000600000000000, " DPL (bits 45-46)"},
        {0x0000800000000000, " P (bit 47)"},
        {0x0030000000000000, " bits 52-53, which are 0"},
        {0x0040000000000000, " D/B (bit 54)"},
        {0x0080000000000000, " G (bit 55)"},
    };
    static char text[256];

    text[0] = '\0';
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if ((one ^ other) & fields[i].bits)
            strcat(text, fields[i].name);
    return text;
}

START_TEST(encode)
{
    static const uint32_t limits[] = {UINT32_MAX, 0xfffff, 0x100fff}; /* flat; the edge of G */

    for (int i = 0; i < 200; i++) {
        struct descriptor d = {0, 0, TYPE_CODE, true, 0, true, true};
        if (i < 3) {
            d.limit = limits[i];
        } else {
            const uint32_t bits = unit_random();
            d = (struct descriptor){.base = unit_random(),
                                    .type = bits & 15,
                                    .code_data = bits >> 4 & 1,
                                    .dpl = bits >> 5 & 3,
                                    .present = bits >> 7 & 1,
                                    .big = bits >> 8 & 1};
            d.limit = unit_random() >> unit_random() % 32;
            d.limit |= d.limit > 0xfffff ? 0xfff : 0;
        }
        const uint64_t raw = descriptor_encode(&d), expected = raw_of(&d);
        ck_assert_msg(raw == expected,
                      "descriptor_encode of base=0x%x limit=0x%x type=0x%x S=%d DPL=%d P=%d D/B=%d "
                      "gives 0x%016llx instead of 0x%016llx; wrong:%s",
                      d.base, d.limit, d.type, d.code_data, d.dpl, d.present, d.big,
                      (unsigned long long)raw, (unsigned long long)expected,
                      raw_difference(raw, expected));
    }
}
END_TEST

/* `segment` must be what the processor makes of descriptor `raw`. */
static void check_segment(const char *name, const struct kvm_segment *segment, uint16_t selector,
                          uint64_t raw)
{
    const bool pages = raw >> 55 & 1;

    ck_assert_msg(segment->selector == selector, "%s: the selector is 0x%x instead of 0x%x", name,
                  segment->selector, selector);
    ck_assert_msg(segment->base == raw_base(raw),
                  "%s, selector 0x%x: base 0x%llx instead of 0x%x (selector >> 3 is the place in "
                  "the table, its low bits are RPL and TI)",
                  name, selector, segment->base, raw_base(raw));
    ck_assert_msg(segment->limit == raw_limit(raw),
                  "%s: the descriptor has G=%d and limit 0x%x, the segment register gets limit "
                  "0x%x: in the register it is in bytes, and G only says how it was stored",
                  name, pages, raw_limit(raw), segment->limit);
    ck_assert_msg(segment->g == pages, "%s: G is %d in the descriptor and %d in the register", name,
                  pages, segment->g);
    ck_assert_msg(is_type(segment->type, raw),
                  "%s: descriptor 0x%016llx gives type %u instead of %u (bits 40-43)", name,
                  (unsigned long long)raw, segment->type, (unsigned)(raw >> 40 & 15));
    const struct {
        const char *name;
        unsigned is, expected;
    } fields[] = {
        {"S (bit 44)", segment->s, raw >> 44 & 1},
        {"DPL (bits 45-46)", segment->dpl, raw >> 45 & 3},
        {"P (bit 47)", segment->present, raw >> 47 & 1},
        {"AVL (bit 52)", segment->avl, raw >> 52 & 1},
        {"L (bit 53)", segment->l, raw >> 53 & 1},
        {"D/B (bit 54)", segment->db, raw >> 54 & 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        ck_assert_msg(fields[i].is == fields[i].expected,
                      "%s: descriptor 0x%016llx gives %s = %u instead of %u", name,
                      (unsigned long long)raw, fields[i].name, fields[i].is, fields[i].expected);
    ck_assert_msg(!segment->unusable || !segment->present,
                  "%s: a segment that was loaded is not `unusable`", name);
}

START_TEST(load)
{
    static PRIVATE uint64_t gdt[GDT_ENTRIES];

    for (size_t i = 0; i < GDT_ENTRIES; i++)
        gdt[i] = raw_random();
    for (int i = 0; i < 50; i++) {
        const uint32_t index = 1 + (unit_random() % (GDT_ENTRIES - 1) >> unit_random() % 13);
        gdt[index] = raw_random();
        const uint32_t dpl = gdt[index] >> 45 & 3;
        const bool code = (gdt[index] >> 43 & 3) == 3;
        /* RPL is DPL for code, otherwise not above it. */
        const uint16_t selector = (uint16_t)(index * 8 | (code ? dpl : dpl & unit_random()));
        const struct kvm_segment segment = segment_load(gdt, selector);
        check_segment("segment_load", &segment, selector, gdt[index]);
    }
}
END_TEST

START_TEST(gdt)
{
    static const struct {
        const char *what;
        uint16_t selector;
        struct descriptor descriptor;
    } entries[] = {
        {"kernel code, flat",
         SELECTOR_KERNEL_CODE,
         {0, UINT32_MAX, TYPE_CODE, true, 0, true, true}},
        {"kernel data, flat",
         SELECTOR_KERNEL_DATA,
         {0, UINT32_MAX, TYPE_DATA, true, 0, true, true}},
        {"user code, flat", SELECTOR_USER_CODE, {0, UINT32_MAX, TYPE_CODE, true, 3, true, true}},
        {"user data, flat", SELECTOR_USER_DATA, {0, UINT32_MAX, TYPE_DATA, true, 3, true, true}},
        {"the TSS, which has 104 bytes",
         SELECTOR_TSS,
         {HIGHER_HALF + TSS_OFFSET, 103, TYPE_TSS_BUSY, false, 0, true, false}},
    };
    struct address_space space = space_at(BASE, SPACE_BYTES);
    uint64_t table[6];

    gdt_build(&space);
    memcpy(table, space.memory + GDT_OFFSET, sizeof table);
    ck_assert_msg(table[0] == 0, "entry 0 of the GDT must be all zero: the null descriptor");
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const struct descriptor *d = &entries[i].descriptor;
        const uint64_t mark = d->code_data ? 1ull << 40 : 2ull << 40; /* of 5.4-entry-checks */
        const uint64_t raw = table[entries[i].selector >> 3], expected = raw_of(d);
        ck_assert_msg((raw | mark) == expected,
                      "selector 0x%x (%s): the descriptor is 0x%016llx instead of 0x%016llx; "
                      "wrong:%s",
                      entries[i].selector, entries[i].what, (unsigned long long)raw,
                      (unsigned long long)expected, raw_difference(raw | mark, expected));
    }
    for (uint32_t i = 0; i < 104; i++)
        ck_assert_msg(space.memory[TSS_OFFSET + i] == 0, "byte %u of the TSS is not zero", i);
    check_kept(&space, 0, GDT_OFFSET, "gdt_build, before the GDT");
    check_kept(&space, DIRECTORY_OFFSET, sizeof before, "gdt_build, from DIRECTORY_OFFSET on");
}
END_TEST

/* ------------------------------------------------------------------ reading page tables */

static void poke(uint32_t phys, uint32_t value)
{
    memcpy(ram + phys, &value, sizeof value);
}

/* Where the processor finds `virt`, from what lies in memory. */
struct found {
    bool mapped;
    uint32_t phys, rights;
    char entries[80]; /* as read, in words */
};

static uint32_t entry_at(const struct address_space *space, uint32_t phys)
{
    uint32_t entry;

    ck_assert_msg(phys >= space->base && phys - space->base <= space->bytes - 4,
                  "a directory entry leads to a page table at 0x%x, outside of the guest's memory",
                  phys);
    memcpy(&entry, space->memory + (phys - space->base), sizeof entry);
    return entry;
}

static struct found translate(const struct address_space *space, uint32_t virt)
{
    uint32_t index = virt / LARGE_PAGE_BYTES;
    uint32_t entry = entry_at(space, space->base + DIRECTORY_OFFSET + index * 4);
    struct found found = {.mapped = entry & PAGE_PRESENT, .rights = entry & RIGHTS};
    int length =
        snprintf(found.entries, sizeof found.entries, "directory[%u] = 0x%x", index, entry);

    if (found.mapped && entry & PAGE_LARGE) {
        found.phys = (entry & 0xffc00000) | virt % LARGE_PAGE_BYTES;
    } else if (found.mapped) {
        index = virt / PAGE_BYTES % 1024;
        entry = entry_at(space, (entry & 0xfffff000) + index * 4);
        snprintf(found.entries + length, sizeof found.entries - (size_t)length,
                 ", table[%u] = 0x%x", index, entry);
        found.mapped = entry & PAGE_PRESENT;
        found.phys = (entry & 0xfffff000) | virt % PAGE_BYTES;
        found.rights &= entry;
    }
    return found;
}

/* `virt` must lead to offset `phys` of the space with these rights; flags 0: nowhere. */
static void check_page(const struct address_space *space, uint32_t virt, uint32_t phys,
                       uint32_t flags, const char *when)
{
    struct found found = translate(space, virt);

    if (found.mapped != (flags != 0))
        ck_abort_msg("%s: address 0x%x is %smapped: %s (the guest's memory is 0x%x bytes from 0x%x "
                     "on)",
                     when, virt, found.mapped ? "" : "not ", found.entries, space->bytes,
                     space->base);
    if (!found.mapped)
        return;
    if (found.phys != space->base + phys)
        ck_abort_msg(
            "%s: address 0x%x leads to 0x%x instead of 0x%x: %s (the guest's memory starts "
            "at 0x%x)",
            when, virt, found.phys, space->base + phys, found.entries, space->base);
    if (found.rights != flags)
        ck_abort_msg("%s: address 0x%x is %s, %s instead of %s, %s: %s (a right needs both levels)",
                     when, virt, found.rights & PAGE_WRITABLE ? "writable" : "read-only",
                     found.rights & PAGE_USER ? "user" : "kernel",
                     flags & PAGE_WRITABLE ? "writable" : "read-only",
                     flags & PAGE_USER ? "user" : "kernel", found.entries);
}

/* ------------------------------------------------------------------ 5.2 the directory */

START_TEST(directory)
{
    static const struct {
        uint32_t base, bytes;
    } spaces[] = {
        {0, SPACE_BYTES}, {BASE, SPACE_BYTES}, {BASE, SLOT_BYTES}, {0, 1 << 20}, {0, MEMORY_MAX}};
    enum { KNOWN = sizeof spaces / sizeof spaces[0] };
    char when[80];

    for (size_t i = 0; i < KNOWN + 5; i++) {
        uint32_t base = 0, bytes = (1 + unit_random() % 500) * LARGE_PAGE_BYTES;
        if (i < KNOWN) {
            base = spaces[i].base;
            bytes = spaces[i].bytes;
        } else {
            bytes += i == KNOWN ? PAGE_BYTES : random_page(LARGE_PAGE_BYTES);
        }
        struct address_space space = space_at(base, bytes);
        uint32_t end = (bytes + LARGE_PAGE_BYTES - 1) & ~(LARGE_PAGE_BYTES - 1u);
        directory_build(&space);
        snprintf(when, sizeof when, "after directory_build of %u KB of memory", space.bytes >> 10);
        for (uint32_t step = 0; step < 1024; step++) {
            uint32_t virt = step * LARGE_PAGE_BYTES + unit_random() % 1024 * PAGE_BYTES;
            uint32_t offset = virt % HIGHER_HALF;
            if (offset >= space.bytes && offset < end)
                continue; /* past RAM's end, in its last 4 MB: not checked */
            check_page(&space, virt, offset,
                       offset < space.bytes ? PAGE_PRESENT | PAGE_WRITABLE : 0, when);
            uint32_t entry = entry_at(&space, space.base + DIRECTORY_OFFSET + step * 4);
            ck_assert_msg(offset < end || entry == 0,
                          "%s: directory[%u] = 0x%x maps nothing; every other entry is 0", when,
                          step, entry);
        }
        check_page(&space, 0, 0, PAGE_PRESENT | PAGE_WRITABLE, when);
        check_page(&space, HIGHER_HALF, 0, PAGE_PRESENT | PAGE_WRITABLE, when);
        check_page(&space, HIGHER_HALF + bytes - PAGE_BYTES, bytes - PAGE_BYTES,
                   PAGE_PRESENT | PAGE_WRITABLE, when);
        check_kept(&space, 0, DIRECTORY_OFFSET, when);
        check_kept(&space, TABLES_END, sizeof before, when);
    }
}
END_TEST

/* ------------------------------------------------------------------ 5.3 single pages */

#define REGIONS 8 /* of 4 MB */

/* What page_map returned, in words. */
static const char *error_name(int error)
{
    static char text[24];

    snprintf(text, sizeof text, "%d", error);
    return error == EINVAL ? "EINVAL" : error == ENOMEM ? "ENOMEM" : text;
}

/* page_map of one page, and what became of it. */
static void map_one(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags,
                    const char *where)
{
    char when[120];

    snprintf(when, sizeof when, "after page_map(0x%x, 0x%x, %s), %s", virt, phys,
             flags == 0              ? "0"
             : flags & PAGE_WRITABLE ? flags & PAGE_USER ? "writable, user" : "writable, kernel"
             : flags & PAGE_USER     ? "read-only, user"
                                     : "read-only, kernel",
             where);
    int error = page_map(space, virt, phys, flags);
    ck_assert_msg(error == 0, "page_map(0x%x, 0x%x, 0x%x), %s, returns %s instead of 0", virt, phys,
                  flags, where, error_name(error));
    check_page(space, virt, phys, flags, when);
}

START_TEST(map)
{
    static PRIVATE struct {
        uint32_t phys, flags;
        bool known;
    } pages[REGIONS][1024];
    uint32_t regions[REGIONS] = {0, HIGHER_HALF, HIGHER_HALF - LARGE_PAGE_BYTES, 0xffc00000};
    struct address_space space = space_at(BASE, SPACE_BYTES);
    bool known[REGIONS] = {false};
    int order[12 * REGIONS];

    directory_build(&space);
    for (uint32_t i = 4; i < REGIONS; i++) /* below 2 GB and from 3 GB on */
        regions[i] = (i % 2 ? 0x40000000 : 0xc0000000) + i * 0x4000000 +
                     unit_random() % 16 * LARGE_PAGE_BYTES;
    map_one(&space, 0x30000000 + random_page(0x10000000), 0, 0, "of a page that nobody had mapped");
    shuffle(order, 12 * REGIONS);
    for (int i = 0; i < 12 * REGIONS; i++) {
        const int region = order[i] % REGIONS, kind = order[i] / REGIONS;
        /* Of the last regions' tables the first and the last entry stay as they are new. */
        const uint32_t page = region >= 4 || kind >= 8 ? 1 + unit_random() % 1022
                              : kind < 4               ? 0
                                                       : 1023;
        const uint32_t edge = unit_random() % 4;
        const uint32_t phys = edge == 0   ? 0
                              : edge == 1 ? SPACE_BYTES - PAGE_BYTES
                                          : random_page(SPACE_BYTES);
        const uint32_t flags = kind % 4 == 3 ? 0 : PAGE_PRESENT | (unit_random() & RIGHTS);
        map_one(&space, regions[region] + page * PAGE_BYTES, phys, flags,
                known[region] ? "in 4 MB that had a page table already"
                              : "in 4 MB without a page table");
        known[region] = pages[region][page].known = true;
        pages[region][page].phys = phys;
        pages[region][page].flags = flags;
    }
    for (int i = 0; i < REGIONS; i++)
        for (uint32_t page = 0; page < 1024; page++)
            if (i >= 2 || pages[i][page].known) /* of 4 MB pages, the others are 5.3-split's */
                check_page(&space, regions[i] + page * PAGE_BYTES, pages[i][page].phys,
                           pages[i][page].flags, "after other pages were mapped and unmapped, too");
    check_kept(&space, 0, DIRECTORY_OFFSET, "page_map, before the directory");
    check_kept(&space, TABLES_END, sizeof before, "page_map, from TABLES_END on");
}
END_TEST

/* Which page of the 4 MB is mapped or unmapped, and to where. */
enum { PAGE_FIRST, PAGE_LAST, PAGE_ANY, PLACES };
enum { TO_4_MB, TO_WHERE_IT_IS, TO_ANY, TO_NOWHERE, TARGETS };

/* In a new space, page_map of one page in a 4 MB page with these rights. */
static void split_check(int place, int target, uint32_t rights)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const uint32_t kernel = PAGE_PRESENT | PAGE_WRITABLE;
    const uint32_t flags = target == TO_NOWHERE ? 0 : rights ^ (PAGE_WRITABLE | PAGE_USER);
    const uint32_t half = unit_random() % 2 ? HIGHER_HALF : 0;
    const uint32_t large = unit_random() % (SPACE_BYTES / LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES;
    const uint32_t directory_entry =
        space.base + DIRECTORY_OFFSET + (half + large) / LARGE_PAGE_BYTES * 4;
    const uint32_t in_large = place == PAGE_FIRST  ? 0
                              : place == PAGE_LAST ? LARGE_PAGE_BYTES - PAGE_BYTES
                                                   : random_page(LARGE_PAGE_BYTES);
    const uint32_t virt = half + large + in_large;
    uint32_t frame = large, phys = random_page(SPACE_BYTES);
    char when[120];

    directory_build(&space);
    if (rights != kernel) { /* other 4 MB, with other rights, than directory_build maps */
        frame = unit_random() % (SPACE_BYTES / LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES;
        poke(directory_entry, (space.base + frame) | PAGE_LARGE | rights);
    }
    if (target == TO_4_MB)
        phys = unit_random() % (SPACE_BYTES / LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES;
    else if (target == TO_WHERE_IT_IS)
        phys = frame + in_large;
    snprintf(when, sizeof when, "after page_map(0x%x, 0x%x, 0x%x) in a 4 MB page", virt, phys,
             flags);
    ck_assert_msg(page_map(&space, virt, phys, flags) == 0,
                  "page_map of 0x%x, in a 4 MB page, does not return 0", virt);
    for (uint32_t page = 0; page < LARGE_PAGE_BYTES; page += PAGE_BYTES)
        if (page == in_large)
            check_page(&space, virt, phys, flags, when);
        else
            check_page(&space, half + large + page, frame + page, rights, when);
    const uint32_t index = in_large / PAGE_BYTES ^ 1;
    const uint32_t other =
        entry_at(&space, (entry_at(&space, directory_entry) & ~0xfffu) + index * 4);
    ck_assert_msg(!(other & PAGE_LARGE),
                  "%s: table[%u] = 0x%x has bit 7: PAGE_LARGE in the directory's entry, PAT in "
                  "a table's",
                  when, index, other);
    check_page(&space, (HIGHER_HALF - half) + large + in_large, large + in_large, kernel,
               "the same 4 MB in the other half");
}

START_TEST(split)
{
    static const uint32_t rights[] = {PAGE_PRESENT | PAGE_WRITABLE, PAGE_PRESENT | PAGE_USER,
                                      PAGE_PRESENT, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER};
    int order[PLACES * TARGETS];

    shuffle(order, PLACES * TARGETS);
    for (int i = 0; i < PLACES * TARGETS; i++) {
        const int place = order[i] % PLACES, target = order[i] / PLACES;
        split_check(place, target, rights[(place + target) % 4]);
    }
}
END_TEST

/* Two guests of one VM, their pages mapped in turns: nothing may be kept from one to the other. */
START_TEST(two_spaces)
{
    struct address_space spaces[2] = {space_at(0, SLOT_BYTES), space_at(BASE, SLOT_BYTES)};

    for (int i = 0; i < 2; i++)
        directory_build(&spaces[i]);
    for (uint32_t page = 0; page < 6; page++)
        for (int i = 0; i < 2; i++) {
            /* Each second one is in a table that is there; the first of all splits a 4 MB page. */
            uint32_t virt = page / 2 * 0x40000000u + (1 + page % 2) * PAGE_BYTES;
            uint32_t phys = 0x200000 + page * PAGE_BYTES;
            int error = page_map(&spaces[i], virt, phys, PAGE_PRESENT | PAGE_USER);
            ck_assert_msg(error == 0, "page_map(0x%x) for guest %d of 2 returns %d instead of 0",
                          virt, i, error);
        }
    for (uint32_t page = 0; page < 6; page++)
        for (int i = 0; i < 2; i++)
            check_page(&spaces[i], page / 2 * 0x40000000u + (1 + page % 2) * PAGE_BYTES,
                       0x200000 + page * PAGE_BYTES, PAGE_PRESENT | PAGE_USER,
                       i == 0
                           ? "the first of two guests, after pages were mapped for both in turns"
                           : "the second of two guests, after pages were mapped for both in turns");
}
END_TEST

/* page_map must not refuse this page; its rights are 5.3-map's. */
static void check_accepted(struct address_space *space, uint32_t virt, uint32_t phys,
                           const char *what)
{
    const int error = page_map(space, virt, phys, PAGE_PRESENT);

    ck_assert_msg(error == 0, "page_map(0x%x, 0x%x, 0x1), %s, returns %s instead of 0", virt, phys,
                  what, error_name(error));
    const struct found found = translate(space, virt);
    ck_assert_msg(found.mapped && found.phys == space->base + phys,
                  "page_map(0x%x, 0x%x, 0x1), %s, returns 0, and the page is not there: %s", virt,
                  phys, what, found.entries);
}

/* page_map must refuse this and change nothing. */
static void check_refusal(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags,
                          int expected, const char *why)
{
    const uint32_t next_table = space->next_table;
    char what[160];

    snprintf(what, sizeof what, "page_map(0x%x, 0x%x, 0x%x): %s%s", virt, phys, flags, why,
             flags == 0 ? ", and flags 0 do not change that" : "");
    memcpy(before, space->memory, sizeof before);
    const int error = page_map(space, virt, phys, flags);
    ck_assert_msg(error == expected, "%s: page_map returns %s instead of %s", what,
                  error_name(error), expected == EINVAL ? "EINVAL" : "ENOMEM");
    check_kept(space, 0, sizeof before, what);
    ck_assert_msg(space->next_table == next_table,
                  "%s: page_map refuses it, and has changed next_table from 0x%x to 0x%x all the "
                  "same",
                  what, next_table, space->next_table);
}

START_TEST(refused)
{
    /* Of these 4 MB nothing is mapped; there is a table; a 4 MB page maps them. */
    const uint32_t regions[] = {0x40000000, 0x50000000, HIGHER_HALF};
    enum { BITS = 12, KINDS = 2 * BITS + 3 }; /* virt or phys with a low bit; phys outside */
    struct address_space space = space_at(BASE, SPACE_BYTES);
    int order[2 * KINDS];

    directory_build(&space);
    check_accepted(&space, regions[1] + random_page(LARGE_PAGE_BYTES), random_page(SPACE_BYTES),
                   "a page that it must not refuse");
    shuffle(order, 2 * KINDS);
    for (int i = 0; i < 2 * KINDS; i++) {
        const int kind = order[i] % KINDS;
        const uint32_t flags = order[i] < KINDS ? 0 : PAGE_PRESENT | (unit_random() & RIGHTS);
        const uint32_t next_table = space.next_table;
        uint32_t virt = regions[unit_random() % 3] + random_page(LARGE_PAGE_BYTES);
        uint32_t phys = random_page(SPACE_BYTES);
        const char *why = "phys is outside of the guest's memory";
        if (kind < BITS) {
            virt |= 1u << kind;
            why = "virt is not a multiple of 4096";
        } else if (kind < 2 * BITS) {
            phys |= 1u << (kind - BITS);
            why = "phys is not a multiple of 4096";
        } else if (kind == 2 * BITS) {
            phys = SPACE_BYTES;
            why = "phys is the first page past the guest's memory";
        } else {
            phys = kind == 2 * BITS + 1 ? 0u - PAGE_BYTES
                                        : SPACE_BYTES + random_page(0u - SPACE_BYTES);
        }
        if (unit_random() % 2)
            space.next_table = TABLES_END; /* no table is left either */
        check_refusal(&space, virt, phys, flags, EINVAL, why);
        space.next_table = next_table;
        for (unsigned right = unit_random() % 3; right > 0; right--)
            check_accepted(&space, regions[1] + random_page(LARGE_PAGE_BYTES),
                           random_page(SPACE_BYTES), "a page that it must not refuse");
    }
    check_accepted(&space, regions[0] + random_page(LARGE_PAGE_BYTES), SPACE_BYTES - PAGE_BYTES,
                   "the last page of the guest's memory");

    space = space_at(0, MEMORY_MAX);
    directory_build(&space);
    check_accepted(&space, 0x40000000, MEMORY_MAX - PAGE_BYTES,
                   "the last page of 2 GB of memory (--mem=2G: sizes of 2 GB and more are "
                   "unsigned)");
    int error = page_map(&space, 0x40001000, MEMORY_MAX, PAGE_PRESENT);
    ck_assert_msg(error == EINVAL,
                  "the guest has 2 GB of memory, and the first page past it is not refused (%d)",
                  error);
}
END_TEST

START_TEST(exhausted)
{
    struct address_space space = space_at(BASE, SPACE_BYTES);
    const uint32_t tables = (TABLES_END - TABLES_OFFSET) / PAGE_BYTES, first = 0x40000000;
    uint32_t count = 0;
    int error = 0;

    directory_build(&space);
    while (count <= tables && (error = page_map(&space, first + count * LARGE_PAGE_BYTES, 0x200000,
                                                PAGE_PRESENT)) == 0)
        count++;
    ck_assert_msg(
        error == ENOMEM,
        "%u pages, each of which needs a page table of its own, were mapped, and the area "
        "up to TABLES_END has room for %u tables; then page_map must return ENOMEM",
        count, tables);
    ck_assert_msg(count >= tables - 8, "only %u of %u page tables could be used", count, tables);
    check_kept(&space, TABLES_END, sizeof before, "memory past TABLES_END is not for page tables");
    for (uint32_t i = 0; i < count; i++)
        check_page(&space, first + i * LARGE_PAGE_BYTES, 0x200000, PAGE_PRESENT,
                   "after the tables ran out");
    check_page(&space, first + count * LARGE_PAGE_BYTES, 0, 0, "the page that was refused");
    for (int i = 0; i < 10; i++) {
        const uint32_t there = unit_random() % count * LARGE_PAGE_BYTES;
        check_refusal(&space, first + count * LARGE_PAGE_BYTES + random_page(0x10000000),
                      random_page(SPACE_BYTES), PAGE_PRESENT | (unit_random() & RIGHTS), ENOMEM,
                      "no table is left");
        map_one(&space, first + there + random_page(LARGE_PAGE_BYTES), random_page(SPACE_BYTES),
                PAGE_PRESENT, "with no table left, a page in a table that is there");
    }

    space = space_at(BASE, SPACE_BYTES); /* another guest's */
    directory_build(&space);
    space.next_table = TABLES_END - PAGE_BYTES;
    map_one(&space, first + random_page(LARGE_PAGE_BYTES), random_page(SPACE_BYTES), PAGE_PRESENT,
            "space->next_table is the last table below TABLES_END, and is not used yet");
    check_refusal(&space, first + LARGE_PAGE_BYTES, 0x200000, PAGE_PRESENT, ENOMEM,
                  "space->next_table was the last table below TABLES_END, and is used now");
    if (!(entry_at(&space, space.base + DIRECTORY_OFFSET + HIGHER_HALF / LARGE_PAGE_BYTES * 4) &
          PAGE_LARGE))
        return; /* nothing is left to split */
    for (uint32_t flags = 0; flags <= PAGE_PRESENT; flags += PAGE_PRESENT)
        check_refusal(&space, HIGHER_HALF + random_page(LARGE_PAGE_BYTES), 0x200000, flags, ENOMEM,
                      "no table is left, so a 4 MB page can't be split");
}
END_TEST

/* ------------------------------------------------------------------ 5.4 the jump */

static struct kvm_sregs sregs;
static struct kvm_regs regs;
static PRIVATE uint32_t entry, stack;

static PRIVATE struct kvm_sregs came_in; /* `sregs` as paging_state got it */

/* A vCPU as after reset, or one with random numbers. */
static struct kvm_sregs sregs_make(bool after_reset)
{
    struct kvm_sregs made = entry_reset_state();

    if (!after_reset) {
        random_fill(&made, sizeof made);
        made.cr0 = unit_random() | CR0_ET;
        made.cr2 = unit_random() | 1;
        made.cr8 = 1 + unit_random() % 15;
        made.interrupt_bitmap[unit_random() % 4] |= 1ull << unit_random() % 64;
    }
    made.apic_base = (unit_random() & 0xfffff000) | 0x900;
    return made;
}

static void start_paging(struct address_space *space, bool after_reset)
{
    entry = unit_random();
    stack = unit_random();
    *space = space_at(BASE, SPACE_BYTES);
    gdt_build(space);
    directory_build(space);
    random_fill(&regs, sizeof regs);
    sregs = came_in = sregs_make(after_reset);
    paging_state(space, entry, stack, &sregs, &regs);
}

/* The system registers that the handout's table names, and those that it does not. */
static void check_system_registers(const struct address_space *space)
{
    ck_assert_msg(sregs.cr0 & 1, "CR0.PE (bit 0) is 0: still real mode");
    ck_assert_msg(sregs.cr0 & 0x80000000, "CR0.PG (bit 31) is 0: no paging");
    ck_assert_msg(sregs.cr0 & 0x10000,
                  "CR0.WP (bit 16) is 0: the kernel could write to read-only pages");
    ck_assert_msg(!(sregs.cr0 & 0x60000000), "CR0.CD or NW is still 1, as after reset: no caches");
    ck_assert_msg(
        sregs.cr4 & CR4_PSE,
        "CR4.PSE (bit 4) is 0: without it the processor takes a directory entry of a 4 MB "
        "page for one that leads to a page table");
    ck_assert_msg(!(sregs.cr4 & 0x20), "CR4.PAE is 1: these tables are not of that format");
    ck_assert_msg(sregs.cr3 == space->base + DIRECTORY_OFFSET,
                  "CR3 is 0x%llx instead of 0x%x: guest-physical, so with the base of this guest's "
                  "memory",
                  sregs.cr3, space->base + DIRECTORY_OFFSET);
    ck_assert_msg(
        sregs.idt.limit == 0,
        "IDTR's limit is 0x%x, and came in as 0x%x, instead of 0: there is no IDT yet, and the "
        "bytes at its base are not a gate",
        sregs.idt.limit, came_in.idt.limit);
    ck_assert_msg(sregs.idt.base == 0, "IDTR's base is 0x%llx, and came in as 0x%llx, instead of 0",
                  sregs.idt.base, came_in.idt.base);
    ck_assert_msg(sregs.cr0 == 0x80010031,
                  "CR0 is 0x%llx, and came in as 0x%llx, instead of 0x80010031: PE, ET, NE, WP, "
                  "PG, and no other bit",
                  sregs.cr0, came_in.cr0);
    ck_assert_msg(sregs.cr4 == CR4_PSE,
                  "CR4 is 0x%llx, and came in as 0x%llx, instead of 0x10: PSE, and no other bit",
                  sregs.cr4, came_in.cr4);
    ck_assert_msg(sregs.efer == 0,
                  "EFER is 0x%llx, and came in as 0x%llx, instead of 0: no long mode", sregs.efer,
                  came_in.efer);
    ck_assert_msg(
        sregs.apic_base == came_in.apic_base,
        "the APIC base is 0x%llx and came in as 0x%llx: paging_state changes what KVM gave, "
        "and leaves the fields alone that it does not know",
        sregs.apic_base, came_in.apic_base);
    static const char others[] =
        "paging_state leaves the fields alone that the handout's table does not name";
    ck_assert_msg(sregs.cr2 == came_in.cr2, "CR2 is 0x%llx and came in as 0x%llx: %s", sregs.cr2,
                  came_in.cr2, others);
    ck_assert_msg(sregs.cr8 == came_in.cr8, "CR8 is %llu and came in as %llu: %s", sregs.cr8,
                  came_in.cr8, others);
    for (int i = 0; i < 4; i++)
        ck_assert_msg(sregs.interrupt_bitmap[i] == came_in.interrupt_bitmap[i],
                      "interrupt_bitmap[%d] is 0x%llx and came in as 0x%llx: %s", i,
                      sregs.interrupt_bitmap[i], came_in.interrupt_bitmap[i], others);
}

START_TEST(state)
{
    struct address_space space;

    for (int round = 0; round < 6; round++) {
        start_paging(&space, round == 0);
        check_system_registers(&space);
        ck_assert_msg(regs.rip == entry, "RIP is 0x%llx instead of 0x%x", regs.rip, entry);
        ck_assert_msg(regs.rsp == stack, "RSP is 0x%llx instead of 0x%x", regs.rsp, stack);
        ck_assert_msg(!(regs.rflags & 0x200), "RFLAGS.IF is 1: the guest has no handlers yet");
        ck_assert_msg(regs.rflags == FLAGS_ALWAYS_ONE, "RFLAGS is 0x%llx instead of 0x2",
                      regs.rflags);
        ck_assert_msg((regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rsi | regs.rdi | regs.rbp |
                       regs.r8 | regs.r9 | regs.r10 | regs.r11 | regs.r12 | regs.r13 | regs.r14 |
                       regs.r15) == 0,
                      "the other general registers, with R8 to R15, must be 0");
    }
}
END_TEST

/* `loaded` must have the segment registers that the processor loads from this GDT. */
static void check_segments(const struct kvm_sregs *loaded, const uint64_t *table, const char *how)
{
    const struct {
        const char *name;
        const struct kvm_segment *segment;
        uint16_t selector;
    } segments[] = {
        {"CS", &loaded->cs, SELECTOR_KERNEL_CODE}, {"SS", &loaded->ss, SELECTOR_KERNEL_DATA},
        {"DS", &loaded->ds, SELECTOR_KERNEL_DATA}, {"ES", &loaded->es, SELECTOR_KERNEL_DATA},
        {"FS", &loaded->fs, SELECTOR_KERNEL_DATA}, {"GS", &loaded->gs, SELECTOR_KERNEL_DATA},
        {"TR", &loaded->tr, SELECTOR_TSS},
    };
    char name[160];

    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++) {
        snprintf(name, sizeof name, "%s%s, loaded from the GDT in memory", how, segments[i].name);
        check_segment(name, segments[i].segment, segments[i].selector,
                      table[segments[i].selector >> 3]);
    }
}

/* Another GDT than gdt_build's: what paging_state loads, it has to read there. */
static void gdt_random(const struct address_space *space, uint64_t table[6])
{
    table[0] = 0;
    for (int i = 1; i < 6; i++)
        table[i] = raw_random() & ~(3ull << 52); /* AVL and L are 5.1-load's */
    memcpy(space->memory + GDT_OFFSET, table, 6 * sizeof *table);
}

/* The other vCPU's thread. */
BOTH static void other_computes(void)
{
    struct kvm_sregs other_sregs = {0};
    struct kvm_regs other_regs;

    paging_state(&other_space, HIGHER_HALF, HIGHER_HALF, &other_sregs, &other_regs);
}

START_TEST(descriptors_loaded)
{
    struct address_space space;
    uint64_t table[6], other_table[6];

    start_paging(&space, false);
    gdt_random(&space, table);
    sregs = sregs_make(false);
    paging_state(&space, entry, stack, &sregs, &regs);
    check_segments(&sregs, table, "");
    struct found gdt_found = translate(&space, (uint32_t)sregs.gdt.base);
    ck_assert_msg(gdt_found.mapped && gdt_found.phys == space.base + GDT_OFFSET,
                  "GDTR's base 0x%llx is a linear address, and the GDT is not there",
                  sregs.gdt.base);
    ck_assert_msg(
        sregs.gdt.base == HIGHER_HALF + GDT_OFFSET,
        "GDTR's base is 0x%llx instead of 0x%x: the GDT is also there, but not in the half "
        "that a guest keeps",
        sregs.gdt.base, HIGHER_HALF + GDT_OFFSET);
    ck_assert_msg(sregs.gdt.limit == 6 * 8 - 1,
                  "GDTR's limit is 0x%x instead of 0x2f: the last valid byte", sregs.gdt.limit);

    struct kvm_sregs *const in_page = memory_for_both(PAGE_BYTES);
    other_space = (struct address_space){.memory = ram, .bytes = BASE};
    gdt_random(&other_space, other_table);
    *in_page = sregs_make(false);
    page_hold((uint8_t *)in_page, other_computes);
    paging_state(&space, entry, stack, in_page, &regs);
    page_release("paging_state", "`sregs`");
    check_segments(in_page, table,
                   "while paging_state was at work, another vCPU's thread called it: ");
}
END_TEST

/* This must be a state of protected mode with paging: until then nothing else about it counts. */
static void check_paging(const struct address_space *space, const char *when)
{
    ck_assert_msg((sregs.cr0 & CR0_PE) && (sregs.cr0 & CR0_PG),
                  "%sCR0 is 0x%llx: PE (bit 0) and PG (bit 31) are not both 1, so the vCPU is not "
                  "in protected mode with paging",
                  when, sregs.cr0);
    ck_assert_msg(sregs.cr3 == space->base + DIRECTORY_OFFSET,
                  "%sCR3 is 0x%llx instead of 0x%x, the directory of this guest", when, sregs.cr3,
                  space->base + DIRECTORY_OFFSET);
}

START_TEST(entry_checks)
{
    struct address_space space;
    uint64_t table[6];

    start_paging(&space, true);
    const char *fault = entry_state_fault(&sregs, &regs);
    ck_assert_msg(
        !fault, "AMD's processors forgive it, Intel's refuse the entry with this state: %s", fault);
    /* The rules are also kept by states of other modes. */
    check_paging(&space, "");
    memcpy(table, space.memory + GDT_OFFSET, sizeof table);
    check_segments(&sregs, table, "");
    ck_assert_msg(sregs.ldt.unusable,
                  "LDTR is still usable, as after reset, and there is no LDT: mark it `unusable`");
    ck_assert_msg(sregs.ldt.type == TYPE_LDT, "LDTR's type is %u instead of TYPE_LDT (2)",
                  sregs.ldt.type);
}
END_TEST

/* A vCPU of the real KVM, and a space that is all of its RAM. */
static struct address_space start_space(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    return (struct address_space){
        .memory = vm->ram, .bytes = (uint32_t)vm->ram_bytes, .next_table = TABLES_OFFSET};
}

static struct vm other_vm;
static struct vcpu other_vcpu;

/* The other vCPU's thread. */
BOTH static void other_enters(void)
{
    paging_enter(&other_vcpu, &other_space, HIGHER_HALF + PAGE_BYTES, HIGHER_HALF, 0);
}

/* Two vCPUs of one VM, of which the first alone starts the machine: their APIC bases differ. */
START_TEST(ebx)
{
    static const unsigned long moments[] = {AFTER(KVM_GET_SREGS), KVM_SET_SREGS, KVM_SET_REGS};
    enum { ALONE = 10, MOMENTS = sizeof moments / sizeof moments[0] };
    struct vm vm;
    struct vcpu vcpus[2];
    struct address_space space = start_space(&vm, &vcpus[0]);
    struct kvm_sregs created[2];

    vcpu_init(&vcpus[1], 1, 1, &vm, &guest);
    vcpus[1].fd = (int)kernel(vm.fd, KVM_CREATE_VCPU, (void *)1ul);
    for (int i = 0; i < 2; i++)
        ck_assert(kernel(vcpus[i].fd, KVM_GET_SREGS, &created[i]) == 0);
    for (int i = 0; i < ALONE + 2 * MOMENTS; i++) {
        const unsigned which = i < 2 ? (unsigned)i : unit_random() % 2;
        struct vcpu *vcpu = &vcpus[which];
        const uint32_t given = unit_random();
        const char *when = "";

        if (i >= ALONE) {
            when = "while paging_enter was at work, another vCPU's thread called it, and ";
            other_vm = vm;
            other_vcpu = vcpus[1 - which];
            other_vcpu.vm = &other_vm;
            other_space = space;
            meanwhile = other_enters;
            meanwhile_at = moments[i % MOMENTS];
        }
        ck_assert(kernel(vcpu->fd, KVM_SET_SREGS, &created[which]) == 0); /* in real mode again */
        int status = paging_enter(vcpu, &space, HIGHER_HALF, HIGHER_HALF, given);
        ck_assert_msg(status == 0, "paging_enter returns %d instead of 0", status);
        ck_assert(kernel(vcpu->fd, KVM_GET_REGS, &regs) == 0 &&
                  kernel(vcpu->fd, KVM_GET_SREGS, &sregs) == 0);
        check_paging(&space, "after paging_enter, which sets the state with KVM_SET_SREGS, ");
        ck_assert_msg(sregs.cs.selector == SELECTOR_KERNEL_CODE,
                      "after paging_enter the vCPU's CS is 0x%x instead of SELECTOR_KERNEL_CODE, "
                      "0x%x",
                      sregs.cs.selector, SELECTOR_KERNEL_CODE);
        ck_assert_msg(regs.rbx == given,
                      "%sthe vCPU's RBX is 0x%llx instead of 0x%x, which paging_enter has as "
                      "`ebx`: an ELF guest finds its boot information by it",
                      when, regs.rbx, given);
        ck_assert_msg(sregs.apic_base == created[which].apic_base,
                      "%svCPU %td of two had APIC base 0x%llx, and has 0x%llx after paging_enter: "
                      "it keeps what KVM_GET_SREGS has just returned for this vCPU",
                      when, vcpu - vcpus, created[which].apic_base, sregs.apic_base);
    }
}
END_TEST

/* Only the call before has failed: what it has left in `sregs` is not refused by the next one. */
BOTH static void sregs_accepted(void)
{
    falsified = (struct falsified){.request = KVM_SET_SREGS, .answered = true};
}

/* paging_enter, of whose calls this one fails. */
static void check_enter_fails(struct vcpu *vcpu, struct address_space *space, unsigned long request,
                              int error, const char *name)
{
    falsified = (struct falsified){.request = request, .error = error};
    meanwhile = request == KVM_GET_SREGS ? sregs_accepted : NULL;
    meanwhile_at = AFTER(KVM_GET_SREGS);
    listen_start();
    const int status = paging_enter(vcpu, space, HIGHER_HALF, HIGHER_HALF, 0);
    listen_end();
    check_met("paging_enter", name);
    falsified = (struct falsified){0};
    ck_assert_msg(status == STATUS_NO_KVM,
                  "%s failed, and paging_enter returns %d instead of STATUS_NO_KVM", name, status);
    ck_assert_msg(said[0] != '\0', "%s failed, and paging_enter said nothing: fail() says it",
                  name);
    check_call_named(name, request);
}

START_TEST(enter_failure)
{
    struct vm vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&vm, &vcpu);
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {{KVM_GET_SREGS, "KVM_GET_SREGS"},
                  {KVM_SET_SREGS, "KVM_SET_SREGS"},
                  {KVM_SET_REGS, "KVM_SET_REGS"}};
    enum { IOCTLS = sizeof ioctls / sizeof ioctls[0] };
    int order[IOCTLS * UNIT_ERRORS];

    check_works("paging_enter", paging_enter(&vcpu, &space, HIGHER_HALF, HIGHER_HALF, 0));
    vmm.options.mapping_count = 1;
    vmm.options.mappings[0] = (struct page_mapping){0x40000000, space.bytes, PAGE_PRESENT};
    vmm.guest_count = VCPUS_MAX;
    for (int guest_index = 0; guest_index < VCPUS_MAX; guest_index++) {
        vcpu.id = vcpu.index = guest_index;
        listen_start();
        const int status = paging_enter(&vcpu, &space, HIGHER_HALF, HIGHER_HALF, 0);
        listen_end();
        ck_assert_msg(status == STATUS_USAGE,
                      "--map names a page outside the guest's memory, map_options returns "
                      "STATUS_USAGE, and paging_enter returns %d for guest %d of %d: the pages of "
                      "--map are every guest's",
                      status, guest_index, VCPUS_MAX);
    }
    vcpu.id = vcpu.index = 0;
    vmm.guest_count = 1;
    vmm.options.mapping_count = 0;
    shuffle(order, IOCTLS * UNIT_ERRORS);
    for (int i = 0; i < IOCTLS * UNIT_ERRORS; i++) {
        const int which = order[i] % IOCTLS;
        check_enter_fails(&vcpu, &space, ioctls[which].request, unit_errors[order[i] / IOCTLS],
                          ioctls[which].name);
        if (unit_random() % 4 == 0)
            check_works("paging_enter", paging_enter(&vcpu, &space, HIGHER_HALF, HIGHER_HALF, 0));
    }
    check_works("paging_enter", paging_enter(&vcpu, &space, HIGHER_HALF, HIGHER_HALF, 0));
}
END_TEST

/* ------------------------------------------------------------------ 5.5 the walk */

#define WALK_RAM        0x40000u
#define IGNORED         0xf78u /* bits that a walk ignores: G, D, A, PCD, PWT and 9 to 11 ... */
#define IGNORED_OF_PAGE 0xff8u /* ... and, in a table's entry, PAT */
#define CR4_IGNORED     0xfcfu /* all of bits 0 to 11 but PSE and PAE */

/*
 * Where a walk's directory and its table are: different pages. CR3 and CR4 also have other bits;
 * what lies around the entries is random.
 */
static PRIVATE uint32_t walk_directory, walk_table, walk_cr3_bits, walk_cr4_bits;

static void walk_places(void)
{
    walk_directory = random_page(WALK_RAM);
    do
        walk_table = random_page(WALK_RAM);
    while (walk_table == walk_directory);
    walk_cr3_bits = unit_random() & 0xfff;
    walk_cr4_bits = unit_random() & CR4_IGNORED;
}

/* Where a walk ended, in words. */
static const char *walk_words(const struct page_walk *found)
{
    static char text[RESULT_BYTES];

    if (found->mapped)
        snprintf(text, sizeof text, "0x%llx", (unsigned long long)found->phys);
    else
        snprintf(text, sizeof text, "no page (its reason: %.200s)",
                 found->reason ? found->reason : "none");
    return text;
}

static struct page_walk walk_from(uint32_t start, uint32_t cr4, uint32_t virt)
{
    const uint32_t cr3 = start | walk_cr3_bits;
    char reason[RESULT_BYTES] = "";
    struct page_walk found = page_walk(ram, WALK_RAM, cr3, cr4 | walk_cr4_bits, virt);

    if (found.mapped || !found.reason)
        return found;
    snprintf(reason, sizeof reason, "%s", found.reason);
    found = page_walk(ram, WALK_RAM, cr3, cr4 | walk_cr4_bits, virt);
    ck_assert_msg(!found.mapped && found.reason && strcmp(found.reason, reason) == 0,
                  "page_walk's reason for the same walk is \"%s\", and then \"%s\": it says what "
                  "was found, which is the same",
                  reason, walk_words(&found));
    return found;
}

/* page_walk of `virt`, whose directory entry and table entry are these. */
static struct page_walk walk(uint32_t directory_entry, uint32_t table_entry, uint32_t cr4,
                             uint32_t virt)
{
    memset(ram, (int)(unit_random() | 1), WALK_RAM);
    poke(walk_directory + (virt >> 22) * 4, directory_entry);
    poke(walk_table + (virt >> 12 & 1023) * 4, table_entry);
    return walk_from(walk_directory, cr4, virt);
}

#define OTHER_RAM 0x10000u /* of the other vCPU's VM */

static uint8_t other_ram[OTHER_RAM];
static uint32_t other_virt;

/* The other vCPU's thread. */
BOTH static void other_walks(void)
{
    page_walk(other_ram, OTHER_RAM, 0, CR4_PSE, other_virt);
}

/* A walk during which another vCPU's thread makes its own, before an access to this page. */
static void walk_with_other(uint32_t held_page)
{
    const uint32_t virt = unit_random(), page = unit_random() | PAGE_PRESENT;
    const uint32_t table = walk_table | (unit_random() & IGNORED) | PAGE_PRESENT | PAGE_WRITABLE;

    random_fill(other_ram, sizeof other_ram);
    other_virt = unit_random();
    memset(ram, (int)(unit_random() | 1), WALK_RAM);
    poke(walk_directory + (virt >> 22) * 4, table);
    poke(walk_table + (virt >> 12 & 1023) * 4, page);
    page_hold(ram + held_page, other_walks);
    const struct page_walk found = walk_from(walk_directory, CR4_PSE, virt);
    page_release("page_walk", held_page == walk_table ? "the page table" : "the page directory");
    ck_assert_msg(found.mapped && found.phys == ((page & 0xfffff000) | virt % PAGE_BYTES) &&
                      found.directory_entry == table && found.table_entry == page &&
                      found.writable == !!(page & PAGE_WRITABLE) && !found.user,
                  "while page_walk was at work, another vCPU's thread called it: page_walk of 0x%x "
                  "returns the entries 0x%x and 0x%x instead of 0x%x and 0x%x, or not their page "
                  "and rights. No static variable may have a part of the result",
                  virt, found.directory_entry, found.table_entry, table, page);
}

START_TEST(walks)
{
    uint32_t virt = 0;

    for (int i = 0; i < 100; i++) {
        const uint32_t frame = unit_random() & 0xfffff000;
        const uint32_t upper = unit_random() & 6, lower = unit_random() & 6;
        const uint32_t granted = upper & lower;
        if (i % 2 == 0) { /* the next walk is the same one, but for what is in memory */
            virt = unit_random();
            walk_places();
        }
        const uint32_t table = walk_table | upper | PAGE_PRESENT | (unit_random() & IGNORED);
        const uint32_t page = frame | lower | PAGE_PRESENT | (unit_random() & IGNORED_OF_PAGE);
        struct page_walk found = walk(table, page, CR4_PSE, virt);
        ck_assert_msg(
            found.mapped && found.phys == (frame | virt % PAGE_BYTES),
            "page_walk of 0x%x finds %s instead of 0x%x: the directory entry is 0x%x; the "
            "frame is bits 12 to 31 of the table entry 0x%x, the offset bits 0 to 11 of "
            "the address; CR3 is 0x%x",
            virt, walk_words(&found), frame | virt % PAGE_BYTES, table, page,
            walk_directory | walk_cr3_bits);
        ck_assert_msg(found.writable == !!(granted & PAGE_WRITABLE) &&
                          found.user == !!(granted & PAGE_USER),
                      "directory entry %s %s, table entry %s %s: page_walk finds %s, %s. A right "
                      "needs both levels",
                      upper & 2 ? "writable" : "read-only", upper & 4 ? "user" : "kernel",
                      lower & 2 ? "writable" : "read-only", lower & 4 ? "user" : "kernel",
                      found.writable ? "writable" : "read-only", found.user ? "user" : "kernel");
        ck_assert_msg(found.directory_entry == table && found.table_entry == page,
                      "page_walk returns the entries 0x%x and 0x%x instead of 0x%x and 0x%x",
                      found.directory_entry, found.table_entry, table, page);
    }
    for (int i = 0; i < 10; i++) {
        walk_places();
        walk_with_other(i % 2 ? walk_table : walk_directory);
    }
}
END_TEST

START_TEST(walks_large)
{
    for (int i = 0; i < 50; i++) {
        /* Each second one would also do for the entry of a table. */
        uint32_t virt = unit_random(), frame = i % 2 ? unit_random() & 0xffc00000 : 0;
        walk_places();
        uint32_t low = i % 2 ? unit_random() & 0x3fffff : walk_table | (unit_random() & 0xfff);
        uint32_t large = frame | low | PAGE_LARGE | PAGE_PRESENT;
        struct page_walk found = walk(large, unit_random(), CR4_PSE, virt);
        ck_assert_msg(found.mapped && found.phys == (frame | virt % LARGE_PAGE_BYTES),
                      "0x%x is in a 4 MB page, its directory entry is 0x%x: page_walk finds %s "
                      "instead of 0x%x; the frame is bits 22 to 31 of the entry alone, the offset "
                      "bits 0 to 21 of the address. CR4 has other bits beside CR4.PSE",
                      virt, large, walk_words(&found), frame | virt % LARGE_PAGE_BYTES);
        ck_assert_msg(found.writable == !!(large & PAGE_WRITABLE) &&
                          found.user == !!(large & PAGE_USER),
                      "a 4 MB page has its rights in the directory entry");
        ck_assert_msg(found.directory_entry == large && found.table_entry == 0,
                      "page_walk returns the entries 0x%x and 0x%x instead of 0x%x and 0: a 4 MB "
                      "page has no table entry",
                      found.directory_entry, found.table_entry, large);
        large = walk_table | (unit_random() & 0xfff) | PAGE_LARGE | PAGE_PRESENT;
        const uint32_t page = unit_random() | PAGE_PRESENT;
        found = walk(large, page, 0, virt);
        const uint32_t phys = (page & 0xfffff000) | virt % PAGE_BYTES;
        ck_assert_msg(
            found.directory_entry == large && found.table_entry == page,
            "CR4.PSE is 0: then the processor ignores PAGE_LARGE, and the directory entry "
            "0x%x of 0x%x points to a page table; page_walk returns the entries 0x%x and "
            "0x%x instead of 0x%x and 0x%x",
            large, virt, found.directory_entry, found.table_entry, large, page);
        ck_assert_msg(found.mapped && found.phys == phys,
                      "CR4.PSE is 0, and page_walk of 0x%x has read the right entries, 0x%x and "
                      "0x%x, but finds %s instead of 0x%x: the frame is bits 12 to 31 of the table "
                      "entry, whose bit 7 is not PAGE_LARGE",
                      virt, large, page, walk_words(&found), phys);
    }
}
END_TEST

/* A page or page table that is not in RAM. */
static uint32_t page_outside(void)
{
    return WALK_RAM + unit_random() % ((UINT32_MAX - WALK_RAM) / PAGE_BYTES) * PAGE_BYTES;
}

/* Of a table that maps nothing: all bits but PAGE_PRESENT may be set. */
static uint32_t entry_not_present(void)
{
    return (unit_random() | PAGE_BYTES) & ~(uint32_t)PAGE_PRESENT;
}

static uint32_t entry_of_table(uint32_t table)
{
    return table | (unit_random() & (PAGE_WRITABLE | PAGE_USER)) | PAGE_PRESENT;
}

static uint32_t entry_of_page(void)
{
    return unit_random() | PAGE_PRESENT;
}

/* How walks end; the first has a page. */
enum { MAPPED, NO_DIRECTORY_ENTRY, NO_TABLE_ENTRY, TABLE_OUTSIDE, DIRECTORY_OUTSIDE, WALKS };

static const char *const walk_ends[WALKS] = {
    "both entries are present", "the directory entry is not present",
    "the page table entry is not present", "the page table is outside of RAM",
    "the page directory is outside of RAM"};

/* Has page_walk find `virt` in tables of this kind. A copy of its reason goes to `reason`. */
static void walk_check(int kind, uint32_t virt, char *reason)
{
    uint32_t directory_entry = 0, table_entry = 0;
    struct page_walk found;

    if (kind == DIRECTORY_OUTSIDE) {
        found = walk_from(page_outside(), CR4_PSE, virt);
    } else {
        directory_entry = entry_of_table(kind == TABLE_OUTSIDE ? page_outside() : walk_table);
        if (kind == NO_DIRECTORY_ENTRY)
            directory_entry =
                unit_random() % 2 ? entry_not_present() : directory_entry ^ PAGE_PRESENT;
        table_entry = kind == NO_TABLE_ENTRY ? entry_not_present() : entry_of_page();
        found = walk(directory_entry, table_entry, CR4_PSE, virt);
    }
    if (kind != MAPPED && kind != NO_TABLE_ENTRY)
        table_entry = 0; /* not read */

    const char *what = walk_ends[kind];
    ck_assert_msg(found.directory_entry == directory_entry && found.table_entry == table_entry,
                  "%s: page_walk read the entries 0x%x and 0x%x and returned 0x%x and 0x%x; the "
                  "post-mortem needs them most when there is no page",
                  what, directory_entry, table_entry, found.directory_entry, found.table_entry);
    if (kind == MAPPED) {
        uint64_t phys = (table_entry & 0xfffff000) | virt % PAGE_BYTES;
        ck_assert_msg(found.mapped && found.phys == phys,
                      "page_walk of 0x%x finds %s instead of 0x%llx: CR3 is 0x%x, the directory "
                      "entry 0x%x and the table entry 0x%x",
                      virt, walk_words(&found), (unsigned long long)phys,
                      walk_directory | walk_cr3_bits, directory_entry, table_entry);
        return;
    }
    ck_assert_msg(!found.mapped, "%s, and page_walk finds a page", what);
    ck_assert_msg(found.reason && found.reason[0], "%s, and page_walk gives no reason", what);
    snprintf(reason, RESULT_BYTES, "%s", found.reason);
}

START_TEST(walks_nowhere)
{
    char reasons[WALKS][RESULT_BYTES];
    int order[WALKS];

    for (int round = 0; round < 10; round++) {
        const uint32_t virt = unit_random(); /* a reason may name it */
        walk_places();
        shuffle(order, WALKS);
        for (int i = 0; i < WALKS; i++)
            walk_check(order[i], virt, reasons[order[i]]);
        for (int i = MAPPED + 1; i < WALKS; i++)
            for (int j = MAPPED + 1; j < i; j++)
                ck_assert_msg(strcmp(reasons[i], reasons[j]) != 0,
                              "page_walk's reason is \"%s\" when %s and when %s: say at which "
                              "level it was, and why",
                              reasons[i], walk_ends[j], walk_ends[i]);
    }
}
END_TEST

/* One walk to an edge of RAM or of 4 GB; what lies past the end of RAM is not the guest's. */
static void edge_check(int number)
{
    static const struct {
        bool mapped, directory, at_4gb; /* whose entry it is; of which edge */
        const char *what;
    } edges[] = {
        {false, false, true, "the page table is the last page below 4 GB, outside of RAM"},
        {false, true, true, "the page directory is the last page below 4 GB, outside of RAM"},
        {false, false, false, "the table entry is, in part or whole, past the end of RAM"},
        {false, true, false, "the directory entry is, in part or whole, past the end of RAM"},
        {true, false, false, "the table entry is the last 4 bytes of RAM"},
        {true, true, false, "the directory entry is the last 4 bytes of RAM"},
    };
    const bool mapped = edges[number].mapped, of_directory = edges[number].directory;
    const uint32_t index = edges[number].at_4gb ? 1023 : unit_random() % 1024;
    const uint32_t edge = PAGE_BYTES * (16 + unit_random() % 48), other = random_page(edge);
    const uint32_t page = entry_of_page(), random = unit_random();
    const uint32_t virt =
        of_directory ? index << 22 | random >> 10 : (random & 0xffc00fff) | index << 12;
    uint32_t ram_bytes = edge, start = other, table = other;

    if (of_directory)
        start = edges[number].at_4gb ? 0u - PAGE_BYTES : edge;
    else
        table = edges[number].at_4gb ? 0u - PAGE_BYTES : edge;
    if (!edges[number].at_4gb)
        ram_bytes += index * 4 + (mapped ? 4 : unit_random() % 4);
    memset(ram, 0, edge + PAGE_BYTES);
    if (start <= edge)
        poke(start + (virt >> 22) * 4, entry_of_table(table));
    if (table <= edge)
        poke(table + (virt >> 12 & 1023) * 4, page);
    struct page_walk found = page_walk(ram, ram_bytes, start, CR4_PSE, virt);
    ck_assert_msg(mapped || !found.mapped, "%s, and page_walk finds a page", edges[number].what);
    ck_assert_msg(!mapped || found.mapped, "%s, and page_walk finds no page: %s",
                  edges[number].what, found.reason ? found.reason : "(no reason)");
    uint64_t phys = (page & 0xfffff000) | virt % PAGE_BYTES;
    ck_assert_msg(!mapped || found.phys == phys, "%s, and page_walk finds 0x%llx, not 0x%llx",
                  edges[number].what, (unsigned long long)found.phys, (unsigned long long)phys);
}

START_TEST(walks_edges)
{
    int order[6];

    for (int round = 0; round < 20; round++) {
        shuffle(order, 6);
        for (int i = 0; i < 6; i++)
            edge_check(order[i]);
    }
    walk_places();
    const uint32_t virt = unit_random();
    walk(entry_of_table(walk_table), entry_of_page(), CR4_PSE, virt);
    ck_assert_msg(page_walk(ram, MEMORY_MAX, walk_directory, CR4_PSE, virt).mapped,
                  "with 2 GB of RAM (--mem=2G) page_walk finds no page for 0x%x: sizes of 2 GB "
                  "and more are unsigned",
                  virt);
}
END_TEST

/* ------------------------------------------------------------------ 5.6 isolated guests */

static int open_space(int guests, int vms, int index, size_t bytes, struct address_space *space)
{
    static struct vm vm;
    struct vcpu *vcpu = &vmm.vcpus[0];

    start_empty(&vm, vcpu);
    vmm.guest_count = guests;
    vmm.vm_count = vms;
    vcpu->index = index;
    vm.ram = ram;
    vm.ram_bytes = bytes;
    listen_start();
    int status = space_open(vcpu, space);
    listen_end();
    return status;
}

START_TEST(spaces)
{
    struct address_space space;

    for (int isolated = 0; isolated < 2; isolated++) {
        int guests = isolated ? 3 : 1;
        ck_assert_int_eq(open_space(guests, guests, 0, SPACE_BYTES, &space), 0);
        ck_assert_msg(space.base == 0 && space.bytes == SPACE_BYTES && space.memory == ram,
                      "a guest that is alone in its VM has all of its RAM");
    }
    ck_assert_int_eq(open_space(1, 1, 0, MEMORY_MAX, &space), 0);
    ck_assert_msg(space.base == 0 && space.bytes == MEMORY_MAX,
                  "with --mem=2G a guest that is alone has 0x%x bytes instead of 0x%x", space.bytes,
                  MEMORY_MAX);
    for (int guests = 2; guests <= VCPUS_MAX; guests++)
        for (int i = 0; i < 3 * guests; i++) {
            const int index = i % guests;
            const uint32_t base = (uint32_t)index * SLOT_BYTES, end = base + SLOT_BYTES;
            const uint32_t small[] = {end - PAGE_BYTES, base, random_page(end)};
            const uint32_t bytes = small[i / guests];
            const uint32_t all = (uint32_t)guests * SLOT_BYTES + PAGE_BYTES;
            const uint32_t enough[] = {end, all, all - PAGE_BYTES, end + random_page(all - end)};
            const uint32_t right = enough[unit_random() % 4];
            ck_assert_msg(open_space(guests, 1, index, right, &space) == 0,
                          "the 4 MB of guest %d of %d end at %u MB, and RAM has %u KB: space_open "
                          "does not return 0",
                          index, guests, end >> 20, right >> 10);
            ck_assert_msg(space.base == base && space.bytes == SLOT_BYTES &&
                              space.memory == ram + base,
                          "guest %d of %d has 0x%x bytes from 0x%x on instead of 0x%x from 0x%x on",
                          index, guests, space.bytes, space.base, SLOT_BYTES, base);
            ck_assert_msg(space.next_table == TABLES_OFFSET, "no page table is used yet");
            int status = open_space(guests, 1, index, bytes, &space);
            ck_assert_msg(status == STATUS_USAGE,
                          "the 4 MB of guest %d of %d end at %u MB, and RAM has %u KB: space_open "
                          "returns %d instead of STATUS_USAGE",
                          index, guests, end >> 20, bytes >> 10, status);
            ck_assert_msg(said[0] != '\0', "RAM is too small for all guests, and space_open said "
                                           "nothing: fail() says it");
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("paging");

    unit_add(suite, "encode", encode);
    unit_add(suite, "load", load);
    unit_add(suite, "gdt", gdt);
    unit_add(suite, "directory", directory);
    unit_add(suite, "map", map);
    unit_add(suite, "two_spaces", two_spaces);
    unit_add(suite, "split", split);
    unit_add(suite, "refused", refused);
    unit_add(suite, "exhausted", exhausted);
    unit_add(suite, "state", state);
    unit_add(suite, "descriptors_loaded", descriptors_loaded);
    unit_add(suite, "entry_checks", entry_checks);
    unit_add(suite, "ebx", ebx);
    unit_add(suite, "enter_failure", enter_failure);
    unit_add(suite, "walks", walks);
    unit_add(suite, "walks_large", walks_large);
    unit_add(suite, "walks_nowhere", walks_nowhere);
    unit_add(suite, "walks_edges", walks_edges);
    unit_add(suite, "spaces", spaces);
    return unit_main(suite);
}
