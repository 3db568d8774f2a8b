/*
 * handler_traps.c - stops a guest that is single-stepped at the handlers of exceptions and
 * interrupts. The processor stops single-stepping when it delivers one. So the first byte of each
 * handler is HLT meanwhile, which leads to an exit there.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "debug/replay.h"
#include "given.h"

#define GATE_PRESENT 0x8000 /* in a gate's second word */

static struct trap traps[VECTOR_COUNT];
static size_t trap_count;
static bool traps_are_set; /* even if there is no handler */

/* What the traps were set for: the guest may change its handlers. */
static struct kvm_sregs trapped;
static uint8_t trapped_table[VECTOR_COUNT * 16];

/* KVM's own walk, because the learner's may be unwritten: api.rst 4.24 KVM_TRANSLATE. */
bool translate(const struct vcpu *vcpu, uint64_t linear, uint64_t *phys)
{
    struct kvm_translation translation = {.linear_address = linear};

    if (ioctl(vcpu->fd, KVM_TRANSLATE, &translation) < 0 || !translation.valid ||
        translation.physical_address >= vcpu->vm->ram_bytes)
        return false;
    *phys = translation.physical_address;
    return true;
}

/* Copies bytes at a linear address; false: they are not all in RAM. */
static bool linear_read(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count)
{
    const struct vm *vm = vcpu->vm;
    uint64_t phys;

    for (size_t done = 0, part; done < count; done += part) {
        part = PAGE_BYTES - (linear + done) % PAGE_BYTES;
        part = part < count - done ? part : count - done;
        if (!translate(vcpu, linear + done, &phys) || part > vm->ram_bytes - phys)
            return false;
        memcpy((uint8_t *)bytes + done, vm->ram + phys, part);
    }
    return true;
}

/* The linear address of a vector's handler; false: the vector has none. */
static bool handler_find(const struct vcpu *vcpu, const struct kvm_sregs *sregs, unsigned vector,
                         uint64_t *linear)
{
    uint16_t real[2];
    uint32_t gate[2], code[2]; /* SDM vol. 3, 6.11 "IDT Descriptors", 3.4.5 "Segment Descriptors" */
    uint32_t wide[4];          /* 6.14.1 "64-Bit Mode IDT" */

    if (!(sregs->cr0 & CR0_PE)) {
        if ((vector + 1) * sizeof real > sregs->idt.limit + 1u ||
            !linear_read(vcpu, sregs->idt.base + vector * sizeof real, real, sizeof real))
            return false;
        *linear = ((uint64_t)real[1] << 4) + real[0];
        return true;
    }
    if (sregs->efer & EFER_LMA) {
        if ((vector + 1) * sizeof wide > sregs->idt.limit + 1u ||
            !linear_read(vcpu, sregs->idt.base + vector * sizeof wide, wide, sizeof wide) ||
            !(wide[1] & GATE_PRESENT))
            return false;
        *linear = (uint64_t)wide[2] << 32 | (wide[1] & 0xffff0000) | (wide[0] & 0xffff);
        return true;
    }
    if ((vector + 1) * sizeof gate > sregs->idt.limit + 1u ||
        !linear_read(vcpu, sregs->idt.base + vector * sizeof gate, gate, sizeof gate) ||
        !(gate[1] & GATE_PRESENT) ||
        !linear_read(vcpu, sregs->gdt.base + (gate[0] >> 16 & ~7u), code, sizeof code))
        return false;
    *linear = (uint32_t)((code[0] >> 16 | (code[1] & 0xff) << 16 | (code[1] & 0xff000000)) +
                         ((gate[0] & 0xffff) | (gate[1] & 0xffff0000)));
    return true;
}

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
        if (!handler_find(vcpu, sregs, vector, &linear) || !translate(vcpu, linear, &phys) ||
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
