/* exits.c - exits in words, counted and traced for --trace. */
#include <inttypes.h>
#include <stdarg.h>
#include <time.h>

#include "debug/debug.h"
#include "given.h"

static const char *const names[EXIT_REASONS_MAX] = {
    [KVM_EXIT_UNKNOWN] = "KVM_EXIT_UNKNOWN",
    [KVM_EXIT_EXCEPTION] = "KVM_EXIT_EXCEPTION",
    [KVM_EXIT_IO] = "KVM_EXIT_IO",
    [KVM_EXIT_HYPERCALL] = "KVM_EXIT_HYPERCALL",
    [KVM_EXIT_DEBUG] = "KVM_EXIT_DEBUG",
    [KVM_EXIT_HLT] = "KVM_EXIT_HLT",
    [KVM_EXIT_MMIO] = "KVM_EXIT_MMIO",
    [KVM_EXIT_IRQ_WINDOW_OPEN] = "KVM_EXIT_IRQ_WINDOW_OPEN",
    [KVM_EXIT_SHUTDOWN] = "KVM_EXIT_SHUTDOWN",
    [KVM_EXIT_FAIL_ENTRY] = "KVM_EXIT_FAIL_ENTRY",
    [KVM_EXIT_INTR] = "KVM_EXIT_INTR",
    [KVM_EXIT_SET_TPR] = "KVM_EXIT_SET_TPR",
    [KVM_EXIT_NMI] = "KVM_EXIT_NMI",
    [KVM_EXIT_INTERNAL_ERROR] = "KVM_EXIT_INTERNAL_ERROR",
    [KVM_EXIT_SYSTEM_EVENT] = "KVM_EXIT_SYSTEM_EVENT",
};

const char *exit_name(uint32_t reason)
{
    static _Thread_local char other[24];

    if (reason < EXIT_REASONS_MAX && names[reason])
        return names[reason];
    snprintf(other, sizeof other, "exit reason %" PRIu32, reason);
    return other;
}

struct exit_record exit_read(const struct kvm_run *run)
{
    struct exit_record record = {.reason = run->exit_reason};

    if (run->exit_reason == KVM_EXIT_IO) {
        record.out = run->io.direction == KVM_EXIT_IO_OUT;
        record.size = run->io.size;
        record.count = run->io.count;
        record.address = run->io.port;
    } else if (run->exit_reason == KVM_EXIT_MMIO) {
        record.out = run->mmio.is_write;
        record.size = run->mmio.len;
        record.address = run->mmio.phys_addr;
    }
    if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
        record.rip = run->s.regs.regs.rip;
    return record;
}

void exit_describe(const struct exit_record *exit, char *text, size_t size)
{
    int used = snprintf(text, size, "%s", exit_name(exit->reason));

    if (exit->reason == KVM_EXIT_IO)
        used += snprintf(text + used, size - (size_t)used,
                         " %s port=0x%" PRIx64 " size=%" PRIu32 " count=%" PRIu32,
                         exit->out ? "out" : "in", exit->address, exit->size, exit->count);
    else if (exit->reason == KVM_EXIT_MMIO)
        used +=
            snprintf(text + used, size - (size_t)used, " %s address=0x%" PRIx64 " size=%" PRIu32,
                     exit->out ? "write" : "read", exit->address, exit->size);
    if (exit->rip)
        snprintf(text + used, size - (size_t)used, " rip=0x%" PRIx64, exit->rip);
}

void trace_event(struct vcpu *vcpu, const char *format, ...)
{
    FILE *out = vcpu->vm->vmm->options.trace;
    char line[EXIT_TEXT_MAX + 64];
    struct timespec now;
    va_list arguments;

    if (!out)
        return;
    /* One write for the line: guests print to the same terminal. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(line, sizeof line, "%lld.%06ld vcpu%d %s\n", (long long)now.tv_sec, now.tv_nsec / 1000,
             vcpu->id, format);
    va_start(arguments, format);
    vfprintf(out, line, arguments);
    va_end(arguments);
}

void exit_note(struct vcpu *vcpu)
{
    uint32_t reason = vcpu->run->exit_reason;

    vcpu->exits[reason < EXIT_REASONS_MAX ? reason : EXIT_REASONS_MAX]++;
    vcpu->exit_before = vcpu->exit;
    vcpu->exit = exit_read(vcpu->run);
    if (reason != KVM_EXIT_SHUTDOWN && vcpu->run->kvm_valid_regs & KVM_SYNC_X86_REGS)
        vcpu->known_regs = vcpu->run->s.regs.regs;
    if (reason != KVM_EXIT_SHUTDOWN && vcpu->run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
        vcpu->known_sregs = vcpu->run->s.regs.sregs;
    if (vcpu->vm->vmm->options.trace) {
        char text[EXIT_TEXT_MAX];
        exit_describe(&vcpu->exit, text, sizeof text);
        trace_event(vcpu, "%s", text);
    }
}
