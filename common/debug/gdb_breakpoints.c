/*
 * gdb_breakpoints.c - breakpoints, and traps at handlers while an instruction is stepped: in place
 * of the instruction's first byte there is a HLT.
 *
 * Every KVM reports a HLT (KVM_EXIT_HLT), while not every one reports INT3 or obeys debug registers
 * (api.rst 4.87 KVM_SET_GUEST_DEBUG). Outside of ring 0 a HLT is a general protection fault
 * instead: then a trap at the guest's handler of that fault stops it there, and what the processor
 * has pushed is taken back, as if the fault had not been delivered.
 *
 * The processor stops single-stepping when it delivers an exception or interrupt, so a step needs
 * traps at all handlers that it may lead to. The bytes are in RAM only while the guest runs.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "debug/gdb.h"

#define BREAKPOINTS_MAX    64
#define PATCHES_MAX        (BREAKPOINTS_MAX * VCPUS_MAX + 64)
#define EXCEPTIONS         32 /* vectors that the processor itself may raise */
#define GENERAL_PROTECTION 13
#define FLAGS_TF           0x100
#define RPL                3            /* in a selector: that of CS is the ring */
#define MSR_LSTAR          0xc0000082   /* where SYSCALL leads to */
#define SYSCALL_ENTRY      VECTOR_COUNT /* as if it were one more vector */

#define OPCODE_INT     0xcd /* its second byte: the vector */
#define OPCODE_PUSHF   0x9c
#define OPCODE_TWO     0x0f /* first byte of an opcode of two */
#define OPCODE_SYSCALL 0x05 /* second bytes */
#define OPCODE_SYSRET  0x07
#define OPERAND_SIZE   0x66 /* a prefix */
#define REX            0x40 /* prefixes in 64-bit code: 0x40 to 0x4f */
#define REX_BITS       0x0f

static struct breakpoint {
    char type; /* as in the packets Z0 and Z1; 0: none */
    bool set;  /* in some address space, since the guests run */
    uint64_t linear;
} breakpoints[BREAKPOINTS_MAX];

/* A byte of RAM that is HLT for now. */
struct patch {
    struct vm *vm;
    uint64_t phys;
    uint8_t byte;    /* the guest's own */
    bool breakpoint; /* it is one */
    bool trap;       /* it is the first byte of a handler */
    unsigned vector; /* of the handler; or SYSCALL_ENTRY */
};
static struct patch patches[PATCHES_MAX];
static size_t patch_count;

/* ------------------------------------------------------------------ SYSCALL and SYSRET */

/*
 * Whether SYSCALL and SYSRET trap depends on TF after them, not before them like all others: so the
 * kernel's entry needs a trap, because SYSCALL may clear TF there, and SYSRET must load it from R11
 * (Linux, arch/x86/entry/entry_64.S; SDM vol. 2, SYSCALL and SYSRET).
 */
static bool is_stepping(const struct debugged *self, uint8_t second_byte)
{
    return self->opcode[0] == OPCODE_TWO && self->opcode[1] == second_byte;
}

static bool syscall_entry(const struct vcpu *vcpu, uint64_t *linear)
{
    uint64_t room[(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)) / sizeof(uint64_t)] = {
        0};
    struct kvm_msrs *lstar = (struct kvm_msrs *)room;

    lstar->nmsrs = 1;
    lstar->entries[0].index = MSR_LSTAR;
    if (ioctl(vcpu->fd, KVM_GET_MSRS, lstar) != 1)
        return false;
    *linear = lstar->entries[0].data;
    return true;
}

static void mark_set(struct debugged *self, struct kvm_regs *regs)
{
    if (regs->r11 & FLAGS_TF)
        return;
    regs->r11 |= FLAGS_TF;
    self->marked = ioctl(self->vcpu->fd, KVM_SET_REGS, regs) == 0;
}

static void mark_remove(struct debugged *self)
{
    struct kvm_regs regs;

    if (!self->marked || ioctl(self->vcpu->fd, KVM_GET_REGS, &regs) < 0)
        return;
    self->marked = false;
    regs.r11 &= ~(uint64_t)FLAGS_TF;
    ioctl(self->vcpu->fd, KVM_SET_REGS, &regs);
}

/* ------------------------------------------------------------------ patches */

static struct patch *patch_find(const struct vm *vm, uint64_t phys)
{
    for (size_t i = 0; i < patch_count; i++)
        if (patches[i].vm == vm && patches[i].phys == phys)
            return &patches[i];
    return NULL;
}

/* The patch at a linear address, which is made if there is none; NULL: impossible. */
static struct patch *patch_at(const struct vcpu *vcpu, uint64_t linear)
{
    uint64_t phys;

    if (!linear_translate(vcpu, linear, &phys))
        return NULL;
    struct patch *patch = patch_find(vcpu->vm, phys);
    if (patch || patch_count == PATCHES_MAX)
        return patch;
    patch = &patches[patch_count++];
    *patch = (struct patch){.vm = vcpu->vm, .phys = phys, .byte = vcpu->vm->ram[phys]};
    vcpu->vm->ram[phys] = OPCODE_HLT;
    return patch;
}

/* The guest may have written there. */
static void patch_restore(const struct patch *patch)
{
    uint8_t *byte = &patch->vm->ram[patch->phys];

    if (*byte == OPCODE_HLT)
        *byte = patch->byte;
}

void patches_remove(void)
{
    if (world.stepper)
        mark_remove(world.stepper);
    while (patch_count > 0)
        patch_restore(&patches[--patch_count]);
    for (size_t i = 0; i < BREAKPOINTS_MAX; i++)
        breakpoints[i].set = false;
    world.stepper = NULL;
}

void handlers_release(void)
{
    for (size_t i = patch_count; i-- > 0;) {
        patches[i].trap = false;
        if (!patches[i].breakpoint) {
            patch_restore(&patches[i]);
            patches[i] = patches[--patch_count];
        }
    }
    world.stepper = NULL;
    pthread_cond_broadcast(&world.changed);
}

/* ------------------------------------------------------------------ breakpoints */

bool breakpoint_add(char type, uint64_t linear)
{
    struct breakpoint *place = NULL;

    for (size_t i = 0; i < BREAKPOINTS_MAX; i++) {
        bool same = breakpoints[i].type == type && breakpoints[i].linear == linear;
        if (same || (!place && breakpoints[i].type == 0))
            place = &breakpoints[i];
        if (same)
            break;
    }
    if (place)
        *place = (struct breakpoint){.type = type, .linear = linear};
    return place;
}

void breakpoint_remove(char type, uint64_t linear)
{
    for (size_t i = 0; i < BREAKPOINTS_MAX; i++)
        if (breakpoints[i].type == type && breakpoints[i].linear == linear)
            breakpoints[i].type = 0;
}

void breakpoints_remove(void)
{
    memset(breakpoints, 0, sizeof breakpoints);
}

/* Traps general protection faults, which breakpoints cause outside of ring 0. */
static void protection_trap_set(const struct vcpu *vcpu)
{
    struct kvm_sregs sregs;
    uint64_t linear;

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0 || !(sregs.cr0 & CR0_PE) ||
        !handler_find(vcpu, &sregs, GENERAL_PROTECTION, &linear))
        return;
    struct patch *patch = patch_at(vcpu, linear);
    if (patch && !patch->trap) {
        patch->trap = true;
        patch->vector = GENERAL_PROTECTION;
    }
}

void breakpoints_set(const struct vcpu *vcpu, bool again)
{
    bool some = false;

    for (size_t i = 0; i < BREAKPOINTS_MAX; i++) {
        if (breakpoints[i].type == 0)
            continue;
        some = true;
        struct patch *patch =
            breakpoints[i].set && !again ? NULL : patch_at(vcpu, breakpoints[i].linear);
        if (patch)
            patch->breakpoint = breakpoints[i].set = true;
    }
    if (some)
        protection_trap_set(vcpu);
}

/* ------------------------------------------------------------------ traps */

static void trap_set(const struct vcpu *vcpu, uint64_t linear, unsigned vector, uint64_t pc)
{
    struct patch *patch = linear == pc ? NULL : patch_at(vcpu, linear);

    if (patch && !patch->trap) {
        patch->trap = true;
        patch->vector = vector;
    }
}

/* Reads the opcode of the instruction at `pc`: the two bytes that follow a prefix, or 0. */
static void opcode_read(struct debugged *self, uint64_t pc, bool is_long)
{
    uint8_t bytes[3] = {0};

    for (size_t i = 0; i < sizeof bytes && linear_read(self->vcpu, pc + i, &bytes[i], 1); i++)
        continue;
    memcpy(self->opcode,
           bytes + (bytes[0] == OPERAND_SIZE || (is_long && (bytes[0] & ~REX_BITS) == REX)),
           sizeof self->opcode);
}

bool handlers_trap(struct debugged *self, const struct kvm_vcpu_events *events)
{
    const struct vcpu *vcpu = self->vcpu;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t phys, linear;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    uint64_t pc = instruction_address(&regs, &sregs);
    struct patch *own = linear_translate(vcpu, pc, &phys) ? patch_find(vcpu->vm, phys) : NULL;
    if (own) {
        patch_restore(own);
        *own = patches[--patch_count];
    }
    opcode_read(self, pc, is_long_code(&sregs));
    for (unsigned vector = 0; vector < VECTOR_COUNT; vector++) {
        bool possible = vector < EXCEPTIONS ||
                        (self->opcode[0] == OPCODE_INT && self->opcode[1] == vector) ||
                        (events->interrupt.injected && events->interrupt.nr == vector);
        if (possible && handler_find(vcpu, &sregs, vector, &linear))
            trap_set(vcpu, linear, vector, pc);
    }
    if (is_stepping(self, OPCODE_SYSCALL) && syscall_entry(vcpu, &linear))
        trap_set(vcpu, linear, SYSCALL_ENTRY, pc);
    if (is_stepping(self, OPCODE_SYSRET))
        mark_set(self, &regs);
    world.stepper = self;
    return true;
}

/* Clears TF in a value of FLAGS on the guest's stack. */
static void flags_clean(const struct vcpu *vcpu, uint64_t linear)
{
    uint16_t flags;

    if (!linear_read(vcpu, linear, &flags, sizeof flags))
        return;
    flags &= (uint16_t)~FLAGS_TF;
    linear_write(vcpu, linear, &flags, sizeof flags);
}

/* SYSCALL copies the flags to R11. */
static void copied_flags_clean(struct debugged *self)
{
    struct kvm_regs regs;
    uint64_t entry;

    mark_remove(self);
    if (!is_stepping(self, OPCODE_SYSCALL) || !syscall_entry(self->vcpu, &entry) ||
        ioctl(self->vcpu->fd, KVM_GET_REGS, &regs) < 0 || regs.rip != entry)
        return;
    regs.r11 &= ~(uint64_t)FLAGS_TF;
    ioctl(self->vcpu->fd, KVM_SET_REGS, &regs);
}

void stepped_flags_clean(struct debugged *self)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    copied_flags_clean(self);
    if (self->opcode[0] == OPCODE_PUSHF && ioctl(self->vcpu->fd, KVM_GET_REGS, &regs) == 0 &&
        ioctl(self->vcpu->fd, KVM_GET_SREGS, &sregs) == 0)
        flags_clean(self->vcpu, stack_address(&regs, &sregs));
}

/* SDM vol. 3, 6.13 "Error Code" and table 6-1. */
static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

/* The same for what the processor has pushed on its way to a handler. */
static void frame_clean(const struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs, unsigned vector)
{
    const uint64_t stack = stack_address(regs, sregs);
    const size_t word = is_long_code(sregs) ? sizeof(uint64_t) : sizeof(uint32_t);

    if (!(sregs->cr0 & CR0_PE))
        flags_clean(vcpu, stack + 2 * sizeof(uint16_t));
    else
        flags_clean(vcpu, stack + (has_error_code(vector) ? 3 : 2) * word);
}

/* A segment register as the processor loads it: SDM vol. 3, 3.4.5 "Segment Descriptors". */
static bool segment_load(const struct vcpu *vcpu, const struct kvm_sregs *sregs, uint16_t selector,
                         struct kvm_segment *segment)
{
    uint32_t words[2];

    if (!linear_read(vcpu, sregs->gdt.base + (selector & ~7u), words, sizeof words))
        return false;
    *segment = (struct kvm_segment){
        .base = words[0] >> 16 | (words[1] & 0xff) << 16 | (words[1] & 0xff000000),
        .limit = (words[0] & 0xffff) | (words[1] & 0xf0000),
        .selector = selector,
        .type = words[1] >> 8 & 15,
        .s = words[1] >> 12 & 1,
        .dpl = words[1] >> 13 & 3,
        .present = words[1] >> 15 & 1,
        .avl = words[1] >> 20 & 1,
        .l = words[1] >> 21 & 1,
        .db = words[1] >> 22 & 1,
        .g = words[1] >> 23 & 1,
    };
    if (segment->g)
        segment->limit = segment->limit << 12 | 0xfff;
    return true;
}

/* What a general protection fault out of ring 3 pushes: SDM vol. 3, figure 6-4, in 64 bits 6-9. */
struct fault_frame {
    uint64_t error_code, ip, cs, flags, sp, ss;
};

static bool fault_frame_read(const struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t stack,
                             struct fault_frame *frame)
{
    uint32_t words[6];

    if (is_long_code(sregs))
        return linear_read(vcpu, stack, frame, sizeof *frame);
    if (!linear_read(vcpu, stack, words, sizeof words))
        return false;
    *frame = (struct fault_frame){words[0], words[1], words[2], words[3], words[4], words[5]};
    return true;
}

/* Takes back a general protection fault that a breakpoint has caused; false: it is the guest's. */
static bool fault_undo(const struct vcpu *vcpu, struct kvm_regs *regs, struct kvm_sregs *sregs)
{
    struct fault_frame frame;
    uint64_t phys;

    if (!fault_frame_read(vcpu, sregs, stack_address(regs, sregs), &frame) ||
        frame.error_code != 0 || (frame.cs & RPL) == 0 ||
        !segment_load(vcpu, sregs, (uint16_t)frame.cs, &sregs->cs) ||
        !segment_load(vcpu, sregs, (uint16_t)frame.ss, &sregs->ss))
        return false;
    regs->rip = frame.ip;
    regs->rsp = frame.sp;
    regs->rflags = frame.flags;
    if (!linear_translate(vcpu, instruction_address(regs, sregs), &phys))
        return false;
    const struct patch *patch = patch_find(vcpu->vm, phys);
    return patch && patch->breakpoint && sregs_restore(vcpu, sregs) &&
           ioctl(vcpu->fd, KVM_SET_REGS, regs) == 0;
}

bool halt_take(struct debugged *self)
{
    static const struct stop at_breakpoint = {GDB_SIGTRAP, "swbreak", 0, false};
    const struct vcpu *vcpu = self->vcpu;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t phys;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0 ||
        !linear_translate(vcpu, instruction_address(&regs, &sregs) - 1, &phys))
        return false;
    const struct patch *patch = patch_find(vcpu->vm, phys);
    if (!patch)
        return false;
    regs.rip--;
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return false;
    if (world.stepper == self) {
        if (patch->trap && patch->vector != SYSCALL_ENTRY)
            frame_clean(vcpu, &regs, &sregs, patch->vector);
        copied_flags_clean(self);
    }
    if (patch->breakpoint)
        self->stop = at_breakpoint;
    else if (world.stepper == self)
        self->stop = (struct stop){GDB_SIGTRAP, "", 0, false};
    else if (patch->vector == GENERAL_PROTECTION && fault_undo(vcpu, &regs, &sregs))
        self->stop = at_breakpoint;
    else
        *(world.stepper ? &self->trapped : &self->silent) = true;
    return true;
}
