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
    TODO("6.1");
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
    TODO("6.1");
}

/* Do two segments overlap in memory? */
static bool segments_overlap(const Elf32_Phdr *a, const Elf32_Phdr *b)
{
    TODO("6.1");
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
        TODO("6.1");
    }
    if (!wrong && !entry_found)
        wrong = "the entry point is not in an executable segment";
    return wrong;
}

/* Loads --initrd, if given, to the first page at or after `end`; sets its fields in `info`. */
static int archive_load(const char *path, const struct address_space *space, uint32_t end,
                        struct boot_info *info)
{
    TODO("6.2");
}

/* Writes the boot information to its place; archive_load has set the archive's fields. */
static void boot_info_write(const struct options *options, struct address_space *space,
                            struct boot_info *info)
{
    TODO("6.2");
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
    TODO("6.3");
}
