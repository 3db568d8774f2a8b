/*
 * kernel_state.c - the part of a post-mortem about a guest with a kernel: the functions that were
 * active when it crashed, and the stack that the processor uses when it leaves ring 3.
 */
#include <inttypes.h>
#include <string.h>

#include "debug/debug.h"
#include "given.h"

#define CALLERS_MAX 12
#define TSS_ESP0    4 /* SDM vol. 3, 8.2.1 "Task-State Segment (TSS)" */
#define TSS_SS0     8
#define TSS_RSP0    4 /* in long mode: 8.7 "Task Management in 64-bit Mode" */

/* The 4 bytes at a linear address; false: they are not in RAM. Reads no further than their page. */
static bool word_read(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear,
                      uint32_t *word)
{
    const struct vm *vm = vcpu->vm;
    uint64_t phys;

    if (linear % PAGE_BYTES > PAGE_BYTES - sizeof *word ||
        !registers_translate(vcpu, sregs, linear, &phys, NULL) || vm->ram_bytes < sizeof *word ||
        phys > vm->ram_bytes - sizeof *word)
        return false;
    memcpy(word, vm->ram + phys, sizeof *word);
    return true;
}

/* The function at EIP and those that called it, along EBP: [EBP] the caller's, [EBP + 4] where to.
 */
static void functions_print(struct vcpu *vcpu, const struct kvm_regs *regs,
                            const struct kvm_sregs *sregs)
{
    uint32_t address = (uint32_t)(sregs->cs.base + regs->rip), frame = (uint32_t)regs->rbp, next;
    char name[96];

    for (int i = 0; i < CALLERS_MAX && symbol_find(vcpu->guest, address, name, sizeof name); i++) {
        fprintf(stderr, "  %s 0x%08" PRIx32 " %s\n", i == 0 ? "in" : "called from", address, name);
        if (!word_read(vcpu, sregs, frame, &next) || !word_read(vcpu, sregs, frame + 4, &address))
            break;
        frame = next > frame ? next : 0; /* callers are higher up; anything else is damage */
    }
}

/* The stack for traps out of ring 3. A guest without a TSS, or with zeros in it, has no ring 3. */
static void trap_stack_print(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    uint32_t base = (uint32_t)sregs->tr.base, esp0, ss0;
    uint64_t phys;

    if (sregs->tr.selector == 0 || !word_read(vcpu, sregs, base + TSS_ESP0, &esp0) ||
        !word_read(vcpu, sregs, base + TSS_SS0, &ss0) ||
        (esp0 == 0 && ss0 == 0 && sregs->ss.dpl == 0))
        return;
    fprintf(stderr,
            "  stack for traps out of ring 3: TSS.esp0 %08" PRIx32 ", TSS.ss0 %04" PRIx32 "\n",
            esp0, ss0 & 0xffff);
    registers_translate(vcpu, sregs, esp0 - (uint32_t)sizeof esp0, &phys, stderr);
}

/* The same in long mode, where a guest without ring 3 has 0 there. */
static void long_trap_stack_print(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    const uint64_t at = sregs->tr.base + TSS_RSP0;
    uint32_t low, high;
    uint64_t phys;

    if (!word_read(vcpu, sregs, at, &low) || !word_read(vcpu, sregs, at + sizeof low, &high) ||
        ((low | high) == 0 && sregs->ss.dpl == 0))
        return;
    const uint64_t rsp0 = (uint64_t)high << 32 | low;
    fprintf(stderr, "  stack for traps out of ring 3: TSS.rsp0 %016" PRIx64 "\n", rsp0);
    registers_translate(vcpu, sregs, rsp0 - sizeof rsp0, &phys, stderr);
}

void kernel_state_print(struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs)
{
    enum cpu_mode mode = cpu_mode(sregs);

    if (mode == MODE_LONG)
        long_trap_stack_print(vcpu, sregs);
    if (mode != MODE_PROTECTED && mode != MODE_PAGING)
        return;
    functions_print(vcpu, regs, sregs);
    trap_stack_print(vcpu, sregs);
}
