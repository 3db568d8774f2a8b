/*
 * long_mode.c - lab 7: 64-bit guests: tables of four levels, the start state, CPUID, ELF64, and the
 * page walk in software. "SDM" is vol. 3 of Intel's manual.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lab7.h"

#define TSS_BYTES  104
#define GDT_BYTES  56 /* 7 entries: the TSS descriptor takes two */
#define RIGHTS     (PAGE_WRITABLE | PAGE_USER | PAGE_NX)
#define LEVEL_PML4 3 /* the levels: 3 PML4, 2 PDPT, 1 PD, 0 page table */
#define LEVEL_PD   1

#define CPUID_ENTRIES_MAX 256

/* Linear address bits 48 to 63 equal bit 47: SDM vol. 1, 3.3.7.1 "Canonical Addressing". */
static bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* How much of the address space one entry of a table at `level` covers, as a power of 2. */
static unsigned level_shift(unsigned level)
{
    return 12 + 9 * level;
}

static unsigned level_index(uint64_t virt, unsigned level)
{
    return virt >> level_shift(level) & (LONG_TABLE_ENTRIES - 1);
}

/* ------------------------------------------------------------------ page tables */

/* The table at this offset into the space. */
static uint64_t *table_at(const struct address_space *space, uint64_t offset)
{
    return (uint64_t *)(void *)(space->memory + offset);
}

/*
 * Exercise 7.1: the table one level below `entry`, which is at `level`. Where there is none, a new
 * one: it maps what the entry mapped, in smaller pages with the same rights, or nothing. NULL: no
 * table is left.
 */
static uint64_t *table_below(struct address_space *space, uint64_t *entry, unsigned level)
{
    TODO("7.1");
}

/* Exercise 7.1: the entry for `virt` at `level`, with the tables above it; NULL: none is left. */
static uint64_t *entry_find(struct address_space *space, uint64_t virt, unsigned level)
{
    TODO("7.1");
}

/* Exercise 7.1: SDM 4.5, figure "Linear-Address Translation to a 4-KByte Page". */
int long_page_map(struct address_space *space, uint64_t virt, uint32_t phys, uint64_t flags)
{
    TODO("7.1");
}

/* Exercise 7.1: these tables always fit: two for each half, and one for each GB of RAM in it. */
void long_tables_build(struct address_space *space)
{
    TODO("7.1");
}

/* ------------------------------------------------------------------ descriptors and start state */

/* Exercise 7.2: SDM 5.2.1 "Code-Segment Descriptor in 64-bit Mode". D/B must be 0 where L is 1. */
void long_gdt_build(struct address_space *space)
{
    TODO("7.2");
}

/*
 * Exercise 7.2: the state after SDM 10.8.5 "Initializing IA-32e Mode". KVM_SET_SREGS rejects an
 * EFER.LMA without CR0.PG, EFER.LME and CR4.PAE. A local APIC that is disabled disappears from
 * CPUID (SDM 11.4.3): this VMM has none.
 */
void long_mode_state(const struct address_space *space, uint64_t entry, uint64_t stack,
                     struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    TODO("7.2");
}

/*
 * Exercise 7.3: SYSRET takes SS and CS from the two places that follow one selector, data first
 * (Intel's manual, vol. 2, SYSRET). A TSS descriptor has 16 bytes, the upper 8 with bits 32 to 63
 * of the base (SDM 8.2.3 "TSS Descriptor in 64-bit mode").
 */
void long_rings_add(struct address_space *space, struct kvm_sregs *sregs)
{
    TODO("7.3");
}

/* ------------------------------------------------------------------ CPUID */

/* Exercise 7.4: one leaf of KVM's table; the bits are those of vol. 2, CPUID. */
static void leaf_show(struct kvm_cpuid_entry2 *leaf, uint32_t apic_id)
{
    TODO("7.4");
}

/* Exercise 7.4: KVM's own hypervisor leaves offer services that this VMM does not set up. */
bool cpuid_show(struct kvm_cpuid2 *cpuid, uint32_t entries_max, uint32_t apic_id)
{
    TODO("7.4");
}

/* Exercise 7.4: api.rst 4.46 KVM_GET_SUPPORTED_CPUID, 4.20 KVM_SET_CPUID2. */
int vcpu_show_cpuid(struct vcpu *vcpu)
{
    TODO("7.4");
}

/* ------------------------------------------------------------------ ELF64 and the start */

/* Exercise 7.5: is this the header of a 64-bit kernel that can be loaded? NULL, or why not. */
static const char *header_check(const Elf64_Ehdr *header, size_t file_bytes)
{
    TODO("7.5");
}

/* Exercise 7.5: can this segment be loaded? NULL, or why not. Sums may wrap around. */
static const char *segment_check(const Elf64_Phdr *segment, size_t file_bytes, size_t memory_bytes,
                                 uint64_t end)
{
    TODO("7.5");
}

const char *elf64_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                       uint64_t *entry)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment; /* copied, because neither need be aligned in the file */
    bool entry_found = false;
    uint64_t end = LOAD_MIN; /* of the segments before */

    if (file_bytes < sizeof header)
        return "truncated: shorter than an ELF header";
    memcpy(&header, file, sizeof header);
    const char *wrong = header_check(&header, file_bytes);
    *entry = header.e_entry;
    for (unsigned i = 0; !wrong && i < header.e_phnum; i++) {
        memcpy(&segment, file + header.e_phoff + i * sizeof segment, sizeof segment);
        if (segment.p_type != PT_LOAD || segment.p_memsz == 0)
            continue;
        wrong = segment_check(&segment, file_bytes, memory_bytes, end);
        if (wrong)
            break;
        TODO("7.5");
    }
    return wrong || entry_found ? wrong : "the entry point is not in an executable segment";
}

/* Exercise 7.5: a stack for the start only: below the lowest image, above the boot information. */
int long_mode_enter(struct vcpu *vcpu, struct address_space *space, uint64_t entry)
{
    TODO("7.5");
}

/* ------------------------------------------------------------------ the walk */

/*
 * Exercise 7.6: has a present entry at `level` a bit that must be 0? SDM 4.5, tables "Format of
 * ...": PAGE_NX without EFER.NXE, PAGE_LARGE in the PML4, and in the entry of a large page the bits
 * of the address that are in the page; bit 12 there selects a cache type.
 */
static bool entry_is_reserved(uint64_t entry, unsigned level, uint64_t efer)
{
    TODO("7.6");
}

/* Exercise 7.6: SDM 4.5 "4-Level Paging". */
struct long_walk long_walk(const uint8_t *ram, size_t ram_bytes, uint64_t cr3, uint64_t efer,
                           uint64_t virt)
{
    struct long_walk walk = {.writable = true, .user = true, .executable = true};
    uint64_t table = cr3 & LONG_FRAME, entry;

    if (!is_canonical(virt)) {
        walk.reason = "the address is not canonical";
        return walk;
    }
    for (unsigned level = LEVEL_PML4;; level--) {
        TODO("7.6");
    }
}

/* ------------------------------------------------------------------ hypercalls of 64-bit code */

/* Exercise 7.6: hypercall_io knows addresses of 16 and 32 bits. */
enum step long_mode_io(struct vcpu *vcpu)
{
    const struct io_access io = io_decode(vcpu->run);

    if (vcpu->guest->kind != GUEST_ELF64 || !io.out || io.port != HYPERCALL_PORT || io.count != 1 ||
        io_operand(&io, 0) != HC_WRITE)
        return hypercall_io(vcpu);
    TODO("7.6");
}
