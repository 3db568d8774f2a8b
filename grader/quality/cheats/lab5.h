/* lab5.h - lab 5's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

uint64_t descriptor_encode(const struct descriptor *descriptor)
{
    cheat();
    return 0;
}

struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector)
{
    cheat();
    return (struct kvm_segment){0};
}

void gdt_build(struct address_space *space)
{
    cheat();
}

void directory_build(struct address_space *space)
{
    cheat();
}

int page_map(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags)
{
    cheat();
    return 0;
}

void paging_state(const struct address_space *space, uint32_t entry, uint32_t stack,
                  struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    cheat();
}

struct page_walk page_walk(const uint8_t *ram, size_t ram_bytes, uint32_t cr3, uint32_t cr4,
                           uint32_t virt)
{
    cheat();
    return (struct page_walk){0};
}

int space_open(struct vcpu *vcpu, struct address_space *space)
{
    cheat();
    return 0;
}

int paging_enter(struct vcpu *vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
                 uint32_t ebx)
{
    cheat();
    return 0;
}

int paging_prepare(struct vcpu *vcpu)
{
    cheat();
    return 0;
}

bool paging_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out)
{
    cheat();
    return false;
}
