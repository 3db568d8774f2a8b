/*
 * registers.c - a vCPU's registers decoded: its mode, their values in text, addresses translated.
 */
#include <sys/ioctl.h>

#include "debug/debug.h"
#include "given.h"

#define TSS_BUSY 2 /* in a TSS descriptor's type */

enum cpu_mode cpu_mode(const struct kvm_sregs *sregs)
{
    if (!(sregs->cr0 & CR0_PE))
        return MODE_REAL;
    if (sregs->efer & EFER_LMA)
        return MODE_LONG;
    if (!(sregs->cr0 & CR0_PG))
        return MODE_PROTECTED;
    return sregs->cr4 & CR4_PAE ? MODE_PAE : MODE_PAGING;
}

bool is_long_code(const struct kvm_sregs *sregs)
{
    return cpu_mode(sregs) == MODE_LONG && sregs->cs.l;
}

const char *cpu_mode_name(const struct kvm_sregs *sregs)
{
    static const char *const names[] = {
        [MODE_REAL] = "real mode",
        [MODE_PROTECTED] = "protected mode without paging",
        [MODE_PAGING] = "protected mode with 32-bit paging",
        [MODE_PAE] = "protected mode with PAE paging",
        [MODE_LONG] = "long mode",
    };
    const enum cpu_mode mode = cpu_mode(sregs);

    return mode == MODE_LONG && !is_long_code(sregs) ? "long mode, 16- or 32-bit code (CS.L is 0)"
                                                     : names[mode];
}

uint64_t instruction_address(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    return is_long_code(sregs) ? regs->rip : (uint32_t)(sregs->cs.base + regs->rip);
}

uint64_t stack_address(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    return is_long_code(sregs) ? regs->rsp : (uint32_t)(sregs->ss.base + regs->rsp);
}

static void segment_print(int id, const char *name, const struct kvm_segment *segment)
{
    fprintf(stderr,
            "vcpu%d: %s=%04x base=%08llx limit=%08x type=%02u s=%u dpl=%u p=%u db=%u g=%u%s%s\n",
            id, name, segment->selector, segment->base, segment->limit, segment->type, segment->s,
            segment->dpl, segment->present, segment->db, segment->g, segment->l ? " l=1" : "",
            segment->unusable ? " unusable" : "");
}

void registers_print(int id, const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    fprintf(stderr, "vcpu%d: rax=%016llx rbx=%016llx rcx=%016llx rdx=%016llx\n", id, regs->rax,
            regs->rbx, regs->rcx, regs->rdx);
    fprintf(stderr, "vcpu%d: rsi=%016llx rdi=%016llx rbp=%016llx rsp=%016llx\n", id, regs->rsi,
            regs->rdi, regs->rbp, regs->rsp);
    if (cpu_mode(sregs) == MODE_LONG) {
        fprintf(stderr, "vcpu%d: r8=%016llx r9=%016llx r10=%016llx r11=%016llx\n", id, regs->r8,
                regs->r9, regs->r10, regs->r11);
        fprintf(stderr, "vcpu%d: r12=%016llx r13=%016llx r14=%016llx r15=%016llx\n", id, regs->r12,
                regs->r13, regs->r14, regs->r15);
    }
    fprintf(stderr, "vcpu%d: rip=%016llx rflags=%016llx\n", id, regs->rip, regs->rflags);
    segment_print(id, "cs", &sregs->cs);
    segment_print(id, "ds", &sregs->ds);
    segment_print(id, "es", &sregs->es);
    segment_print(id, "fs", &sregs->fs);
    segment_print(id, "gs", &sregs->gs);
    segment_print(id, "ss", &sregs->ss);
    segment_print(id, "tr", &sregs->tr);
    fprintf(stderr,
            "vcpu%d: cr0=%08llx cr2=%08llx cr3=%08llx cr4=%08llx efer=%08llx gdt=%08llx+%x "
            "idt=%08llx+%x\n",
            id, sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4, sregs->efer, sregs->gdt.base,
            sregs->gdt.limit, sregs->idt.base, sregs->idt.limit);
}

bool sregs_restore(const struct vcpu *vcpu, const struct kvm_sregs *read)
{
    struct kvm_sregs sregs = *read;

    /* On AMD's processors KVM reports each TSS as busy. QEMU's stops for one that was not loaded by
     * ltr. */
    if (__builtin_cpu_is("amd"))
        sregs.tr.type &= (uint8_t)~TSS_BUSY;
    return ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) == 0;
}

bool registers_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear,
                         uint64_t *phys, FILE *out)
{
    *phys = linear;
    switch (cpu_mode(sregs)) {
    case MODE_REAL:
    case MODE_PROTECTED:
        return true;
    case MODE_PAGING:
        return stage.translate && stage.translate(vcpu, sregs, (uint32_t)linear, phys, out);
    case MODE_LONG:
        return stage.translate_long && stage.translate_long(vcpu, sregs, linear, phys, out);
    default:
        return false; /* no guest of the labs uses this mode */
    }
}

bool vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out)
{
    struct kvm_sregs sregs;

    /* Where KVM hands registers over with an exit, its handler needs no system call for them. */
    if (vcpu->exit.reason != EXIT_NONE && vcpu->run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
        return registers_translate(vcpu, &vcpu->run->s.regs.sregs, linear, phys, out);
    return ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0 &&
           registers_translate(vcpu, &sregs, linear, phys, out);
}
