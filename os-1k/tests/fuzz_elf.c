/* fuzz_elf.c - libFuzzer: any bytes as a kernel for the VMM. */
#include <stdlib.h>
#include <string.h>

#include "lab6.h"

#define MEMORY_BYTES 0x40000

/* What boot.c needs beside elf_load, and elf_load never calls. */
int fail(int status, const char *format, ...)
{
    abort();
}

int file_read(const char *path, size_t max, uint8_t **bytes, size_t *count)
{
    abort();
}

int space_open(struct vcpu *vcpu, struct address_space *space)
{
    abort();
}

int paging_enter(struct vcpu *vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
                 uint32_t ebx)
{
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const uint8_t zeros[LOAD_MIN];
    uint8_t *memory = calloc(1, MEMORY_BYTES);
    uint32_t entry = 0, end = 0;

    if (!elf_load(data, bytes, memory, MEMORY_BYTES, &entry, &end) &&
        (end > MEMORY_BYTES || end <= LOAD_MIN))
        abort();
    if (memcmp(memory, zeros, LOAD_MIN) != 0)
        abort();
    free(memory);
    return 0;
}
