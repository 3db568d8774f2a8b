/*
 * boot.c - lab 6: starts an operating system. Loads its kernel, an ELF file, to the addresses that
 * the file gives, then an archive with its files, and a structure that describes both.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "lab6.h"

/* Is this the header of a kernel that can be loaded? NULL, or why not. */
static const char *header_check(const Elf32_Ehdr *header, size_t file_bytes)
{
    /* answer 6.1 */
    const uint8_t *ident = header->e_ident;

    if (memcmp(ident, ELFMAG, SELFMAG) != 0)
        return "not an ELF file";
    if (ident[EI_CLASS] != ELFCLASS32 || ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_386)
        return "an ELF file for another processor: a 32-bit i386 one is needed";
    if (header->e_type != ET_EXEC || ident[EI_VERSION] != EV_CURRENT)
        return "an ELF file that can't be executed: link it without -r, -shared and -pie";
    if (header->e_phnum == 0)
        return "no program headers: nothing to load";
    if (header->e_phentsize != sizeof(Elf32_Phdr))
        return "program headers of an unknown size";
    if (header->e_phoff > file_bytes ||
        header->e_phnum > (file_bytes - header->e_phoff) / sizeof(Elf32_Phdr))
        return "truncated: the program headers are not all there";
    return NULL;
    /* end 6.1 */
}

/* Program header number `index` of a file whose header has been checked. */
static Elf32_Phdr program_header(const uint8_t *file, const Elf32_Ehdr *header, unsigned index)
{
    Elf32_Phdr segment; /* copied, because it need not be aligned in the file */

    memcpy(&segment, file + header->e_phoff + index * sizeof segment, sizeof segment);
    return segment;
}

/* Can this segment be loaded? NULL, or why not. The sums need 64 bits: in 32 they wrap around. */
static const char *segment_check(const Elf32_Phdr *segment, size_t file_bytes, size_t memory_bytes)
{
    /* answer 6.1 */
    if ((uint64_t)segment->p_offset + segment->p_filesz > file_bytes)
        return "truncated: a segment's bytes are not all there";
    if (segment->p_filesz > segment->p_memsz)
        return "a segment has more bytes in the file than in memory";
    if (segment->p_paddr < LOAD_MIN)
        return "a segment is below 0x30000, where the VMM's tables are";
    if ((uint64_t)segment->p_paddr + segment->p_memsz > memory_bytes)
        return "a segment is outside the guest's memory: increase --mem";
    if (segment->p_vaddr != segment->p_paddr && segment->p_vaddr != segment->p_paddr + HIGHER_HALF)
        return "a segment's virtual address will not map to its physical address";
    return NULL;
    /* end 6.1 */
}

/* Do two segments overlap in memory? */
static bool segments_overlap(const Elf32_Phdr *a, const Elf32_Phdr *b)
{
    /* answer 6.1 */
    return a->p_paddr < b->p_paddr + b->p_memsz && b->p_paddr < a->p_paddr + a->p_memsz;
    /* end 6.1 */
}

const char *elf_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                     uint32_t *entry, uint32_t *end)
{
    Elf32_Ehdr header;

    if (file_bytes < sizeof header)
        return "truncated: shorter than an ELF header";
    memcpy(&header, file, sizeof header);
    const char *wrong = header_check(&header, file_bytes);
    bool entry_found = false;

    *entry = header.e_entry;
    *end = 0;
    for (unsigned i = 0; !wrong && i < header.e_phnum; i++) {
        Elf32_Phdr segment = program_header(file, &header, i);
        if (segment.p_type != PT_LOAD || segment.p_memsz == 0)
            continue;
        wrong = segment_check(&segment, file_bytes, memory_bytes);
        for (unsigned j = 0; !wrong && j < i; j++) {
            Elf32_Phdr earlier = program_header(file, &header, j);
            if (earlier.p_type == PT_LOAD && earlier.p_memsz > 0 &&
                segments_overlap(&segment, &earlier))
                wrong = "two segments overlap";
        }
        if (wrong)
            break;
        /* answer 6.1 */
        memcpy(memory + segment.p_paddr, file + segment.p_offset, segment.p_filesz);
        memset(memory + segment.p_paddr + segment.p_filesz, 0, segment.p_memsz - segment.p_filesz);
        if (segment.p_paddr + segment.p_memsz > *end)
            *end = segment.p_paddr + segment.p_memsz;
        if (header.e_entry - segment.p_vaddr < segment.p_memsz && (segment.p_flags & PF_X) != 0)
            entry_found = true;
        /* end 6.1 */
    }
    if (!wrong && !entry_found)
        wrong = "the entry point is not in an executable segment";
    return wrong;
}

/* Loads --initrd, if given, to the first page at or after `end`; sets its fields in `info`. */
static int archive_load(const char *path, const struct address_space *space, uint32_t end,
                        struct boot_info *info)
{
    /* answer 6.2 */
    uint8_t *archive;
    size_t count;
    uint64_t start = ((uint64_t)end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;

    info->archive_start = 0;
    info->archive_bytes = 0;
    if (!path)
        return 0;
    if (start >= space->bytes)
        return fail(STATUS_GUEST_FILE, "%s: no memory is left for it: increase --mem", path);
    int status = file_read(path, space->bytes - start, &archive, &count);
    if (status != 0)
        return status;
    memcpy(space->memory + start, archive, count);
    free(archive);
    info->archive_start = (uint32_t)start;
    info->archive_bytes = (uint32_t)count;
    return 0;
    /* end 6.2 */
}

/* Writes the boot information to its place; archive_load has set the archive's fields. */
static void boot_info_write(const struct options *options, struct address_space *space,
                            struct boot_info *info)
{
    /* answer 6.2 */
    info->magic = BOOT_MAGIC;
    info->size = sizeof *info;
    info->memory_bytes = space->bytes;
    info->tick_ms = options->tick_ms;
    memcpy(space->memory + BOOT_INFO_OFFSET, info, sizeof *info);
    /* end 6.2 */
}

int boot_prepare(struct vcpu *vcpu)
{
    const struct options *options = &vcpu->vm->vmm->options;
    struct address_space space;
    struct boot_info info;
    uint32_t entry, end;
    int status = space_open(vcpu, &space);

    if (status != 0)
        return status;
    const char *wrong = elf_load(vcpu->guest->image, vcpu->guest->image_bytes, space.memory,
                                 space.bytes, &entry, &end);
    if (wrong)
        return fail(STATUS_GUEST_FILE, "%s: %s", vcpu->guest->path, wrong);
    status = archive_load(options->initrd, &space, end, &info);
    if (status != 0)
        return status;
    boot_info_write(options, &space, &info);
    /* answer 6.3 */
    /* A stack for the start only: below the lowest image, above the boot information. */
    return paging_enter(vcpu, &space, entry, HIGHER_HALF + LOAD_MIN, BOOT_INFO_OFFSET);
    /* end 6.3 */
}
