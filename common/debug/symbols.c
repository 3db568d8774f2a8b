/*
 * symbols.c - finds the function of an ELF guest that contains an address, in the symbol table that
 * the linker left in its file. The file may be damaged, so nothing in it is trusted.
 */
#include <elf.h>
#include <string.h>

#include "debug/debug.h"

/* `count` bytes of the guest's file from `offset` on, or NULL. */
static const void *file_part(const struct guest *guest, uint64_t offset, uint64_t count)
{
    if (offset > guest->image_bytes || count > guest->image_bytes - offset)
        return NULL;
    return guest->image + offset;
}

/* Copies section header `index`; false: the file has none there. */
static bool section_read(const struct guest *guest, const Elf32_Ehdr *header, uint32_t index,
                         Elf32_Shdr *section)
{
    const void *at =
        file_part(guest, header->e_shoff + (uint64_t)index * sizeof *section, sizeof *section);

    if (at)
        memcpy(section, at, sizeof *section);
    return at;
}

/* The function in one symbol table that begins last at or before the address. */
static bool table_search(const struct guest *guest, const Elf32_Ehdr *header,
                         const Elf32_Shdr *table, uint32_t address, Elf32_Sym *best)
{
    bool found = false;
    Elf32_Sym symbol;

    for (uint32_t i = 0; i < table->sh_size / sizeof symbol; i++) {
        const void *at =
            file_part(guest, table->sh_offset + (uint64_t)i * sizeof symbol, sizeof symbol);
        if (!at)
            break;
        memcpy(&symbol, at, sizeof symbol);
        unsigned type = ELF32_ST_TYPE(symbol.st_info);
        Elf32_Shdr section;
        bool code = (type == STT_FUNC || type == STT_NOTYPE) && symbol.st_shndx < header->e_shnum &&
                    section_read(guest, header, symbol.st_shndx, &section) &&
                    (section.sh_flags & SHF_EXECINSTR) != 0 &&
                    address - section.sh_addr < section.sh_size;
        if (code && symbol.st_value <= address && (!found || symbol.st_value >= best->st_value)) {
            *best = symbol;
            found = true;
        }
    }
    return found;
}

bool symbol_find(const struct guest *guest, uint32_t address, char *text, size_t size)
{
    Elf32_Ehdr header;
    Elf32_Shdr table, names;
    Elf32_Sym symbol = {0};

    if (guest->kind != GUEST_ELF || !file_part(guest, 0, sizeof header))
        return false;
    memcpy(&header, guest->image, sizeof header);
    for (uint32_t i = 0; i < header.e_shnum; i++) {
        if (!section_read(guest, &header, i, &table) || table.sh_type != SHT_SYMTAB ||
            !section_read(guest, &header, table.sh_link, &names) ||
            !table_search(guest, &header, &table, address, &symbol) ||
            symbol.st_name >= names.sh_size)
            continue;
        const char *name =
            file_part(guest, names.sh_offset + (uint64_t)symbol.st_name, sizeof *name);
        if (!name)
            continue;
        size_t room = guest->image_bytes - (size_t)((const uint8_t *)name - guest->image);
        snprintf(text, size, "%.*s+%u", (int)strnlen(name, room < 64 ? room : 64), name,
                 address - symbol.st_value);
        return true;
    }
    return false;
}
