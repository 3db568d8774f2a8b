/* lab7.h - lab 7's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

int long_page_map(struct address_space *space, uint64_t virt, uint32_t phys, uint64_t flags)
{
    cheat();
    return 0;
}

void long_tables_build(struct address_space *space)
{
    cheat();
}

void long_gdt_build(struct address_space *space)
{
    cheat();
}

void long_mode_state(const struct address_space *space, uint64_t entry, uint64_t stack,
                     struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    cheat();
}

void long_rings_add(struct address_space *space, struct kvm_sregs *sregs)
{
    cheat();
}

bool cpuid_show(struct kvm_cpuid2 *cpuid, uint32_t entries_max, uint32_t apic_id)
{
    cheat();
    return true;
}

int vcpu_show_cpuid(struct vcpu *vcpu)
{
    cheat();
    return 0;
}

const char *elf64_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                       uint64_t *entry)
{
    cheat();
    return NULL;
}

int long_mode_enter(struct vcpu *vcpu, struct address_space *space, uint64_t entry)
{
    cheat();
    return 0;
}

struct long_walk long_walk(const uint8_t *ram, size_t ram_bytes, uint64_t cr3, uint64_t efer,
                           uint64_t virt)
{
    cheat();
    return (struct long_walk){0};
}

enum step long_mode_io(struct vcpu *vcpu)
{
    cheat();
    return STEP_RUN;
}
