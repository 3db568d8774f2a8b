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
    uint32_t code_bits; /* what the description follows: see registers_code_bits */
};

#define NATURAL 0 /* bits: as many as a general register has, 32 or 64 */

struct description {
    const char *name; /* a ? in it: e, or r in 64 bits */
    const char *type;
    unsigned bits;
    size_t at, bytes; /* in struct state; 0 bytes: always 0 */
};

#define FIELD(field) offsetof(struct state, field), sizeof(((struct state *)0)->field)
/* clang-format's versions break braces in macros differently. */
/* clang-format off */
#define GENERAL(n, type) \
    {"?" #n, type, NATURAL, FIELD(regs.r##n)}
#define NUMBERED(n) \
    {"r" #n, "int", NATURAL, FIELD(regs.r##n)}
#define SELECTOR(n) \
    {#n, "int32", 32, FIELD(sregs.n.selector)}
#define X87(n) \
    {"st" #n, "i387_ext", 80, offsetof(struct state, fpu.fpr[n]), 10}
#define XMM(n) \
    {"xmm" #n, "vec128", 128, FIELD(fpu.xmm[n])}
#define SYSTEM(n, field) \
    {n, "int", NATURAL, FIELD(sregs.field)}
#define LIMIT(n, field) \
    {n, "int32", 32, FIELD(sregs.field)}
/* clang-format on */

/* Those that gdb requires: `general`, in 64 bits `numbered`, and `core`. */
static const struct description general[] = {
    GENERAL(ax, "int"),      GENERAL(cx, "int"),
    GENERAL(dx, "int"),      GENERAL(bx, "int"),
    GENERAL(sp, "data_ptr"), GENERAL(bp, "data_ptr"),
    GENERAL(si, "int"),      GENERAL(di, "int"),
    GENERAL(ip, "code_ptr"), {"eflags", "i386_eflags", 32, offsetof(struct state, regs.rflags), 4},
};

static const struct description numbered[] = {
    NUMBERED(8),  NUMBERED(9),  NUMBERED(10), NUMBERED(11),
    NUMBERED(12), NUMBERED(13), NUMBERED(14), NUMBERED(15),
};

static const struct description core[] = {
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

/* SSE, which 64-bit code may use without asking. */
static const struct description sse[] = {
    XMM(0),
    XMM(1),
    XMM(2),
    XMM(3),
    XMM(4),
    XMM(5),
    XMM(6),
    XMM(7),
    XMM(8),
    XMM(9),
    XMM(10),
    XMM(11),
    XMM(12),
    XMM(13),
    XMM(14),
    XMM(15),
    {"mxcsr", "int", 32, FIELD(fpu.mxcsr)},
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
    {"code_bits", "int32", 32, FIELD(code_bits)},
};

#define CORE    "org.gnu.gdb.i386.core"
#define SET(of) of, sizeof of / sizeof of[0]

/* All of them, in the order of their numbers. */
static const struct set {
    const char *feature;
    bool only_64;
    const struct description *registers;
    size_t count;
} sets[] = {
    {CORE, false, SET(general)},
    {CORE, true, SET(numbered)},
    {CORE, false, SET(core)},
    {"org.gnu.gdb.i386.sse", true, SET(sse)},
    {"mini-kvm.processor", false, SET(processor)},
};

#define SETS (sizeof sets / sizeof sets[0])

/* Of the description that gdb has; the mode may be another one by now. */
static unsigned described_bits = 32;

static bool is_described(const struct set *set)
{
    return !set->only_64 || described_bits == 64;
}

static const struct description *description(unsigned number)
{
    for (size_t i = 0; i < SETS; i++) {
        if (!is_described(&sets[i]))
            continue;
        if (number < sets[i].count)
            return &sets[i].registers[number];
        number -= (unsigned)sets[i].count;
    }
    return NULL;
}

/* The bytes of its value, and those of them that are in struct state; the others are 0. */
static size_t value_bytes(const struct description *which)
{
    return (which->bits == NATURAL ? described_bits : which->bits) / 8;
}

static size_t state_bytes(const struct description *which)
{
    return which->bytes < value_bytes(which) ? which->bytes : value_bytes(which);
}

static unsigned code_bits(const struct kvm_sregs *sregs)
{
    if (is_long_code(sregs))
        return 64;
    return sregs->cr0 & CR0_PE && sregs->cs.db ? 32 : 16;
}

/* Appends text like snprintf; the description fits. */
#define APPEND(...) used += (size_t)snprintf(text + used, size - used, __VA_ARGS__)

static size_t flags_describe(char *text, size_t size)
{
    static const struct {
        const char *name;
        int bit;
    } flags[] = {{"CF", 0}, {"PF", 2}, {"AF", 4},  {"ZF", 6}, {"SF", 7},
                 {"TF", 8}, {"IF", 9}, {"DF", 10}, {"OF", 11}};
    size_t used = 0;

    APPEND("<flags id=\"i386_eflags\" size=\"4\">");
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        APPEND("<field name=\"%s\" start=\"%d\" end=\"%d\"/>", flags[i].name, flags[i].bit,
               flags[i].bit);
    APPEND("</flags>");
    return used;
}

/* What an XMM register may hold, in gdb's own names. */
static const char vec128[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
                             "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
                             "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
                             "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
                             "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
                             "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
                             "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
                             "<field name=\"v2_double\" type=\"v2d\"/>"
                             "<field name=\"v16_int8\" type=\"v16i8\"/>"
                             "<field name=\"v8_int16\" type=\"v8i16\"/>"
                             "<field name=\"v4_int32\" type=\"v4i32\"/>"
                             "<field name=\"v2_int64\" type=\"v2i64\"/>"
                             "<field name=\"uint128\" type=\"uint128\"/></union>";

static size_t set_describe(const struct set *set, char *text, size_t size)
{
    size_t used = 0;

    if (set->registers == sse)
        APPEND("%s", vec128);
    for (size_t i = 0; i < set->count; i++) {
        const struct description *which = &set->registers[i];
        bool general_name = which->name[0] == '?';
        const char *prefix = !general_name ? "" : described_bits == 64 ? "r" : "e";
        APPEND("<reg name=\"%s%s\" bitsize=\"%zu\" type=\"%s\"/>", prefix,
               which->name + general_name, 8 * value_bytes(which), which->type);
    }
    return used;
}

const char *registers_description(const struct kvm_sregs *sregs)
{
    static char text[16384];
    const size_t size = sizeof text;
    const unsigned bits = code_bits(sregs);
    const char *feature = "";
    size_t used = 0;

    described_bits = bits == 64 ? 64 : 32;
    APPEND("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
           "<target version=\"1.0\"><architecture>%s</architecture>",
           bits == 64   ? "i386:x86-64"
           : bits == 32 ? "i386"
                        : "i8086");
    for (size_t i = 0; i < SETS; i++) {
        if (!is_described(&sets[i]))
            continue;
        if (strcmp(feature, sets[i].feature) != 0) {
            APPEND("%s<feature name=\"%s\">", *feature ? "</feature>" : "", sets[i].feature);
            if (!*feature)
                used += flags_describe(text + used, size - used);
            feature = sets[i].feature;
        }
        used += set_describe(&sets[i], text + used, size - used);
    }
    APPEND("</feature></target>");
    return text;
}

uint64_t registers_address(uint64_t linear)
{
    return described_bits == 64 ? linear : (uint32_t)linear;
}

static bool state_read(const struct vcpu *vcpu, struct state *state)
{
    if (ioctl(vcpu->fd, KVM_GET_REGS, &state->regs) < 0 ||
        ioctl(vcpu->fd, KVM_GET_SREGS, &state->sregs) < 0 ||
        ioctl(vcpu->fd, KVM_GET_FPU, &state->fpu) < 0)
        return false;
    state->code_bits = code_bits(&state->sregs);
    return true;
}

/* The base that gdb's value of a register contains. */
static uint64_t linear_base(const struct state *state, size_t at)
{
    if (is_long_code(&state->sregs))
        return 0;
    if (at == offsetof(struct state, regs.rip))
        return state->sregs.cs.base;
    return at == offsetof(struct state, regs.rsp) ? state->sregs.ss.base : 0;
}

static char *register_print(const struct state *state, const struct description *which, char *text)
{
    uint8_t bytes[REGISTER_MAX] = {0};
    uint32_t linear = (uint32_t)linear_base(state, which->at);

    memcpy(bytes, (const uint8_t *)state + which->at, state_bytes(which));
    if (linear != 0) {
        uint32_t value;
        memcpy(&value, bytes, sizeof value);
        value += linear;
        memcpy(bytes, &value, sizeof value);
    }
    hex_write(text, bytes, value_bytes(which));
    return text + 2 * value_bytes(which);
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
    uint8_t bytes[REGISTER_MAX];

    if (!which || which->bytes == 0 || which->at == offsetof(struct state, code_bits) ||
        strlen(text) != 2 * value_bytes(which) || !hex_read(text, bytes, value_bytes(which)) ||
        !state_read(vcpu, &state))
        return false;
    uint64_t base = linear_base(&state, which->at);
    if (base != 0) {
        uint32_t value;
        memcpy(&value, bytes, sizeof value);
        value -= (uint32_t)base;
        memcpy(bytes, &value, sizeof value);
    }
    memcpy((uint8_t *)&state + which->at, bytes, state_bytes(which));
    if (which->at >= offsetof(struct state, fpu))
        return ioctl(vcpu->fd, KVM_SET_FPU, &state.fpu) == 0;
    if (which->at < offsetof(struct state, sregs))
        return ioctl(vcpu->fd, KVM_SET_REGS, &state.regs) == 0;
    if (strcmp(which->type, "int32") == 0 && which->name[1] == 's' && which->name[2] == '\0' &&
        !selector_write(&state, which->at))
        return false;
    return sregs_restore(vcpu, &state.sregs);
}
