/* post_mortem.c - a vCPU's registers in words, and what there is to say when its guest has died. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

#define CR0_PE   0x00000001u
#define CR0_PG   0x80000000u
#define CR4_PAE  0x00000020u
#define EFER_LMA 0x00000400u

#define CODE_BYTES 16

/* Where the processor is after reset, and so on AMD after KVM_EXIT_SHUTDOWN: SDM vol. 3, 10.1. */
#define RESET_CS_BASE 0xffff0000u
#define RESET_RIP     0xfff0u

enum mode { MODE_REAL, MODE_PROTECTED, MODE_PAGING, MODE_PAE, MODE_LONG };

static const char *const mode_names[] = {
    [MODE_REAL] = "real mode",
    [MODE_PROTECTED] = "protected mode without paging",
    [MODE_PAGING] = "protected mode with 32-bit paging",
    [MODE_PAE] = "protected mode with PAE paging",
    [MODE_LONG] = "long mode",
};

static enum mode mode_of(const struct kvm_sregs *sregs)
{
    if (!(sregs->cr0 & CR0_PE))
        return MODE_REAL;
    if (sregs->efer & EFER_LMA)
        return MODE_LONG;
    if (!(sregs->cr0 & CR0_PG))
        return MODE_PROTECTED;
    return sregs->cr4 & CR4_PAE ? MODE_PAE : MODE_PAGING;
}

const char *vcpu_mode(const struct kvm_sregs *sregs)
{
    return mode_names[mode_of(sregs)];
}

/* The usual causes of a death, most special first; the first line that fits is printed. */
static const struct {
    uint32_t reason;
    bool interrupted; /* only if an interrupt was injected before */
    bool real_mode;   /* only in real mode */
    const char *text;
} causes[] = {
    {KVM_EXIT_SHUTDOWN, true, false,
     "an interrupt came and the guest has no handler for it: no IDT was loaded (lidt), its limit "
     "is "
     "too small, or its entry leads nowhere"},
    {KVM_EXIT_SHUTDOWN, false, true,
     "an exception and no handler for it: an invalid instruction, a jump into data, or an access "
     "over the end of a segment"},
    {KVM_EXIT_SHUTDOWN, false, false,
     "an exception, and its handler could not be reached (a triple fault): a page that is not "
     "mapped, a bad descriptor or IDT, a stack that is not there"},
    {KVM_EXIT_FAIL_ENTRY, false, false,
     "a start state that the processor refuses: a wrong type, limit, S or P in a segment register, "
     "or a TR that is no busy TSS"},
    {KVM_EXIT_INTERNAL_ERROR, false, false,
     "KVM met an instruction it can't emulate: execution ran into data or out of RAM, or a "
     "register of the start state is wrong"},
    {KVM_EXIT_MMIO, false, false,
     "an address outside of RAM: a wrong segment or pointer, or too little --mem"},
};

static void print_causes(const struct vcpu *vcpu, enum mode mode)
{
    for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
        if (causes[i].reason != vcpu->exit.reason || (causes[i].interrupted && !vcpu->interrupts) ||
            (causes[i].real_mode && mode != MODE_REAL))
            continue;
        fprintf(stderr, "  usual cause: %s\n", causes[i].text);
        return;
    }
}

static void print_segment(int id, const char *name, const struct kvm_segment *segment)
{
    fprintf(stderr,
            "vcpu%d: %s=%04x base=%08llx limit=%08x type=%02u s=%u dpl=%u p=%u db=%u g=%u%s\n", id,
            name, segment->selector, segment->base, segment->limit, segment->type, segment->s,
            segment->dpl, segment->present, segment->db, segment->g,
            segment->unusable ? " unusable" : "");
}

static void print_registers(int id, const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    fprintf(stderr, "vcpu%d: rax=%016llx rbx=%016llx rcx=%016llx rdx=%016llx\n", id, regs->rax,
            regs->rbx, regs->rcx, regs->rdx);
    fprintf(stderr, "vcpu%d: rsi=%016llx rdi=%016llx rbp=%016llx rsp=%016llx\n", id, regs->rsi,
            regs->rdi, regs->rbp, regs->rsp);
    fprintf(stderr, "vcpu%d: rip=%016llx rflags=%016llx\n", id, regs->rip, regs->rflags);
    print_segment(id, "cs", &sregs->cs);
    print_segment(id, "ds", &sregs->ds);
    print_segment(id, "es", &sregs->es);
    print_segment(id, "fs", &sregs->fs);
    print_segment(id, "gs", &sregs->gs);
    print_segment(id, "ss", &sregs->ss);
    print_segment(id, "tr", &sregs->tr);
    fprintf(stderr,
            "vcpu%d: cr0=%08llx cr2=%08llx cr3=%08llx cr4=%08llx efer=%08llx gdt=%08llx+%x "
            "idt=%08llx+%x\n",
            id, sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4, sregs->efer, sregs->gdt.base,
            sregs->gdt.limit, sregs->idt.base, sregs->idt.limit);
}

static bool translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out)
{
    *phys = linear;
    switch (mode_of(sregs)) {
    case MODE_REAL:
    case MODE_PROTECTED:
        return true;
    case MODE_PAGING:
        return stage.translate && stage.translate(vcpu, sregs, linear, phys, out);
    default:
        return false; /* no lab brings a guest there */
    }
}

bool vcpu_translate(struct vcpu *vcpu, uint32_t linear, uint64_t *phys, FILE *out)
{
    struct kvm_sregs sregs;

    return ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0 &&
           translate(vcpu, &sregs, linear, phys, out);
}

/* The bytes at the instruction pointer, and with paging the page walk that leads to them. */
static void print_code(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear)
{
    const struct vm *vm = vcpu->vm;
    uint64_t phys;

    if (!translate(vcpu, sregs, linear, &phys, stderr))
        return;
    fprintf(stderr, "  code at 0x%" PRIx32 ":", linear);
    if (phys >= vm->ram_bytes)
        fputs(" outside of RAM", stderr);
    for (uint64_t i = phys; i < vm->ram_bytes && i < phys + CODE_BYTES; i++)
        fprintf(stderr, " %02x", vm->ram[i]);
    fputc('\n', stderr);
}

static void print_exit(const char *title, const struct exit_record *exit)
{
    char text[EXIT_TEXT_MAX];

    if (exit->reason == EXIT_NONE)
        return;
    exit_describe(exit, text, sizeof text);
    fprintf(stderr, "  %s: %s\n", title, text);
}

enum step vcpu_die(struct vcpu *vcpu, const char *format, ...)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    va_list arguments;

    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "vmm: vcpu%d (%s) died: ", vcpu->id, vcpu->guest->path);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    print_exit("exit", &vcpu->exit);
    print_exit("the exit before", &vcpu->exit_before);
    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0) {
        if (vcpu->exit.reason == KVM_EXIT_SHUTDOWN && regs.rip == RESET_RIP &&
            sregs.cs.base == RESET_CS_BASE) {
            fprintf(stderr,
                    "  The processor has reset itself on shutdown, as AMD's do. What follows is "
                    "from %s.\n",
                    vcpu->exit_before.rip ? "the exit before" : "the start");
            regs = vcpu->known_regs;
            sregs = vcpu->known_sregs;
        }
        enum mode mode = mode_of(&sregs);
        fprintf(stderr, "  mode: %s\n", mode_names[mode]);
        print_code(vcpu, &sregs, (uint32_t)(sregs.cs.base + regs.rip));
        print_causes(vcpu, mode);
        print_registers(vcpu->id, &regs, &sregs);
    }
    funlockfile(stderr);
    return vcpu_end(vcpu, STATUS_DIED);
}

void vcpu_ended(struct vcpu *vcpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    where_set(vcpu, false);
    if (vcpu->vm->vmm->options.final_registers && vcpu->status != STATUS_DIED &&
        ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0) {
        flockfile(stderr);
        print_registers(vcpu->id, &regs, &sregs);
        funlockfile(stderr);
    }
    if (stage.on_end)
        stage.on_end(vcpu);
}
