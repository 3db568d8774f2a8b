/* stats.c - prints --stats: as text, or as JSON for programs. */
#include <inttypes.h>
#include <time.h>

#include "debug/debug.h"
#include "debug/meter.h"
#include "given.h"

/* Left over at the end, if not 0: raised, and neither injected nor still pending; or negative. */
static int64_t lost(const struct vcpu_totals *vcpu, unsigned bit)
{
    const struct interrupt_counts *counts = &vcpu->interrupts[bit];
    const bool waits = vcpu->pending >> bit & 1;

    return (int64_t)counts->raised - (int64_t)counts->injected - waits;
}

static void summary_print(const struct vcpu *vcpu, bool json)
{
    uint64_t total = 0;

    for (uint32_t reason = 0; reason <= EXIT_REASONS_MAX; reason++)
        total += vcpu->exits[reason];
    fprintf(stderr,
            json ? "{\"vcpu\":%d,\"status\":%d,\"exits\":%" PRIu64 ",\"interrupts\":%" PRIu64
                 : "vcpu%d: status %d, %" PRIu64 " exits, %" PRIu64 " interrupts",
            vcpu->id, vcpu->status, total, vcpu->interrupts);
    for (uint32_t reason = 0; reason <= EXIT_REASONS_MAX; reason++)
        if (vcpu->exits[reason])
            fprintf(stderr, json ? ",\"%s\":%" PRIu64 : "; %s %" PRIu64, exit_name(reason),
                    vcpu->exits[reason]);
}

/* ------------------------------------------------------------------ text */

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static double microseconds(uint64_t ns)
{
    return (double)ns / 1e3;
}

static void kind_print(const struct exit_kind *kind)
{
    char name[48];

    if (kind->reason == KVM_EXIT_IO)
        snprintf(name, sizeof name, "%s %s 0x%" PRIx64, exit_name(kind->reason),
                 kind->out ? "out" : "in", kind->port);
    else
        snprintf(name, sizeof name, "%s",
                 kind->reason == EXIT_NONE ? "of other kinds" : exit_name(kind->reason));
    fprintf(stderr, "  %-26s %8" PRIu64 " exits, %9.1f us each in the VMM\n", name, kind->count,
            microseconds(kind->vmm_ns / kind->count));
}

static void interrupts_print(const struct vcpu_totals *vcpu)
{
    for (unsigned bit = 0; bit < VECTORS_MAX; bit++) {
        const struct interrupt_counts *counts = &vcpu->interrupts[bit];
        int64_t missing = lost(vcpu, bit);
        if (counts->raised == 0 && counts->injected == 0)
            continue;
        fprintf(stderr,
                "  vector 0x%x: %" PRIu64 " raised, %" PRIu64 " merged with a pending one, %" PRIu64
                " injected",
                TIMER_VECTOR + bit, counts->raised, counts->merged, counts->injected);
        if (vcpu->pending >> bit & 1)
            fputs(", 1 still pending", stderr);
        if (missing != 0)
            fprintf(stderr, ", %" PRId64 " %s", missing > 0 ? missing : -missing,
                    missing > 0 ? "lost" : "injected without being raised");
        fputc('\n', stderr);
    }
    if (vcpu->latency_worst_ns)
        fprintf(stderr, "  from raised to injected: median %.1f us, worst %.1f us\n",
                microseconds(latency_median(vcpu)), microseconds(vcpu->latency_worst_ns));
}

/* The statistics that are not 0. */
static void kvm_print(const char *title, const struct kvm_stats *kvm)
{
    const char *before = title;

    for (size_t i = 0; i < kvm->count; i++) {
        if (kvm->stats[i].value == 0)
            continue;
        fprintf(stderr, "%s%s %" PRIu64, before, kvm->stats[i].name, kvm->stats[i].value);
        before = ", ";
    }
    if (before != title)
        fputc('\n', stderr);
}

static void vcpu_print(const struct vcpu *vcpu)
{
    const struct vcpu_totals *total = &totals->vcpus[vcpu->id];

    summary_print(vcpu, false);
    fprintf(stderr,
            "\n  %.6f s in the guest, %.6f s in the VMM, %.6f s halted; entries: %" PRIu64
            ", interrupted: %" PRIu64 "; kicks: %" PRIu64 "; lines printed: %" PRIu64 "\n",
            seconds(total->guest_ns), seconds(total->vmm_ns), seconds(total->halted_ns),
            total->entries, total->interrupted, total->kicks, total->lines);
    for (size_t i = 0; i < EXIT_KINDS_MAX; i++)
        if (total->kinds[i].count)
            kind_print(&total->kinds[i]);
    interrupts_print(total);
    kvm_print("  KVM: ", &total->kvm);
}

/* ------------------------------------------------------------------ JSON */

static void kinds_json(const struct vcpu_totals *vcpu)
{
    for (size_t i = 0; i < EXIT_KINDS_MAX && vcpu->kinds[i].count; i++) {
        const struct exit_kind *kind = &vcpu->kinds[i];
        fprintf(stderr, "%s{\"reason\":\"%s\"", i == 0 ? "" : ",",
                kind->reason == EXIT_NONE ? "" : exit_name(kind->reason));
        if (kind->reason == KVM_EXIT_IO)
            fprintf(stderr, ",\"direction\":\"%s\",\"port\":%" PRIu64, kind->out ? "out" : "in",
                    kind->port);
        fprintf(stderr, ",\"count\":%" PRIu64 ",\"vmm_ns\":%" PRIu64 "}", kind->count,
                kind->vmm_ns);
    }
}

static void interrupts_json(const struct vcpu_totals *vcpu)
{
    const char *before = "";

    for (unsigned bit = 0; bit < VECTORS_MAX; bit++) {
        const struct interrupt_counts *counts = &vcpu->interrupts[bit];
        if (counts->raised == 0 && counts->injected == 0)
            continue;
        fprintf(stderr,
                "%s{\"vector\":%u,\"raised\":%" PRIu64 ",\"merged\":%" PRIu64
                ",\"injected\":%" PRIu64 ",\"pending\":%u,\"lost\":%" PRId64 "}",
                before, TIMER_VECTOR + bit, counts->raised, counts->merged, counts->injected,
                vcpu->pending >> bit & 1, lost(vcpu, bit));
        before = ",";
    }
}

static void kvm_json(const struct kvm_stats *kvm)
{
    fputs("\"kvm\":{", stderr);
    for (size_t i = 0; i < kvm->count; i++)
        fprintf(stderr, "%s\"%s\":%" PRIu64, i == 0 ? "" : ",", kvm->stats[i].name,
                kvm->stats[i].value);
    fputc('}', stderr);
}

static void vcpu_json(const struct vcpu *vcpu)
{
    const struct vcpu_totals *total = &totals->vcpus[vcpu->id];

    summary_print(vcpu, true);
    fprintf(stderr,
            ",\"guest_ns\":%" PRIu64 ",\"vmm_ns\":%" PRIu64 ",\"halted_ns\":%" PRIu64
            ",\"entries\":%" PRIu64 ",\"interrupted\":%" PRIu64 ",\"kicks\":%" PRIu64
            ",\"lines\":%" PRIu64 ",\"kinds\":[",
            total->guest_ns, total->vmm_ns, total->halted_ns, total->entries, total->interrupted,
            total->kicks, total->lines);
    kinds_json(total);
    fputs("],\"vectors\":[", stderr);
    interrupts_json(total);
    fprintf(stderr, "],\"latency_median_ns\":%" PRIu64 ",\"latency_worst_ns\":%" PRIu64 ",",
            latency_median(total), total->latency_worst_ns);
    kvm_json(&total->kvm);
    fputc('}', stderr);
}

static uint64_t processor_ns(void)
{
    struct timespec used = {0};

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

void stats_print(const struct vmm *vmm)
{
    const bool json = vmm->options.stats == STATS_JSON;
    char title[32];

    if (vmm->options.stats == STATS_NONE)
        return;
    fputs(json ? "{\"vcpus\":[" : "", stderr);
    for (int i = 0; i < vmm->guest_count; i++) {
        fputs(json && i > 0 ? "," : "", stderr);
        (json ? vcpu_json : vcpu_print)(&vmm->vcpus[i]);
    }
    fputs(json ? "],\"vms\":[" : "", stderr);
    for (int i = 0; i < vmm->vm_count; i++) {
        snprintf(title, sizeof title, "vm%d: KVM: ", i);
        if (json) {
            fputs(i == 0 ? "{" : ",{", stderr);
            kvm_json(&totals->vms[i]);
            fputc('}', stderr);
        } else {
            kvm_print(title, &totals->vms[i]);
        }
    }
    if (json)
        fprintf(stderr, "],\"processor_ns\":%" PRIu64 "}\n", processor_ns());
    else
        fprintf(stderr, "vmm: %.3f s of processor time\n", seconds(processor_ns()));
}
