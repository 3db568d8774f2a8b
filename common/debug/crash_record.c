/* crash_record.c - a crash as grader/commands/explain/ reads it: lines of JSON on standard error.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "debug/replay.h"
#include "given.h"

#define PAGES_MAX 4096 /* of memory that are written */

static void hex_print(FILE *out, const char *name, const uint8_t *bytes, size_t count)
{
    fprintf(out, "\"%s\":\"", name);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%02x", bytes[i]);
    fputc('"', out);
}

static void segment_print(FILE *out, const char *name, const struct kvm_segment *segment)
{
    fprintf(out,
            ",\"%s\":{\"selector\":%u,\"base\":%llu,\"limit\":%u,\"type\":%u,\"s\":%u,\"dpl\":%u,"
            "\"present\":%u,\"db\":%u,\"l\":%u,\"g\":%u,\"unusable\":%u}",
            name, segment->selector, segment->base, segment->limit, segment->type, segment->s,
            segment->dpl, segment->present, segment->db, segment->l, segment->g, segment->unusable);
}

static void instruction_print(FILE *out, const struct instruction *instruction)
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

    fprintf(out, "explain: instruction {\"repeated\":%" PRIu32 ",\"handler\":%d,",
            instruction->repeated, instruction->handler);
    hex_print(out, "code", instruction->code, instruction->code_bytes);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        fprintf(out, ",\"%s\":%" PRIu64, values[i].name, values[i].value);
    segment_print(out, "cs", &sregs->cs);
    segment_print(out, "ds", &sregs->ds);
    segment_print(out, "es", &sregs->es);
    segment_print(out, "fs", &sregs->fs);
    segment_print(out, "gs", &sregs->gs);
    segment_print(out, "ss", &sregs->ss);
    segment_print(out, "tr", &sregs->tr);
    segment_print(out, "ldt", &sregs->ldt);
    fputs("}\n", out);
}

/* The pages of RAM that are not all zeros. */
static void memory_print(FILE *out, const struct vm *vm, const uint64_t *written)
{
    static const uint8_t zeros[PAGE_BYTES];
    int printed = 0;

    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES && printed < PAGES_MAX; page++) {
        const uint8_t *bytes = vm->ram + page * PAGE_BYTES;
        if (!page_is_in(written, page) || memcmp(bytes, zeros, sizeof zeros) == 0)
            continue;
        printed++;
        fprintf(out, "explain: page {\"address\":%zu,", page * PAGE_BYTES);
        hex_print(out, "bytes", bytes, PAGE_BYTES);
        fputs("}\n", out);
    }
}

/* An interrupt that was to be delivered at the checkpoint, or -1. */
static int injected_vector(const struct kvm_vcpu_events *events)
{
    return events->interrupt.injected && !events->interrupt.soft ? events->interrupt.nr : -1;
}

void record_print(struct vcpu *vcpu, const char *reason, bool same)
{
    const struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    uint64_t first = history_count > HISTORY ? history_count - HISTORY : 0;
    FILE *out = fdopen(dup(STDERR_FILENO), "w"); /* stderr makes a system call for each word */

    sigset_t signals;

    if (!out)
        return;
    report_begin(&signals);
    fprintf(out,
            "explain: crash {\"vcpu\":%d,\"lab\":%d,\"reason\":\"%s\",\"same\":%d,"
            "\"instructions\":%" PRIu64 ",\"injected\":%d,\"interrupts\":%" PRIu64
            ",\"ram\":%zu}\n",
            vcpu->id, stage.lab, reason, same, history_count, injected_vector(&checkpoint->events),
            vcpu->interrupts, vcpu->vm->ram_bytes);
    for (uint64_t i = first; i < history_count; i++)
        instruction_print(out, &history[i % HISTORY]);
    memory_print(out, vcpu->vm, checkpoint->written);
    fputs("explain: end {}\n", out);
    fclose(out);
    report_end(&signals);
}
