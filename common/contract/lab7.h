/*
 * lab7.h - what long_mode.c of lab 7 provides: 64-bit guests, with four-level paging and a CPUID of
 * their own. Each of these functions may run on the threads of several vCPUs at a time.
 */
#pragma once

#include "boot_info.h"
#include "lab6.h"

/*
 * 7.1 Maps one page of 4 KB, or with flags 0 unmaps it. virt and phys are multiples of PAGE_BYTES,
 * virt is canonical, phys an offset into the space; flags are 0, or PAGE_PRESENT with any of
 * PAGE_WRITABLE, PAGE_USER, PAGE_NX. The PML4 is at DIRECTORY_OFFSET, other tables are taken from
 * space->next_table on. A 2 MB page that maps `virt` is split into a table first. Every other
 * page keeps its mapping and its rights, which are those three. 0; ENOMEM, with no mapping changed:
 * no table left; EINVAL, with nothing changed: an address that is not such a page, even with flags
 * 0. Where nothing is mapped, flags 0 may take tables or do without.
 */
int long_page_map(struct address_space *space, uint64_t virt, uint32_t phys, uint64_t flags);

/*
 * 7.1 Writes the tables: all of the space, including a last part of less than 2 MB, at 0 and at
 * HIGHER_HALF_64 in 2 MB pages, writable and for ring 0; every other address is not mapped. Tables
 * are taken as for long_page_map; those below space->next_table are in use already.
 */
void long_tables_build(struct address_space *space);

/*
 * 7.2 Writes the GDT at GDT_OFFSET: null, 64-bit kernel code, kernel data, and four zeros. D/B of
 * data may be 0 or 1, here and in 7.3: 64-bit code ignores it.
 */
void long_gdt_build(struct address_space *space);

/*
 * 7.2 Start state: long mode, NX and SSE enabled, no local APIC, execution at `entry`, stack below
 * `stack`, no IDT, the other general registers 0. `sregs` comes in as KVM returned it, whatever
 * that is. The GDT is that in memory, which is only read; TR is not changed.
 */
void long_mode_state(const struct address_space *space, uint64_t entry, uint64_t stack,
                     struct kvm_sregs *sregs, struct kvm_regs *regs);

/*
 * 7.3 What a guest needs for ring 3: writes user data, user code and the TSS descriptor into the
 * GDT in memory, whatever their entries hold, clears the TSS at TSS_OFFSET, and in `sregs`, which
 * may be any state, loads TR, as that descriptor says, and enables SYSCALL. Nothing else changes.
 */
void long_rings_add(struct address_space *space, struct kvm_sregs *sregs);

/*
 * 7.4 Changes the table that KVM supports, of which at most `entries_max` entries have room, into
 * what the guest is shown: a hypervisor with its signature at CPUID_SIGNATURE and no other
 * hypervisor leaf; the APIC id of this vCPU; no local APIC, and nothing of leaf 1 that needs one.
 * Every other bit stays. false: no room for the signature.
 */
bool cpuid_show(struct kvm_cpuid2 *cpuid, uint32_t entries_max, uint32_t apic_id);

/*
 * 7.4 Gives the vCPU that table, with vcpu->index as the APIC id; keeps no memory allocated. 0 or
 * STATUS_NO_KVM.
 */
int vcpu_show_cpuid(struct vcpu *vcpu);

/*
 * 7.5 elf_load for an ELF64 file, x86-64: a virtual address is the physical one, or HIGHER_HALF_64
 * above it. Segments come in ascending order of their physical addresses. Sets the entry point
 * (virtual). NULL, or what is wrong in words.
 */
const char *elf64_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                       uint64_t *entry);

/*
 * 7.5 Writes the boot information (without an archive), GDT, TSS and tables, shows the vCPU its
 * CPUID and puts it into its start state, with the boot information's address as the guest sees it
 * in RDI: BOOT_INFO_OFFSET, whatever space->base is. 0 or STATUS_NO_KVM.
 */
int long_mode_enter(struct vcpu *vcpu, struct address_space *space, uint64_t entry);

/* What a walk of four levels found: SDM vol. 3, 4.5. */
struct long_walk {
    bool mapped;
    uint64_t phys;                   /* guest-physical, if mapped */
    unsigned levels;                 /* entries that were read: 0 to 4 */
    uint64_t entries[4];             /* as read, mapped or not: PML4, PDPT, PD, page table */
    bool writable, user, executable; /* the rights of all levels together, if mapped */
    const char *reason;              /* if not mapped: why, in words */
};

/*
 * 7.6 Translates as the processor would, from CR3 and EFER alone, with pages of 4 KB, 2 MB and 1
 * GB. Not mapped: tables outside of RAM, reserved bits, addresses that are not canonical.
 */
struct long_walk long_walk(const uint8_t *ram, size_t ram_bytes, uint64_t cr3, uint64_t efer,
                           uint64_t virt);

/*
 * 7.6 The handler of KVM_EXIT_IO: HC_WRITE of a 64-bit guest, RCX bytes at RSI; all else is
 * hypercall_io's.
 */
enum step long_mode_io(struct vcpu *vcpu);
