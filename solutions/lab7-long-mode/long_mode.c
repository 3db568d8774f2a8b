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
    /* answer 7.1 */
    uint64_t old = *entry;

    if (old & PAGE_PRESENT && !(old & PAGE_LARGE))
        return table_at(space, (old & LONG_FRAME) - space->base);
    if (space->next_table + PAGE_BYTES > TABLES_END)
        return NULL;
    uint64_t *table = table_at(space, space->next_table);
    for (uint64_t i = 0; i < LONG_TABLE_ENTRIES; i++) {
        uint64_t phys = (old & LONG_FRAME) + (i << level_shift(level - 1));
        table[i] = old & PAGE_PRESENT ? phys | (old & RIGHTS) | PAGE_PRESENT : 0;
    }
    /* A right needs every level: the upper ones grant all, and the last restricts them. */
    *entry = (space->base + space->next_table) | PAGE_USER | PAGE_WRITABLE | PAGE_PRESENT;
    space->next_table += PAGE_BYTES;
    return table;
    /* end 7.1 */
}

/* Exercise 7.1: the entry for `virt` at `level`, with the tables above it; NULL: none is left. */
static uint64_t *entry_find(struct address_space *space, uint64_t virt, unsigned level)
{
    /* answer 7.1 */
    uint64_t *table = table_at(space, DIRECTORY_OFFSET);

    for (unsigned above = LEVEL_PML4; table && above > level; above--)
        table = table_below(space, &table[level_index(virt, above)], above);
    return table ? &table[level_index(virt, level)] : NULL;
    /* end 7.1 */
}

/* Exercise 7.1: SDM 4.5, figure "Linear-Address Translation to a 4-KByte Page". */
int long_page_map(struct address_space *space, uint64_t virt, uint32_t phys, uint64_t flags)
{
    /* answer 7.1 */
    if (virt % PAGE_BYTES != 0 || !is_canonical(virt) || phys % PAGE_BYTES != 0 ||
        phys >= space->bytes)
        return EINVAL;
    uint64_t *entry = entry_find(space, virt, 0);
    if (!entry)
        return ENOMEM;
    *entry = flags ? (space->base + phys) | flags : 0;
    return 0;
    /* end 7.1 */
}

/* Exercise 7.1: these tables always fit: two for each half, and one for each GB of RAM in it. */
void long_tables_build(struct address_space *space)
{
    /* answer 7.1 */
    memset(table_at(space, DIRECTORY_OFFSET), 0, PAGE_BYTES);
    for (uint64_t offset = 0; offset < space->bytes; offset += MEDIUM_PAGE_BYTES) {
        uint64_t entry = (space->base + offset) | PAGE_LARGE | PAGE_WRITABLE | PAGE_PRESENT;
        *entry_find(space, offset, LEVEL_PD) = entry;
        *entry_find(space, HIGHER_HALF_64 + offset, LEVEL_PD) = entry;
    }
    /* end 7.1 */
}

/* ------------------------------------------------------------------ descriptors and start state */

/* Exercise 7.2: SDM 5.2.1 "Code-Segment Descriptor in 64-bit Mode". D/B must be 0 where L is 1. */
void long_gdt_build(struct address_space *space)
{
    /* answer 7.2 */
    const struct descriptor code = {0, UINT32_MAX, TYPE_CODE, true, 0, true, false},
                            data = {0, UINT32_MAX, TYPE_DATA, true, 0, true, true};
    uint64_t *gdt = table_at(space, GDT_OFFSET);

    memset(gdt, 0, GDT_BYTES);
    gdt[SELECTOR_KERNEL_CODE >> 3] = descriptor_encode(&code) | DESCRIPTOR_LONG;
    gdt[SELECTOR_KERNEL_DATA >> 3] = descriptor_encode(&data);
    /* end 7.2 */
}

/*
 * Exercise 7.2: the state after SDM 10.8.5 "Initializing IA-32e Mode". KVM_SET_SREGS rejects an
 * EFER.LMA without CR0.PG, EFER.LME and CR4.PAE. A local APIC that is disabled disappears from
 * CPUID (SDM 11.4.3): this VMM has none.
 */
void long_mode_state(const struct address_space *space, uint64_t entry, uint64_t stack,
                     struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    /* answer 7.2 */
    const uint64_t *gdt = table_at(space, GDT_OFFSET);

    sregs->cs = segment_load(gdt, SELECTOR_KERNEL_CODE);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss =
        segment_load(gdt, SELECTOR_KERNEL_DATA);
    sregs->ldt = (struct kvm_segment){.type = TYPE_LDT, .unusable = 1};
    sregs->gdt.base = HIGHER_HALF_64 + GDT_OFFSET;
    sregs->gdt.limit = GDT_BYTES - 1;
    sregs->idt.base = sregs->idt.limit = 0;
    sregs->cr3 = space->base + DIRECTORY_OFFSET;
    sregs->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    sregs->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    sregs->efer = EFER_LME | EFER_LMA | EFER_NXE;
    sregs->apic_base &= ~(uint64_t)APIC_BASE_ENABLE;
    *regs = (struct kvm_regs){.rip = entry, .rsp = stack, .rflags = FLAGS_ALWAYS_ONE};
    /* end 7.2 */
}

/*
 * Exercise 7.3: SYSRET takes SS and CS from the two places that follow one selector, data first
 * (Intel's manual, vol. 2, SYSRET). A TSS descriptor has 16 bytes, the upper 8 with bits 32 to 63
 * of the base (SDM 8.2.3 "TSS Descriptor in 64-bit mode").
 */
void long_rings_add(struct address_space *space, struct kvm_sregs *sregs)
{
    /* answer 7.3 */
    const uint64_t base = HIGHER_HALF_64 + TSS_OFFSET;
    const struct descriptor code = {0, UINT32_MAX, TYPE_CODE, true, 3, true, false},
                            data = {0, UINT32_MAX, TYPE_DATA, true, 3, true, true},
                            tss = {(uint32_t)base, TSS_BYTES - 1, TYPE_TSS_BUSY, false, 0,
                                   true,           false};
    uint64_t *gdt = table_at(space, GDT_OFFSET);

    gdt[SELECTOR_LONG_USER_DATA >> 3] = descriptor_encode(&data);
    gdt[SELECTOR_LONG_USER_CODE >> 3] = descriptor_encode(&code) | DESCRIPTOR_LONG;
    gdt[SELECTOR_TSS >> 3] = descriptor_encode(&tss);
    gdt[(SELECTOR_TSS >> 3) + 1] = base >> 32;
    memset(space->memory + TSS_OFFSET, 0, TSS_BYTES);
    sregs->tr = segment_load(gdt, SELECTOR_TSS);
    sregs->tr.base = base;
    sregs->efer |= EFER_SCE;
    /* end 7.3 */
}

/* ------------------------------------------------------------------ CPUID */

/* Exercise 7.4: one leaf of KVM's table; the bits are those of vol. 2, CPUID. */
static void leaf_show(struct kvm_cpuid_entry2 *leaf, uint32_t apic_id)
{
    /* answer 7.4 */
    if (leaf->function == 0x1) {
        leaf->ebx = (leaf->ebx & 0x00ffffff) | apic_id << 24;
        leaf->ecx &= ~(uint32_t)(CPUID_1_ECX_X2APIC | CPUID_1_ECX_TSC_DEADLINE);
        leaf->ecx |= CPUID_1_ECX_HYPERVISOR;
        leaf->edx &= ~(uint32_t)CPUID_1_EDX_APIC;
    } else if (leaf->function == 0xb || leaf->function == 0x1f) /* topology, and its successor */
        leaf->edx = apic_id;
    else if (leaf->function == 0x8000001e) /* AMD's topology */
        leaf->eax = apic_id;
    /* end 7.4 */
}

/* Exercise 7.4: KVM's own hypervisor leaves offer services that this VMM does not set up. */
bool cpuid_show(struct kvm_cpuid2 *cpuid, uint32_t entries_max, uint32_t apic_id)
{
    /* answer 7.4 */
    const struct kvm_cpuid_entry2 signature = {.function = CPUID_SIGNATURE,
                                               .eax = CPUID_SIGNATURE,
                                               .ebx = CPUID_SIGNATURE_EBX,
                                               .ecx = CPUID_SIGNATURE_ECX,
                                               .edx = CPUID_SIGNATURE_EDX};
    uint32_t kept = 0;

    for (uint32_t i = 0; i < cpuid->nent; i++) {
        if (cpuid->entries[i].function >> 28 == CPUID_SIGNATURE >> 28)
            continue;
        cpuid->entries[kept] = cpuid->entries[i];
        leaf_show(&cpuid->entries[kept++], apic_id);
    }
    cpuid->nent = kept;
    if (kept >= entries_max)
        return false;
    cpuid->entries[cpuid->nent++] = signature;
    return true;
    /* end 7.4 */
}

/* Exercise 7.4: api.rst 4.46 KVM_GET_SUPPORTED_CPUID, 4.20 KVM_SET_CPUID2. */
int vcpu_show_cpuid(struct vcpu *vcpu)
{
    /* answer 7.4 */
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof *cpuid + CPUID_ENTRIES_MAX * sizeof cpuid->entries[0]);
    int status = 0;

    if (!cpuid)
        return fail(STATUS_NO_KVM, "no memory for CPUID");
    cpuid->nent = CPUID_ENTRIES_MAX;
    if (ioctl(vcpu->vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        status = fail(STATUS_NO_KVM, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    else if (!cpuid_show(cpuid, CPUID_ENTRIES_MAX, (uint32_t)vcpu->index))
        status = fail(STATUS_NO_KVM, "CPUID: no room for the signature");
    else if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
        status = fail(STATUS_NO_KVM, "KVM_SET_CPUID2: %s", strerror(errno));
    free(cpuid);
    return status;
    /* end 7.4 */
}

/* ------------------------------------------------------------------ ELF64 and the start */

/* Exercise 7.5: is this the header of a 64-bit kernel that can be loaded? NULL, or why not. */
static const char *header_check(const Elf64_Ehdr *header, size_t file_bytes)
{
    /* answer 7.5 */
    const uint8_t *ident = header->e_ident;

    if (memcmp(ident, ELFMAG, SELFMAG) != 0 || ident[EI_CLASS] != ELFCLASS64 ||
        ident[EI_DATA] != ELFDATA2LSB || header->e_machine != EM_X86_64)
        return "not a 64-bit ELF file for x86-64";
    if (header->e_type != ET_EXEC || ident[EI_VERSION] != EV_CURRENT)
        return "an ELF file that can't be executed: link it without -r, -shared and -pie";
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff > file_bytes ||
        header->e_phnum > (file_bytes - header->e_phoff) / sizeof(Elf64_Phdr))
        return "program headers of an unknown size, or truncated";
    return NULL;
    /* end 7.5 */
}

/* Exercise 7.5: can this segment be loaded? NULL, or why not. Sums may wrap around. */
static const char *segment_check(const Elf64_Phdr *segment, size_t file_bytes, size_t memory_bytes,
                                 uint64_t end)
{
    /* answer 7.5 */
    if (segment->p_offset > file_bytes || segment->p_filesz > file_bytes - segment->p_offset)
        return "truncated: a segment's bytes are not all there";
    if (segment->p_filesz > segment->p_memsz)
        return "a segment has more bytes in the file than in memory";
    if (segment->p_paddr < LOAD_MIN)
        return "a segment is below 0x30000, where the VMM's tables are";
    if (segment->p_paddr < end)
        return "two segments overlap, or are not in ascending order";
    if (segment->p_paddr > memory_bytes || segment->p_memsz > memory_bytes - segment->p_paddr)
        return "a segment is outside the guest's memory: increase --mem";
    if (segment->p_vaddr != segment->p_paddr &&
        segment->p_vaddr != segment->p_paddr + HIGHER_HALF_64)
        return "a segment's virtual address will not map to its physical address";
    return NULL;
    /* end 7.5 */
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
        /* answer 7.5 */
        end = segment.p_paddr + segment.p_memsz;
        memcpy(memory + segment.p_paddr, file + segment.p_offset, segment.p_filesz);
        memset(memory + segment.p_paddr + segment.p_filesz, 0, segment.p_memsz - segment.p_filesz);
        if (header.e_entry - segment.p_vaddr < segment.p_memsz && (segment.p_flags & PF_X) != 0)
            entry_found = true;
        /* end 7.5 */
    }
    return wrong || entry_found ? wrong : "the entry point is not in an executable segment";
}

/* Exercise 7.5: a stack for the start only: below the lowest image, above the boot information. */
int long_mode_enter(struct vcpu *vcpu, struct address_space *space, uint64_t entry)
{
    /* answer 7.5 */
    const struct boot_info info = {.magic = BOOT_MAGIC,
                                   .size = sizeof info,
                                   .memory_bytes = space->bytes,
                                   .tick_ms = vcpu->vm->vmm->options.tick_ms};
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    int status = vcpu_show_cpuid(vcpu);

    if (status != 0)
        return status;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_GET_SREGS: %s", strerror(errno));
    memcpy(space->memory + BOOT_INFO_OFFSET, &info, sizeof info);
    long_tables_build(space);
    long_gdt_build(space);
    long_mode_state(space, entry, HIGHER_HALF_64 + LOAD_MIN, &sregs, &regs);
    long_rings_add(space, &sregs);
    regs.rdi = BOOT_INFO_OFFSET;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return fail(STATUS_NO_KVM, "KVM rejects the start state: %s", strerror(errno));
    return 0;
    /* end 7.5 */
}

/* ------------------------------------------------------------------ the walk */

/*
 * Exercise 7.6: has a present entry at `level` a bit that must be 0? SDM 4.5, tables "Format of
 * ...": PAGE_NX without EFER.NXE, PAGE_LARGE in the PML4, and in the entry of a large page the bits
 * of the address that are in the page; bit 12 there selects a cache type.
 */
static bool entry_is_reserved(uint64_t entry, unsigned level, uint64_t efer)
{
    /* answer 7.6 */
    const uint64_t in_page = (1ull << level_shift(level)) - 1;

    if (level == 0 || !(entry & PAGE_LARGE))
        return entry & PAGE_NX && !(efer & EFER_NXE);
    return (entry & PAGE_NX && !(efer & EFER_NXE)) || level == LEVEL_PML4 ||
           (entry & in_page & LONG_FRAME & ~(uint64_t)PAGE_BYTES) != 0;
    /* end 7.6 */
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
        /* answer 7.6 */
        if (table + PAGE_BYTES > ram_bytes) {
            walk.reason = "the table is outside of RAM";
            return walk;
        }
        memcpy(&entry, ram + table + level_index(virt, level) * sizeof entry, sizeof entry);
        walk.entries[walk.levels++] = entry;
        if (!(entry & PAGE_PRESENT) || entry_is_reserved(entry, level, efer)) {
            walk.reason = entry & PAGE_PRESENT ? "a reserved bit is set" : "not present";
            return walk;
        }
        walk.writable = walk.writable && entry & PAGE_WRITABLE;
        walk.user = walk.user && entry & PAGE_USER;
        walk.executable = walk.executable && !(entry & PAGE_NX);
        if (level == 0 || entry & PAGE_LARGE) {
            const uint64_t in_page = (1ull << level_shift(level)) - 1;
            walk.mapped = true;
            walk.phys = (entry & LONG_FRAME & ~in_page) | (virt & in_page);
            return walk;
        }
        table = entry & LONG_FRAME;
        /* end 7.6 */
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
    /* answer 7.6 */
    struct kvm_regs regs;

    if (vcpu_registers(vcpu, &regs) != 0)
        return vcpu_end(vcpu, STATUS_CRASHED);
    for (uint64_t part, phys; regs.rcx > 0; regs.rsi += part, regs.rcx -= part) {
        part = PAGE_BYTES - regs.rsi % PAGE_BYTES;
        part = regs.rcx < part ? regs.rcx : part;
        if (!vcpu_translate(vcpu, regs.rsi, &phys, NULL) || phys + part > vcpu->vm->ram_bytes)
            return vcpu_crash(vcpu, "WRITE of a string at 0x%llx, which is not in RAM", regs.rsi);
        stage.console_write(vcpu, (const char *)vcpu->vm->ram + phys, part);
    }
    return STEP_RUN;
    /* end 7.6 */
}
