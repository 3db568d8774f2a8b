/* program.c - loads a program from its ELF file into an address space. */
#include "elf32.h"
#include "kernel.h"

/* Loads one segment page by page. Pages of two segments never meet: their rights would mix. */
static int segment_load(uint32_t *directory, const struct file *file,
                        const struct elf_segment *segment)
{
    if (segment->file_offset > file->bytes ||
        segment->file_bytes > file->bytes - segment->file_offset ||
        segment->file_bytes > segment->memory_bytes || segment->virt < PROGRAM_MIN ||
        segment->virt > PROGRAM_END || segment->memory_bytes > PROGRAM_END - segment->virt)
        return ERROR_PROGRAM;

    const uint8_t *from = file->data + segment->file_offset;
    uint32_t left = segment->file_bytes;
    uint32_t end = segment->virt + segment->memory_bytes;
    uint32_t offset = segment->virt % PAGE_BYTES; /* in the first page */
    for (uint32_t virt = segment->virt - offset; virt < end; virt += PAGE_BYTES) {
        if (user_page(directory, virt, 0))
            return ERROR_PROGRAM;
        uint8_t *page =
            user_page_add(directory, virt, segment->flags & ELF_WRITABLE ? PAGE_WRITABLE : 0);
        if (!page)
            return ERROR_MEMORY;
        uint32_t count = left < PAGE_BYTES - offset ? left : PAGE_BYTES - offset;
        memcpy(page + offset, from, count);
        from += count;
        left -= count;
        offset = 0;
    }
    return 0;
}

/*
 * The stack, with what start.asm hands to main: a pointer to the argument, the argument above it.
 */
static int stack_load(uint32_t *directory, const char *argument, uint32_t *stack)
{
    uint8_t *page = NULL;

    for (uint32_t i = STACK_PAGES; i > 0; i--) {
        page = user_page_add(directory, STACK_TOP - i * PAGE_BYTES, PAGE_WRITABLE);
        if (!page)
            return ERROR_MEMORY;
    }
    uint32_t argument_address = STACK_TOP - ARGUMENT_MAX;
    *stack = argument_address - 16;
    text_copy((char *)page + PAGE_BYTES - ARGUMENT_MAX, argument, ARGUMENT_MAX);
    memcpy(page + *stack % PAGE_BYTES, &argument_address, sizeof argument_address);
    return 0;
}

int program_load(uint32_t *directory, const struct file *file, const char *argument,
                 uint32_t *entry, uint32_t *stack)
{
    const struct elf_header *header = (const struct elf_header *)file->data;
    const struct elf_segment *segments;

    if (file->bytes < sizeof *header ||
        memcmp(header->ident, ELF_IDENT, sizeof ELF_IDENT - 1) != 0 ||
        header->type != ELF_PROGRAM || header->machine != ELF_I386 ||
        header->segment_bytes != sizeof *segments || header->segments_offset > file->bytes ||
        header->segment_count > (file->bytes - header->segments_offset) / sizeof *segments)
        return ERROR_PROGRAM;

    segments = (const struct elf_segment *)(file->data + header->segments_offset);
    for (uint32_t i = 0; i < header->segment_count; i++) {
        if (segments[i].type != ELF_LOAD || segments[i].memory_bytes == 0)
            continue;
        int result = segment_load(directory, file, &segments[i]);
        if (result < 0)
            return result;
    }
    *entry = header->entry;
    return stack_load(directory, argument, stack);
}
