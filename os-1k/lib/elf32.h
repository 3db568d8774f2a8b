/* elf32.h - the parts of an ELF32 file that a loader needs (System V ABI, "Object Files"). */
#pragma once

#include <stdint.h>

struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t file_version, entry;
    uint32_t segments_offset, sections_offset; /* in the file */
    uint32_t flags;
    uint16_t header_bytes, segment_bytes, segment_count;
    uint16_t section_bytes, section_count, section_names;
};

#define ELF_IDENT   "\177ELF\1\1\1" /* ident: magic, 32-bit, little-endian, version 1 */
#define ELF_PROGRAM 2               /* type: can be executed */
#define ELF_I386    3               /* machine */

struct elf_segment {
    uint32_t type, file_offset;
    uint32_t virt, phys;
    uint32_t file_bytes, memory_bytes; /* what the file does not have is zeros */
    uint32_t flags, align;
};

#define ELF_LOAD     1 /* type: to be loaded */
#define ELF_WRITABLE 2 /* flag */
