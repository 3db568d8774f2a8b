/*
 * gdb_watch.c - watchpoints, and breakpoints in debug registers.
 *
 * Where the processor's debug registers work for guests (api.rst 4.87 KVM_SET_GUEST_DEBUG; SDM
 * vol. 3, 18.2 "Debug Registers"), they are used; a guest of two instructions shows whether they
 * do. Elsewhere KVM gets the watched page as read-only memory, or not at all if reads are watched
 * as well. It then reports the accesses as KVM_EXIT_MMIO (api.rst 4.35
 * KVM_SET_USER_MEMORY_REGION), and they are carried out here.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "debug/gdb.h"

#define WATCHES_MAX     16
#define PARTS_MAX       2 /* pages that a watch may be on */
#define PAGES_MAX       (WATCHES_MAX * PARTS_MAX)
#define DEBUG_REGISTERS 4
#define PROBE_BYTES     (2 * PAGE_BYTES)

/* SDM vol. 3, figure 18-1 "Debug Registers". */
#define DR7_ENABLE(n)          (2u << 2 * (n))
#define DR7_CONDITION(n, bits) ((bits) << (16 + 4 * (n)))
#define DR7_EXECUTE            0u
#define DR7_WRITE              1u
#define DR7_ACCESS             3u
#define DR6_HITS               0xf

/* In a descriptor's second word: SDM vol. 3, 3.4.5 "Segment Descriptors". */
#define DESCRIPTOR_ACCESSED  0x0100
#define DESCRIPTOR_CODE_DATA 0x1000
#define DESCRIPTOR_PRESENT   0x8000

#define TSS_STACK  4  /* esp0, or in long mode rsp0: 8.2.1, 8.7 */
#define TSS_STACKS 11 /* in long mode: rsp0 to rsp2, a reserved word, IST 1 to 7 */

struct part {
    uint64_t phys, count;
};

static uint32_t dr7_length(int n, uint64_t count)
{
    return (count == 8 ? 2 : (uint32_t)count - 1) << (18 + 4 * n);
}

static struct watch {
    enum watch_kind kind; /* 0: none */
    uint64_t linear, count;
    int debug_register; /* -1: pages are used */
    struct vm *vm;      /* of the pages */
    struct part parts[PARTS_MAX];
} watches[WATCHES_MAX];

/* The pages of a VM that KVM reports accesses to. */
static struct pages {
    struct page {
        uint64_t phys;
        bool hidden; /* from reads as well */
    } pages[PAGES_MAX];
    size_t count;
} applied[VCPUS_MAX];

/* ------------------------------------------------------------------ debug registers */

/* Whether a guest in real mode stops at a debug register: `code` is at 0, and DR0 0x1000 or 0. */
static bool probe_run(int kvm, int vm, const uint8_t *code, size_t count, uint8_t *ram,
                      const struct kvm_guest_debug *debug)
{
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_BYTES,
                                                 .userspace_addr = (uintptr_t)ram};
    struct kvm_regs regs = {.rflags = FLAGS_ALWAYS_ONE};
    struct kvm_sregs sregs;
    bool stopped = false;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul), size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0ul);
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

    memcpy(ram, code, count);
    if (run != MAP_FAILED && ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 &&
        ioctl(vcpu, KVM_GET_SREGS, &sregs) == 0) {
        sregs.cs.base = sregs.cs.selector = 0;
        stopped = ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0 &&
                  ioctl(vcpu, KVM_SET_REGS, &regs) == 0 &&
                  ioctl(vcpu, KVM_SET_GUEST_DEBUG, debug) == 0 && ioctl(vcpu, KVM_RUN, 0ul) == 0 &&
                  run->exit_reason == KVM_EXIT_DEBUG;
    }
    if (run != MAP_FAILED)
        munmap(run, (size_t)size);
    if (vcpu >= 0)
        close(vcpu);
    return stopped;
}

/* Whether debug registers stop a guest where it executes, or writes (`data`). */
static bool debug_registers_work(bool data)
{
    static const uint8_t code[] = {0xc6,      0x06, 0x00, 0x10, 0x01, /* mov byte [0x1000], 1 */
                                   OPCODE_HLT};
    static enum { UNKNOWN, NO, YES } known[2];
    struct kvm_guest_debug debug = {
        .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
        .arch.debugreg = {[0] = data ? PAGE_BYTES : sizeof code - 1,
                          [7] = DR7_ENABLE(0) | DR7_CONDITION(0, data ? DR7_WRITE : DR7_EXECUTE)}};

    if (known[data] != UNKNOWN)
        return known[data] == YES;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0ul);
    uint8_t *ram =
        mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    known[data] =
        ram != MAP_FAILED && probe_run(kvm, vm, code, sizeof code, ram, &debug) ? YES : NO;
    if (ram != MAP_FAILED)
        munmap(ram, PROBE_BYTES);
    if (vm >= 0)
        close(vm);
    if (kvm >= 0)
        close(kvm);
    return known[data] == YES;
}

/* The number of a free debug register, or -1. */
static int debug_register_find(enum watch_kind kind, uint64_t linear, uint64_t count)
{
    unsigned used = 0;

    if ((count != 1 && count != 2 && count != 4 && count != 8) || linear % count != 0 ||
        !debug_registers_work(kind != WATCH_EXECUTE))
        return -1;
    for (size_t i = 0; i < WATCHES_MAX; i++)
        if (watches[i].kind != 0 && watches[i].debug_register >= 0)
            used |= 1u << watches[i].debug_register;
    for (int n = 0; n < DEBUG_REGISTERS; n++)
        if (!(used & 1u << n))
            return n;
    return -1;
}

void watch_registers(struct kvm_guest_debug *debug)
{
    for (size_t i = 0; i < WATCHES_MAX; i++) {
        const struct watch *watch = &watches[i];
        int n = watch->debug_register;
        if (watch->kind == 0 || n < 0)
            continue;
        unsigned condition = watch->kind == WATCH_EXECUTE ? DR7_EXECUTE
                             : watch->kind == WATCH_WRITE ? DR7_WRITE
                                                          : DR7_ACCESS;
        debug->arch.debugreg[n] = watch->linear;
        debug->arch.debugreg[7] |=
            DR7_ENABLE(n) | DR7_CONDITION(n, condition) | dr7_length(n, watch->count);
        debug->control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    }
}

/* ------------------------------------------------------------------ watchpoints */

static bool is_on_page(const struct vcpu *vcpu, uint64_t linear, uint64_t page)
{
    uint64_t phys;

    return linear_translate(vcpu, linear, &phys) && phys / PAGE_BYTES == page;
}

/* Loading a segment register sets the accessed bit of a descriptor, where it is not set yet. */
static bool descriptors_change(const struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    for (uint32_t at = 0; at + 8 <= sregs->gdt.limit + 1u; at += 8) {
        uint32_t high;
        if (linear_read(vcpu, sregs->gdt.base + at + 4, &high, sizeof high) &&
            (high & (DESCRIPTOR_PRESENT | DESCRIPTOR_CODE_DATA | DESCRIPTOR_ACCESSED)) ==
                (DESCRIPTOR_PRESENT | DESCRIPTOR_CODE_DATA))
            return true;
    }
    return false;
}

/*
 * Is `page` the table at `table`, or one below it? It has `level` levels of tables below. `seen`
 * has a bit per level for each page: tables may lead to each other in circles.
 */
static bool is_table_below(const struct vm *vm, uint64_t table, unsigned level,
                           unsigned entry_bytes, uint64_t page, uint8_t *seen)
{
    if (table / PAGE_BYTES == page)
        return true;
    if (level == 0 || table + PAGE_BYTES > vm->ram_bytes || seen[table / PAGE_BYTES] & 1u << level)
        return false;
    seen[table / PAGE_BYTES] |= (uint8_t)(1u << level);
    for (size_t at = 0; at < PAGE_BYTES; at += entry_bytes) {
        uint64_t entry = 0;
        memcpy(&entry, vm->ram + table + at, entry_bytes);
        if ((entry & (PAGE_PRESENT | PAGE_LARGE)) == PAGE_PRESENT &&
            is_table_below(vm, entry & LONG_FRAME, level - 1, entry_bytes, page, seen))
            return true;
    }
    return false;
}

/* Is it one of the tables that CR3 leads to? The processor sets bits there. */
static bool is_page_table(const struct vm *vm, const struct kvm_sregs *sregs, uint64_t page)
{
    bool is_long = cpu_mode(sregs) == MODE_LONG;
    uint8_t *seen;

    if (!(sregs->cr0 & CR0_PG))
        return false;
    seen = calloc(vm->ram_bytes / PAGE_BYTES + 1, sizeof *seen);
    bool found = !seen || is_table_below(vm, sregs->cr3 & LONG_FRAME, is_long ? 3 : 1,
                                         is_long ? 8 : 4, page, seen);
    free(seen);
    return found;
}

/* Is a stack there that the processor uses when it leaves ring 3, or by the IST in long mode? */
static bool has_trap_stack(const struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t page)
{
    uint32_t esp0 = 0;
    uint64_t stacks[TSS_STACKS] = {0};
    bool found = false;

    if (sregs->tr.selector == 0)
        return false;
    if (cpu_mode(sregs) != MODE_LONG)
        return linear_read(vcpu, sregs->tr.base + TSS_STACK, &esp0, sizeof esp0) &&
               is_on_page(vcpu, esp0 - 1u, page);
    linear_read(vcpu, sregs->tr.base + TSS_STACK, stacks, sizeof stacks);
    for (size_t i = 0; i < TSS_STACKS; i++)
        found = found || is_on_page(vcpu, stacks[i] - 1, page);
    return found;
}

/*
 * KVM carries out instructions that access a watched page, but not what the processor does by
 * itself. So the page must have no stack and no table that it writes, and if it is hidden no code
 * and no table at all.
 */
static bool processor_needs(const struct vcpu *vcpu, uint64_t page, bool hidden)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return true;
    const uint64_t below_stack = stack_address(&regs, &sregs) - 1;
    if (is_on_page(vcpu, is_long_code(&sregs) ? below_stack : (uint32_t)below_stack, page) ||
        is_page_table(vcpu->vm, &sregs, page) ||
        (hidden && is_on_page(vcpu, instruction_address(&regs, &sregs), page)))
        return true;
    if (!(sregs.cr0 & CR0_PE))
        return hidden && is_on_page(vcpu, sregs.idt.base, page);
    return has_trap_stack(vcpu, &sregs, page) ||
           (is_on_page(vcpu, sregs.gdt.base, page) &&
            (hidden || descriptors_change(vcpu, &sregs))) ||
           (hidden &&
            (is_on_page(vcpu, sregs.idt.base, page) || is_on_page(vcpu, sregs.tr.base, page)));
}

static bool page_is_free(const struct vm *vm, uint64_t page, bool hidden)
{
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        const struct debugged *self = &world.vcpus[id];
        if (self->vcpu && self->vcpu->vm == vm && !self->ended &&
            processor_needs(self->vcpu, page, hidden))
            return false;
    }
    return true;
}

/* Finds the pages of a watchpoint. */
static bool parts_find(struct watch *watch, const struct vcpu *vcpu)
{
    uint64_t linear = watch->linear, left = watch->count;
    size_t i = 0;

    watch->vm = vcpu->vm;
    for (; left > 0 && i < PARTS_MAX; i++) {
        struct part *part = &watch->parts[i];
        uint64_t room = PAGE_BYTES - linear % PAGE_BYTES;
        if (!linear_translate(vcpu, linear, &part->phys) ||
            !page_is_free(vcpu->vm, part->phys / PAGE_BYTES, watch->kind != WATCH_WRITE))
            return false;
        part->count = left < room ? left : room;
        linear += part->count;
        left -= part->count;
    }
    return i > 0 && left == 0;
}

bool watch_add(enum watch_kind kind, const struct vcpu *vcpu, uint64_t linear, uint64_t count)
{
    struct watch *free = NULL, new = {.kind = kind, .linear = linear, .count = count};

    for (size_t i = 0; i < WATCHES_MAX; i++) {
        if (watches[i].kind == 0)
            free = &watches[i];
        else if (watches[i].kind == kind && watches[i].linear == linear &&
                 watches[i].count == count)
            return true;
    }
    new.debug_register = debug_register_find(kind, linear, count);
    if (!free || (new.debug_register < 0 && (kind == WATCH_EXECUTE || !parts_find(&new, vcpu))))
        return false;
    *free = new;
    return true;
}

void watch_remove(enum watch_kind kind, uint64_t linear, uint64_t count)
{
    for (size_t i = 0; i < WATCHES_MAX; i++)
        if (watches[i].kind == kind && watches[i].linear == linear && watches[i].count == count)
            watches[i].kind = 0;
}

void watches_remove(void)
{
    memset(watches, 0, sizeof watches);
}

/* ------------------------------------------------------------------ watched pages */

static void page_add(struct pages *pages, uint64_t phys, bool hidden)
{
    size_t i = 0, place;

    while (i < pages->count && pages->pages[i].phys < phys)
        i++;
    place = i;
    if (place < pages->count && pages->pages[place].phys == phys) {
        pages->pages[place].hidden |= hidden;
        return;
    }
    memmove(&pages->pages[place + 1], &pages->pages[place],
            (pages->count - place) * sizeof pages->pages[0]);
    pages->pages[place] = (struct page){phys, hidden};
    pages->count++;
}

static void slot_set(const struct vm *vm, uint32_t slot, uint64_t start, uint64_t end,
                     uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = start,
        .memory_size = end - start,
        .userspace_addr = (uintptr_t)vm->ram + start,
    };

    ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Cuts RAM, which lab 1 has made slot 0, into slots around the watched pages. */
static void slots_set(const struct vm *vm, const struct pages *pages)
{
    uint64_t start = 0;
    uint32_t slot = 0;

    for (uint32_t old = 0; old <= 2 * PAGES_MAX; old++)
        slot_set(vm, old, 0, 0, 0);
    for (size_t i = 0; i < pages->count; i++) {
        const struct page *page = &pages->pages[i];
        if (page->phys > start)
            slot_set(vm, slot++, start, page->phys, 0);
        start = page->phys + PAGE_BYTES;
        if (!page->hidden)
            slot_set(vm, slot++, page->phys, start, KVM_MEM_READONLY);
    }
    if (vm->ram_bytes > start)
        slot_set(vm, slot, start, vm->ram_bytes, 0);
}

static bool pages_differ(const struct pages *a, const struct pages *b)
{
    bool differ = a->count != b->count;

    for (size_t i = 0; !differ && i < a->count; i++)
        differ = a->pages[i].phys != b->pages[i].phys || a->pages[i].hidden != b->pages[i].hidden;
    return differ;
}

void watch_pages_apply(void)
{
    for (int i = 0; i < world.vmm->vm_count; i++) {
        const struct vm *vm = &world.vmm->vms[i];
        struct pages pages = {.count = 0};
        for (size_t w = 0; w < WATCHES_MAX; w++)
            for (size_t p = 0; p < PARTS_MAX; p++)
                if (watches[w].kind != 0 && watches[w].debug_register < 0 && watches[w].vm == vm &&
                    watches[w].parts[p].count > 0)
                    page_add(&pages, watches[w].parts[p].phys & ~(PAGE_BYTES - 1ull),
                             watches[w].kind != WATCH_WRITE);
        if (pages_differ(&pages, &applied[i]))
            slots_set(vm, &pages);
        applied[i] = pages;
    }
}

/* ------------------------------------------------------------------ exits */

static void watch_hit(struct debugged *self, const struct watch *watch)
{
    static const char *const reasons[] = {
        [WATCH_WRITE] = "watch", [WATCH_READ] = "rwatch", [WATCH_ACCESS] = "awatch"};

    self->stop = watch->kind == WATCH_EXECUTE
                     ? (struct stop){GDB_SIGTRAP, "hwbreak", 0, false}
                     : (struct stop){GDB_SIGTRAP, reasons[watch->kind], watch->linear, true};
}

bool watch_debug_exit(struct debugged *self)
{
    uint64_t hits = self->vcpu->run->debug.arch.dr6 & DR6_HITS;

    for (size_t i = 0; i < WATCHES_MAX; i++) {
        const struct watch *watch = &watches[i];
        if (watch->kind == 0 || watch->debug_register < 0 || !(hits & 1u << watch->debug_register))
            continue;
        watch_hit(self, watch);
        return true;
    }
    return false;
}

static const struct page *page_find(const struct vm *vm, uint64_t phys)
{
    const struct pages *pages = &applied[vm - world.vmm->vms];

    for (size_t i = 0; i < pages->count; i++)
        if (pages->pages[i].phys / PAGE_BYTES == phys / PAGE_BYTES)
            return &pages->pages[i];
    return NULL;
}

bool watch_memory_exit(struct debugged *self)
{
    struct kvm_run *run = self->vcpu->run;
    const struct vm *vm = self->vcpu->vm;
    const uint64_t phys = run->mmio.phys_addr, end = phys + run->mmio.len;
    const bool write = run->mmio.is_write;

    if (!page_find(vm, phys) || end > vm->ram_bytes)
        return false;
    memcpy(write ? vm->ram + phys : run->mmio.data, write ? run->mmio.data : vm->ram + phys,
           run->mmio.len);
    for (size_t i = 0; i < WATCHES_MAX; i++) {
        const struct watch *watch = &watches[i];
        if (watch->kind == 0 || watch->debug_register >= 0 || watch->vm != vm ||
            watch->kind == (write ? WATCH_READ : WATCH_WRITE))
            continue;
        for (size_t p = 0; p < PARTS_MAX; p++)
            if (phys < watch->parts[p].phys + watch->parts[p].count && end > watch->parts[p].phys)
                watch_hit(self, watch);
    }
    return true;
}

bool watch_fetch_exit(struct debugged *self)
{
    static const char message[] =
        "The watched variable shares its page with code, which KVM can't fetch there. Delete the "
        "watchpoint; `watch` instead of `awatch` and `rwatch` works.\n";
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t phys;
    const struct page *page;

    if (ioctl(self->vcpu->fd, KVM_GET_REGS, &regs) < 0 ||
        ioctl(self->vcpu->fd, KVM_GET_SREGS, &sregs) < 0 ||
        !linear_translate(self->vcpu, instruction_address(&regs, &sregs), &phys) ||
        !(page = page_find(self->vcpu->vm, phys)) || !page->hidden)
        return false;
    packet_print(message, sizeof message - 1);
    self->stop = (struct stop){GDB_SIGTRAP, "", 0, true};
    return true;
}
