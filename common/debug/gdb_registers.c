/*
 * gdb_registers.c - a vCPU's registers as gdb reads and writes them, and their description for gdb:
 * GDB manual, appendix G "Target Descriptions", G.5.3 "i386 Features".
 */
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "debug/gdb.h"

/* All registers of a vCPU, as KVM hands them over. */
struct state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
};

struct description {
    const char *name, *type;
    unsigned bits;
    size_t at, bytes; /* in struct state; 0 bytes: always 0 */
};

#define FIELD(field) offsetof(struct state, field), sizeof(((struct state *)0)->field)
#define GENERAL(n, type)                                                                           \
    {                                                                                              \
        "e" #n, type, 32, offsetof(struct state, regs.r##n), 4                                     \
    }
#define SELECTOR(n)                                                                                \
    {                                                                                              \
#n, "int32", 32, FIELD(sregs.n.selector)                                                   \
    }
#define X87(n)                                                                                     \
    {                                                                                              \
        "st" #n, "i387_ext", 80, offsetof(struct state, fpu.fpr[n]), 10                            \
    }
#define SYSTEM(n, field)                                                                           \
    {                                                                                              \
        n, "int32", 32, offsetof(struct state, sregs.field), 4                                     \
    }
#define LIMIT(n, field)                                                                            \
    {                                                                                              \
        n, "int32", 32, FIELD(sregs.field)                                                         \
    }

/* Those that gdb requires, in its order. */
static const struct description core[] = {
    GENERAL(ax, "int32"),
    GENERAL(cx, "int32"),
    GENERAL(dx, "int32"),
    GENERAL(bx, "int32"),
    GENERAL(sp, "data_ptr"),
    GENERAL(bp, "data_ptr"),
    GENERAL(si, "int32"),
    GENERAL(di, "int32"),
    GENERAL(ip, "code_ptr"),
    {"eflags", "i386_eflags", 32, offsetof(struct state, regs.rflags), 4},
    SELECTOR(cs),
    SELECTOR(ss),
    SELECTOR(ds),
    SELECTOR(es),
    SELECTOR(fs),
    SELECTOR(gs),
    X87(0),
    X87(1),
    X87(2),
    X87(3),
    X87(4),
    X87(5),
    X87(6),
    X87(7),
    {"fctrl", "int", 32, FIELD(fpu.fcw)},
    {"fstat", "int", 32, FIELD(fpu.fsw)},
    {"ftag", "int", 32, FIELD(fpu.ftwx)},
    {"fiseg", "int", 32, 0, 0},
    {"fioff", "int", 32, offsetof(struct state, fpu.last_ip), 4},
    {"foseg", "int", 32, 0, 0},
    {"fooff", "int", 32, offsetof(struct state, fpu.last_dp), 4},
    {"fop", "int", 32, FIELD(fpu.last_opcode)},
};

/* More that the labs are about. */
static const struct description processor[] = {
    SYSTEM("cr0", cr0),
    SYSTEM("cr2", cr2),
    SYSTEM("cr3", cr3),
    SYSTEM("cr4", cr4),
    SYSTEM("efer", efer),
    SYSTEM("cs_base", cs.base),
    SYSTEM("ss_base", ss.base),
    SYSTEM("ds_base", ds.base),
    SYSTEM("es_base", es.base),
    SYSTEM("fs_base", fs.base),
    SYSTEM("gs_base", gs.base),
    SYSTEM("gdt_base", gdt.base),
    LIMIT("gdt_limit", gdt.limit),
    SYSTEM("idt_base", idt.base),
    LIMIT("idt_limit", idt.limit),
    LIMIT("tr", tr.selector),
    SYSTEM("tr_base", tr.base),
    LIMIT("ldt", ldt.selector),
};

#define CORE_COUNT      (sizeof core / sizeof core[0])
#define PROCESSOR_COUNT (sizeof processor / sizeof processor[0])

static const struct description *description(unsigned number)
{
    if (number < CORE_COUNT)
        return &core[number];
    return number - CORE_COUNT < PROCESSOR_COUNT ? &processor[number - CORE_COUNT] : NULL;
}

/* Appends text like snprintf; the description fits. */
#define APPEND(...) used += (size_t)snprintf(text + used, sizeof text - used, __VA_ARGS__)

const char *registers_description(bool real_mode)
{
    static const struct {
        const char *name;
        int bit;
    } flags[] = {{"CF", 0}, {"PF", 2}, {"AF", 4},  {"ZF", 6}, {"SF", 7},
                 {"TF", 8}, {"IF", 9}, {"DF", 10}, {"OF", 11}};
    static char text[8192];
    size_t used = 0;

    APPEND("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
           "<target version=\"1.0\"><architecture>%s</architecture>",
           real_mode ? "i8086" : "i386");
    APPEND("<feature name=\"org.gnu.gdb.i386.core\"><flags id=\"i386_eflags\" size=\"4\">");
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        APPEND("<field name=\"%s\" start=\"%d\" end=\"%d\"/>", flags[i].name, flags[i].bit,
               flags[i].bit);
    APPEND("</flags>");
    for (unsigned i = 0; i < CORE_COUNT; i++)
        APPEND("<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", core[i].name, core[i].bits,
               core[i].type);
    APPEND("</feature><feature name=\"mini-kvm.processor\">");
    for (unsigned i = 0; i < PROCESSOR_COUNT; i++)
        APPEND("<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" group=\"processor\"/>",
               processor[i].name, processor[i].bits, processor[i].type);
    APPEND("</feature></target>");
    return text;
}

static bool state_read(const struct vcpu *vcpu, struct state *state)
{
    return ioctl(vcpu->fd, KVM_GET_REGS, &state->regs) == 0 &&
           ioctl(vcpu->fd, KVM_GET_SREGS, &state->sregs) == 0 &&
           ioctl(vcpu->fd, KVM_GET_FPU, &state->fpu) == 0;
}

/* The base that gdb's value of a register contains. */
static uint64_t linear_base(const struct state *state, size_t at)
{
    if (at == offsetof(struct state, regs.rip))
        return state->sregs.cs.base;
    return at == offsetof(struct state, regs.rsp) ? state->sregs.ss.base : 0;
}

static char *register_print(const struct state *state, const struct description *which, char *text)
{
    uint8_t bytes[10] = {0};
    uint32_t linear = (uint32_t)linear_base(state, which->at);

    memcpy(bytes, (const uint8_t *)state + which->at, which->bytes);
    if (linear != 0) {
        uint32_t value;
        memcpy(&value, bytes, sizeof value);
        value += linear;
        memcpy(bytes, &value, sizeof value);
    }
    hex_write(text, bytes, which->bits / 8);
    return text + which->bits / 4;
}

bool register_read(const struct vcpu *vcpu, unsigned number, char *text)
{
    const struct description *which = description(number);
    struct state state;

    if (!which || !state_read(vcpu, &state))
        return false;
    register_print(&state, which, text);
    return true;
}

bool registers_read(const struct vcpu *vcpu, char *text)
{
    struct state state;

    if (!state_read(vcpu, &state))
        return false;
    for (unsigned number = 0; description(number); number++)
        text = register_print(&state, description(number), text);
    return true;
}

/*
 * In real mode a selector brings its base. In protected mode its descriptor would have to be loaded
 * as well, so gdb can't set it there.
 */
static bool selector_write(struct state *state, size_t at)
{
    struct kvm_segment *segment;

    if (state->sregs.cr0 & CR0_PE)
        return false;
    segment =
        (struct kvm_segment *)((uint8_t *)state + at - offsetof(struct kvm_segment, selector));
    segment->base = (uint64_t)segment->selector << 4;
    return true;
}

bool register_write(const struct vcpu *vcpu, unsigned number, const char *text)
{
    const struct description *which = description(number);
    struct state state;
    uint8_t bytes[10];

    if (!which || which->bytes == 0 || strlen(text) != which->bits / 4 ||
        !hex_read(text, bytes, which->bits / 8) || !state_read(vcpu, &state))
        return false;
    uint64_t base = linear_base(&state, which->at), value = 0;
    memcpy((uint8_t *)&state + which->at, bytes, which->bytes);
    if (base != 0) {
        memcpy(&value, bytes, sizeof(uint32_t));
        value = (uint32_t)(value - base);
        memcpy((uint8_t *)&state + which->at, &value, which->bytes);
    }
    if (which->at >= offsetof(struct state, fpu))
        return ioctl(vcpu->fd, KVM_SET_FPU, &state.fpu) == 0;
    if (which->at < offsetof(struct state, sregs))
        return ioctl(vcpu->fd, KVM_SET_REGS, &state.regs) == 0;
    if (strcmp(which->type, "int32") == 0 && which->name[1] == 's' && which->name[2] == '\0' &&
        !selector_write(&state, which->at))
        return false;
    return sregs_restore(vcpu, &state.sregs);
}
