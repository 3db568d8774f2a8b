/*
 * lab5.h - what paging.c of lab 5 provides: 32-bit protected mode with paging, and the page walk.
 * Each of these functions may run on the threads of several vCPUs at a time.
 */
#pragma once

#include "lab4.h"

/* A descriptor in plain words: SDM vol. 3, 3.4.5 "Segment Descriptors". */
struct descriptor {
    uint32_t base;
    uint32_t limit; /* last valid offset, in bytes */
    uint8_t type;   /* 4 bits */
    bool code_data; /* S */
    uint8_t dpl;
    bool present;
    bool big; /* D/B: 32-bit */
};

/*
 * 5.1 The 8 bytes in memory. A limit of up to 0xfffff is stored in bytes, a greater one in pages
 * (G). The caller gives no greater limit whose low 12 bits are not all 1: the first is 0x100fff.
 */
uint64_t descriptor_encode(const struct descriptor *descriptor);

/* 5.1 The segment register as the processor fills it when it loads `selector` from `gdt`. */
struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector);

/* The memory of one paging guest. */
struct address_space {
    uint8_t *memory;     /* host address of its part of RAM */
    uint32_t base;       /* guest-physical address of that part: a multiple of LARGE_PAGE_BYTES */
    uint32_t bytes;      /* its size: a multiple of PAGE_BYTES, at most HIGHER_HALF */
    uint32_t next_table; /* offset of the first unused page table, TABLES_OFFSET to TABLES_END */
};

/* 5.1 Writes the GDT of abi.h's selectors at GDT_OFFSET, and a TSS of zeros at TSS_OFFSET. */
void gdt_build(struct address_space *space);

/*
 * 5.2 Writes the page directory: all of the space, including a last part of less than 4 MB, at 0
 * and at HIGHER_HALF in 4 MB pages; every other entry is 0. It changes nothing before
 * DIRECTORY_OFFSET, and nothing from TABLES_END on.
 */
void directory_build(struct address_space *space);

/*
 * 5.3 Maps one page, or with flags 0 unmaps it; virt and phys are multiples of PAGE_BYTES, phys an
 * offset into the space; flags are 0, or PAGE_PRESENT with any of PAGE_WRITABLE, PAGE_USER. Where a
 * 4 MB page maps it, that is split into a table first, its other pages kept. Where a page is mapped
 * already, the new one takes its place. 0; EINVAL: not page-aligned, or phys outside the space,
 * even with flags 0; ENOMEM: no table left. EINVAL comes first. A page that is refused changes
 * nothing: no memory, and not next_table. Where nothing is mapped, flags 0 may take a table or do
 * without.
 */
int page_map(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags);

/*
 * 5.4 Start state: protected mode, paging on, execution at `entry`, stack below `stack`, no IDT,
 * the other general registers 0. `sregs` comes in as KVM returned it.
 */
void paging_state(const struct address_space *space, uint32_t entry, uint32_t stack,
                  struct kvm_sregs *sregs, struct kvm_regs *regs);

/* What a page walk found: SDM vol. 3, 4.3. */
struct page_walk {
    bool mapped;
    uint64_t phys;                         /* guest-physical, if mapped */
    uint32_t directory_entry, table_entry; /* as read, mapped or not; 0: not read */
    bool writable, user;                   /* the rights of both levels together */
    const char *reason;                    /* if not mapped: at which level and why, in words */
};

/*
 * 5.5 Translates as the processor would, from CR3 and CR4 alone. Entries outside of RAM are not
 * mapped.
 */
struct page_walk page_walk(const uint8_t *ram, size_t ram_bytes, uint32_t cr3, uint32_t cr4,
                           uint32_t virt);

/*
 * 5.6 The vCPU's part of its VM's RAM, by how many guests share it: all of it for one guest,
 * SLOT_BYTES at vcpu->index * SLOT_BYTES for each of several. 0, or STATUS_USAGE: RAM ends before
 * this part does.
 */
int space_open(struct vcpu *vcpu, struct address_space *space);

/*
 * 5.4 Writes descriptors, directory and the pages of --map, and puts the vCPU into its start state
 * with `ebx` in EBX. 0, STATUS_NO_KVM, or STATUS_USAGE: a page that can't be mapped.
 */
int paging_enter(struct vcpu *vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
                 uint32_t ebx);

/* Loads a flat image at --load and enters it; provided. 0 or a status. */
int paging_prepare(struct vcpu *vcpu);

/* vcpu_translate for a guest with paging on; provided. Prints the walk to `out`, unless NULL. */
bool paging_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out);
