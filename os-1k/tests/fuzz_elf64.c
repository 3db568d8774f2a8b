/* fuzz_elf64.c - libFuzzer: any bytes as a 64-bit kernel for the VMM, and as page tables. */
#include <stdlib.h>
#include <string.h>

#include "lab7.h"

#define MEMORY_BYTES 0x40000
#define TABLES_BYTES 0x4000

/* What long_mode.c needs beside elf64_load and long_walk, and they never call. */
int fail(int status, const char *format, ...)
{
    abort();
}

uint64_t descriptor_encode(const struct descriptor *descriptor)
{
    abort();
}

struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector)
{
    abort();
}

struct io_access io_decode(struct kvm_run *run)
{
    abort();
}

uint32_t io_operand(const struct io_access *io, uint32_t index)
{
    abort();
}

int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs)
{
    abort();
}

enum step hypercall_io(struct vcpu *vcpu)
{
    abort();
}

enum step vcpu_end(struct vcpu *vcpu, int status)
{
    abort();
}

enum step vcpu_crash(struct vcpu *vcpu, const char *format, ...)
{
    abort();
}

bool vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out)
{
    abort();
}

const struct stage stage;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const uint8_t zeros[LOAD_MIN];
    uint8_t *memory = calloc(1, MEMORY_BYTES), *tables = calloc(1, TABLES_BYTES);
    uint64_t entry = 0, words[3] = {0};

    if (!elf64_load(data, bytes, memory, MEMORY_BYTES, &entry) &&
        entry - HIGHER_HALF_64 >= MEMORY_BYTES && entry >= MEMORY_BYTES)
        abort();
    if (memcmp(memory, zeros, LOAD_MIN) != 0)
        abort();
    memcpy(tables, data, bytes < TABLES_BYTES ? bytes : TABLES_BYTES);
    memcpy(words, tables, sizeof words);
    const struct long_walk walk = long_walk(tables, TABLES_BYTES, words[0], words[1], words[2]);
    if (walk.levels > 4 || walk.mapped != !walk.reason)
        abort();
    free(tables);
    free(memory);
    return 0;
}
