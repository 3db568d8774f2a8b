/* crash_record.c - a crash as grader/commands/explain/ reads it: lines of JSON on standard error.
 */
#include <inttypes.h>
#include <string.h>

#include "debug/replay.h"
#include "given.h"

#define PAGES_MAX 4096 /* of memory that are written */

static void hex_print(const char *name, const uint8_t *bytes, size_t count)
{
    fprintf(stderr, "\"%s\":\"", name);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%02x", bytes[i]);
    fputc('"', stderr);
}

static void segment_print(const char *name, const struct kvm_segment *segment)
{
    fprintf(stderr,
            ",\"%s\":{\"selector\":%u,\"base\":%llu,\"limit\":%u,\"type\":%u,\"s\":%u,\"dpl\":%u,"
            "\"present\":%u,\"db\":%u,\"l\":%u,\"g\":%u,\"unusable\":%u}",
            name, segment->selector, segment->base, segment->limit, segment->type, segment->s,
            segment->dpl, segment->present, segment->db, segment->l, segment->g, segment->unusable);
}

static void instruction_print(const struct instruction *instruction)
{
    const struct kvm_regs *regs = &instruction->regs;
    const struct kvm_sregs *sregs = &instruction->sregs;
    const struct {
        const char *name;
        uint64_t value;
    } values[] = {
        {"rax", regs->rax},
        {"rbx", regs->rbx},
        {"rcx", regs->rcx},
        {"rdx", regs->rdx},
        {"rsi", regs->rsi},
        {"rdi", regs->rdi},
        {"rbp", regs->rbp},
        {"rsp", regs->rsp},
        {"r8", regs->r8},
        {"r9", regs->r9},
        {"r10", regs->r10},
        {"r11", regs->r11},
        {"r12", regs->r12},
        {"r13", regs->r13},
        {"r14", regs->r14},
        {"r15", regs->r15},
        {"rip", regs->rip},
        {"rflags", regs->rflags},
        {"cr0", sregs->cr0},
        {"cr2", sregs->cr2},
        {"cr3", sregs->cr3},
        {"cr4", sregs->cr4},
        {"efer", sregs->efer},
        {"gdt_base", sregs->gdt.base},
        {"gdt_limit", sregs->gdt.limit},
        {"idt_base", sregs->idt.base},
        {"idt_limit", sregs->idt.limit},
    };

    fprintf(stderr, "explain: instruction {\"repeated\":%" PRIu32 ",\"handler\":%d,",
            instruction->repeated, instruction->handler);
    hex_print("code", instruction->code, instruction->code_bytes);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        fprintf(stderr, ",\"%s\":%" PRIu64, values[i].name, values[i].value);
    segment_print("cs", &sregs->cs);
    segment_print("ds", &sregs->ds);
    segment_print("es", &sregs->es);
    segment_print("fs", &sregs->fs);
    segment_print("gs", &sregs->gs);
    segment_print("ss", &sregs->ss);
    segment_print("tr", &sregs->tr);
    segment_print("ldt", &sregs->ldt);
    fputs("}\n", stderr);
}

/* The pages of RAM that are not all zeros. */
static void memory_print(const struct vm *vm)
{
    static const uint8_t zeros[PAGE_BYTES];
    int printed = 0;

    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES && printed < PAGES_MAX; page++) {
        const uint8_t *bytes = vm->ram + page * PAGE_BYTES;
        if (memcmp(bytes, zeros, sizeof zeros) == 0)
            continue;
        printed++;
        fprintf(stderr, "explain: page {\"address\":%zu,", page * PAGE_BYTES);
        hex_print("bytes", bytes, PAGE_BYTES);
        fputs("}\n", stderr);
    }
}

/* An interrupt that was to be delivered at the checkpoint, or -1. */
static int injected_vector(const struct kvm_vcpu_events *events)
{
    return events->interrupt.injected && !events->interrupt.soft ? events->interrupt.nr : -1;
}

void record_print(struct vcpu *vcpu, bool same)
{
    const struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    uint64_t first = history_count > HISTORY ? history_count - HISTORY : 0;

    fprintf(stderr,
            "explain: crash {\"vcpu\":%d,\"lab\":%d,\"reason\":\"%s\",\"same\":%d,"
            "\"instructions\":%" PRIu64 ",\"injected\":%d,\"ram\":%zu}\n",
            vcpu->id, stage.lab, exit_name(vcpu->exit.reason), same, history_count,
            injected_vector(&checkpoint->events), vcpu->vm->ram_bytes);
    for (uint64_t i = first; i < history_count; i++)
        instruction_print(&history[i % HISTORY]);
    memory_print(vcpu->vm);
    fputs("explain: end {}\n", stderr);
}
