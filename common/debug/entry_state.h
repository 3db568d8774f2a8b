/*
 * entry_state.h - the checks of a guest's state that Intel processors make at each VM entry, as a
 * function of KVM's registers. The checks are those of SDM vol. 3, 27.3.1 "Checks on the Guest
 * State Area". AMD processors check far less, so a state may work there and be rejected on the next
 * machine.
 *
 * It covers 32-bit and 64-bit guests, with the older processors' rules (no "unrestricted guest")
 * where these are stricter: real mode then runs as virtual-8086 mode, and must look like it.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "vmm.h"

/* VME to PCIDE and SMEP, SMAP, PKE, which a current processor may have; not VMXE and SMXE. */
#define ENTRY_CR4_KNOWN 0x007f1fffu
#define ENTRY_RFLAGS_0  0xffffffffffc08028ull /* reserved bits that are 0 */

/* A vCPU as after reset: SDM vol. 3, table 10-1. */
static inline struct kvm_sregs entry_reset_state(void)
{
    const struct kvm_segment data = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
    struct kvm_sregs sregs;

    memset(&sregs, 0, sizeof sregs);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.base = RESET_CS_BASE;
    sregs.cs.selector = RESET_CS_SELECTOR;
    sregs.cs.type = 11;
    sregs.tr = (struct kvm_segment){.limit = 0xffff, .type = 11, .present = 1};
    sregs.ldt = (struct kvm_segment){.limit = 0xffff, .type = 2, .present = 1};
    sregs.gdt.limit = sregs.idt.limit = 0xffff;
    sregs.cr0 = RESET_CR0;
    return sregs;
}

static char entry_text[160];

#define ENTRY_REFUSE(...)                                                                          \
    return snprintf(entry_text, sizeof entry_text, __VA_ARGS__), (const char *)entry_text

static inline bool entry_in_long_mode(const struct kvm_sregs *sregs)
{
    return sregs->efer & EFER_LMA;
}

static inline bool entry_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* Bases that have 64 bits in long mode: those of FS, GS, TR, LDTR, GDTR and IDTR. */
static inline const char *entry_base_fault(const char *name, uint64_t base, bool long_mode)
{
    if (!long_mode && base >> 32 != 0)
        ENTRY_REFUSE("%s: base 0x%llx has more than 32 bits", name, (unsigned long long)base);
    if (!entry_canonical(base))
        ENTRY_REFUSE("%s: base 0x%llx is not canonical", name, (unsigned long long)base);
    return NULL;
}

/* What every usable segment must hold: 27.3.1.2 "Checks on Guest Segment Registers". */
static inline const char *entry_segment_fault(const char *name, const struct kvm_segment *segment,
                                              bool code_data)
{
    if (segment->s != code_data)
        ENTRY_REFUSE("%s: S is %u", name, segment->s);
    if (!segment->present)
        ENTRY_REFUSE("%s: P is 0, not present", name);
    if (segment->g && (segment->limit & 0xfff) != 0xfff)
        ENTRY_REFUSE("%s: G is 1 and limit 0x%x does not end in fff", name, segment->limit);
    if (!segment->g && segment->limit >> 20 != 0)
        ENTRY_REFUSE("%s: G is 0 and limit 0x%x is over 1 MB", name, segment->limit);
    return NULL;
}

static inline const char *entry_data_fault(const char *name, const struct kvm_segment *segment,
                                           bool long_base)
{
    const char *fault = entry_base_fault(name, segment->base, long_base);

    if (fault && !(segment->unusable && !long_base))
        return fault;
    if (segment->unusable)
        return NULL;
    if (!(segment->type & 1))
        ENTRY_REFUSE("%s: type %u is not accessed (bit 0)", name, segment->type);
    if ((segment->type & 8) && !(segment->type & 2))
        ENTRY_REFUSE("%s: type %u is code that can't be read", name, segment->type);
    if (segment->type < 12 && segment->dpl < (segment->selector & 3))
        ENTRY_REFUSE("%s: DPL %u is below the selector's RPL", name, segment->dpl);
    return entry_segment_fault(name, segment, true);
}

/* Real mode on a processor without "unrestricted guest": KVM runs it as virtual-8086 mode. */
static inline const char *entry_real_mode_fault(const char *name, const struct kvm_segment *segment)
{
    if (segment->base != (uint64_t)segment->selector << 4)
        ENTRY_REFUSE("%s: base 0x%llx is not selector 0x%x << 4", name, segment->base,
                     segment->selector);
    if (segment->limit != 0xffff)
        ENTRY_REFUSE("%s: limit 0x%x is not 0xffff", name, segment->limit);
    return NULL;
}

static inline const char *entry_segments_fault(const struct kvm_sregs *sregs)
{
    const struct kvm_segment *const data[] = {&sregs->ds, &sregs->es, &sregs->fs, &sregs->gs};
    static const char *const names[] = {"DS", "ES", "FS", "GS"};
    const struct kvm_segment *cs = &sregs->cs, *ss = &sregs->ss;
    const bool long_mode = entry_in_long_mode(sregs);
    const char *fault = NULL;

    if (!(sregs->cr0 & CR0_PE)) {
        fault = entry_real_mode_fault("CS", cs);
        fault = fault ? fault : entry_real_mode_fault("SS", ss);
        for (int i = 0; i < 4 && !fault; i++)
            fault = entry_real_mode_fault(names[i], data[i]);
        return fault;
    }
    if (cs->unusable || !(cs->type & 8) || !(cs->type & 1))
        ENTRY_REFUSE("CS: type %u is not accessed code (9, 11, 13 or 15)", cs->type);
    if (cs->type < 12 ? cs->dpl != ss->dpl : cs->dpl > ss->dpl)
        ENTRY_REFUSE("CS: DPL %u does not go with DPL %u of SS", cs->dpl, ss->dpl);
    if (cs->l && !long_mode)
        ENTRY_REFUSE("CS: L is 1 outside of long mode");
    if (cs->l && cs->db)
        ENTRY_REFUSE("CS: D/B is 1 where L is 1");
    fault = entry_base_fault("CS", cs->base, false);
    fault = fault ? fault : entry_segment_fault("CS", cs, true);
    if (fault)
        return fault;
    if ((ss->selector & 3) != (cs->selector & 3))
        ENTRY_REFUSE("SS: RPL is not that of CS");
    if (!ss->unusable) {
        if (ss->type != 3 && ss->type != 7)
            ENTRY_REFUSE("SS: type %u is not writable, accessed data (3 or 7)", ss->type);
        if (ss->dpl != (ss->selector & 3))
            ENTRY_REFUSE("SS: DPL %u is not the selector's RPL", ss->dpl);
        fault = entry_base_fault("SS", ss->base, false);
        fault = fault ? fault : entry_segment_fault("SS", ss, true);
    }
    for (int i = 0; i < 4 && !fault; i++)
        fault = entry_data_fault(names[i], data[i], long_mode && i >= 2);
    return fault;
}

/* 27.3.1.2, of TR and LDTR; 27.3.1.3 "Checks on Guest Descriptor-Table Registers". */
static inline const char *entry_tables_fault(const struct kvm_sregs *sregs)
{
    const struct kvm_segment *tr = &sregs->tr, *ldt = &sregs->ldt;
    const bool long_mode = entry_in_long_mode(sregs);
    const char *fault;

    if (tr->unusable)
        ENTRY_REFUSE("TR: marked unusable, but it must always be usable");
    if (tr->selector & 4)
        ENTRY_REFUSE("TR: selector 0x%x is one of the LDT", tr->selector);
    if (tr->type != 11 && (long_mode || tr->type != 3))
        ENTRY_REFUSE("TR: type %u is not a busy TSS (11)", tr->type);
    fault = entry_base_fault("TR", tr->base, long_mode);
    fault = fault ? fault : entry_segment_fault("TR", tr, false);
    if (fault)
        return fault;
    if (!ldt->unusable) {
        if (ldt->selector & 4)
            ENTRY_REFUSE("LDTR: selector 0x%x is one of the LDT", ldt->selector);
        if (ldt->type != 2)
            ENTRY_REFUSE("LDTR: type %u is not an LDT (2); or mark it unusable", ldt->type);
        fault = entry_base_fault("LDTR", ldt->base, long_mode);
        fault = fault ? fault : entry_segment_fault("LDTR", ldt, false);
        if (fault)
            return fault;
    }
    fault = entry_base_fault("GDTR", sregs->gdt.base, long_mode);
    return fault ? fault : entry_base_fault("IDTR", sregs->idt.base, long_mode);
    /* limits have 16 bits in struct kvm_dtable */
}

/* 27.3.1.1 "Checks on Guest Control Registers, Debug Registers, and MSRs". */
static inline const char *entry_control_fault(const struct kvm_sregs *sregs)
{
    if (sregs->cr0 >> 32 != 0)
        ENTRY_REFUSE("CR0 0x%llx has more than 32 bits", sregs->cr0);
    if ((sregs->cr0 & CR0_PG) && !(sregs->cr0 & CR0_PE))
        ENTRY_REFUSE("CR0.PG is 1 without CR0.PE");
    if ((sregs->cr0 & CR0_NW) && !(sregs->cr0 & CR0_CD))
        ENTRY_REFUSE("CR0.NW is 1 without CR0.CD");
    if (sregs->cr4 & ~(uint64_t)ENTRY_CR4_KNOWN)
        ENTRY_REFUSE("CR4 0x%llx has reserved bits", sregs->cr4);
    if (sregs->cr3 >> 32 != 0)
        ENTRY_REFUSE("CR3 0x%llx is beyond 4 GB", sregs->cr3);
    if (!!(sregs->efer & EFER_LMA) != ((sregs->efer & EFER_LME) && (sregs->cr0 & CR0_PG)))
        ENTRY_REFUSE("EFER.LMA does not go with EFER.LME and CR0.PG");
    if ((sregs->efer & EFER_LMA) && !(sregs->cr4 & CR4_PAE))
        ENTRY_REFUSE("EFER.LMA is 1 without CR4.PAE");
    if (sregs->efer & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
        ENTRY_REFUSE("EFER 0x%llx has reserved bits", sregs->efer);
    return NULL;
}

/* Why a VM entry would reject this state, as text; NULL: it would accept it. */
static inline const char *entry_state_fault(const struct kvm_sregs *sregs,
                                            const struct kvm_regs *regs)
{
    const char *fault = entry_control_fault(sregs);

    if (!fault)
        fault = entry_segments_fault(sregs);
    if (!fault)
        fault = entry_tables_fault(sregs);
    if (fault)
        return fault;
    /* 27.3.1.4 "Checks on Guest RIP, RFLAGS, and SSP". */
    if (!(entry_in_long_mode(sregs) && sregs->cs.l) && regs->rip >> 32 != 0)
        ENTRY_REFUSE("RIP 0x%llx has more than 32 bits", regs->rip);
    if (!entry_canonical(regs->rip))
        ENTRY_REFUSE("RIP 0x%llx is not canonical", regs->rip);
    if (!(regs->rflags & FLAGS_ALWAYS_ONE))
        ENTRY_REFUSE("RFLAGS 0x%llx: bit 1 is always 1", regs->rflags);
    if (regs->rflags & ENTRY_RFLAGS_0)
        ENTRY_REFUSE("RFLAGS 0x%llx has reserved bits", regs->rflags);
    if ((regs->rflags & FLAGS_VM) && (!(sregs->cr0 & CR0_PE) || entry_in_long_mode(sregs)))
        ENTRY_REFUSE("RFLAGS.VM is 1 in %s mode", sregs->cr0 & CR0_PE ? "long" : "real");
    return NULL;
}
