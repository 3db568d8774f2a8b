/*
 * handler_traps.c - stops a guest that is single-stepped at the handlers of exceptions and
 * interrupts. The processor stops single-stepping when it delivers one. So the first byte of each
 * handler is HLT meanwhile, which leads to an exit there.
 */
#include <string.h>

#include "debug/replay.h"
#include "given.h"

static struct trap traps[VECTOR_COUNT];
static size_t trap_count;
static bool traps_are_set; /* even if there is no handler */

/* What the traps were set for: the guest may change its handlers. */
static struct kvm_sregs trapped;
static uint8_t trapped_table[VECTOR_COUNT * 16];

void traps_remove(struct vm *vm)
{
    traps_are_set = false;
    while (trap_count > 0) {
        trap_count--;
        vm->ram[traps[trap_count].phys] = traps[trap_count].byte;
    }
}

static void traps_set(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    struct vm *vm = vcpu->vm;
    uint64_t linear, phys;

    for (unsigned vector = 0; vector < VECTOR_COUNT; vector++) {
        if (!handler_find(vcpu, sregs, vector, &linear) || !linear_translate(vcpu, linear, &phys) ||
            vm->ram[phys] == OPCODE_HLT)
            continue;
        traps[trap_count++] = (struct trap){phys, vm->ram[phys]};
        vm->ram[phys] = OPCODE_HLT;
    }
}

/* Sets the traps again if the guest has changed its handlers. */
void traps_update(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    uint8_t now[sizeof trapped_table] = {0};
    size_t count = sregs->idt.limit + 1u < sizeof now ? sregs->idt.limit + 1u : sizeof now;

    linear_read(vcpu, sregs->idt.base, now, count);
    if (traps_are_set && memcmp(now, trapped_table, sizeof now) == 0 &&
        sregs->idt.base == trapped.idt.base && sregs->idt.limit == trapped.idt.limit &&
        sregs->gdt.base == trapped.gdt.base && sregs->cr3 == trapped.cr3 &&
        sregs->cr0 == trapped.cr0)
        return;
    traps_remove(vcpu->vm);
    traps_set(vcpu, sregs);
    memcpy(trapped_table, now, sizeof now);
    trapped = *sregs;
    traps_are_set = true;
}

struct trap *trap_at(uint64_t phys)
{
    for (size_t i = 0; i < trap_count; i++)
        if (traps[i].phys == phys)
            return &traps[i];
    return NULL;
}
