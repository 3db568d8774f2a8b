/* lab6_boot.h - lab 6's boot.c with nothing but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

const char *elf_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                     uint32_t *entry, uint32_t *end)
{
    cheat();
    return NULL;
}

int boot_prepare(struct vcpu *vcpu)
{
    cheat();
    return 0;
}
