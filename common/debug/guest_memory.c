/*
 * guest_memory.c - a guest's memory by linear address, and where its handlers are. It asks KVM for
 * each translation, because the learner's page walk may be unwritten (api.rst 4.15 KVM_TRANSLATE).
 */
#include <string.h>
#include <sys/ioctl.h>

#include "debug/debug.h"

#define GATE_PRESENT 0x8000 /* in a gate's second word */

bool linear_translate(const struct vcpu *vcpu, uint64_t linear, uint64_t *phys)
{
    struct kvm_translation translation = {.linear_address = linear};

    /* KVM's walk ignores bits 48 to 63; in a canonical address they equal bit 47. */
    if ((uint64_t)((int64_t)(linear << 16) >> 16) != linear)
        return false;
    if (ioctl(vcpu->fd, KVM_TRANSLATE, &translation) < 0 || !translation.valid ||
        translation.physical_address >= vcpu->vm->ram_bytes)
        return false;
    *phys = translation.physical_address;
    return true;
}

/* Copies between `bytes` and the guest, page by page. */
static bool linear_copy(const struct vcpu *vcpu, uint64_t linear, uint8_t *bytes, size_t count,
                        bool write)
{
    const struct vm *vm = vcpu->vm;
    uint64_t phys;

    for (size_t done = 0, part; done < count; done += part) {
        part = PAGE_BYTES - (linear + done) % PAGE_BYTES;
        part = part < count - done ? part : count - done;
        if (!linear_translate(vcpu, linear + done, &phys) || part > vm->ram_bytes - phys)
            return false;
        memcpy(write ? vm->ram + phys : bytes + done, write ? bytes + done : vm->ram + phys, part);
    }
    return true;
}

bool linear_read(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count)
{
    return linear_copy(vcpu, linear, bytes, count, false);
}

bool linear_write(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count)
{
    return linear_copy(vcpu, linear, bytes, count, true);
}

bool handler_find(const struct vcpu *vcpu, const struct kvm_sregs *sregs, unsigned vector,
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
