/*
 * meter.h - what is counted about a run for --stats and --record. All times are in nanoseconds, and
 * the same clock counts them: CLOCK_MONOTONIC.
 */
#pragma once

#include "vmm.h"

#define EXIT_KINDS_MAX 24
#define VECTORS_MAX    32 /* as many as `pending` has bits */
#define KVM_STATS_MAX  64

/* Latencies below 16 ns have a bucket each; above, each power of two has 16. */
#define LATENCY_STEPS   16
#define LATENCY_BUCKETS (40 * LATENCY_STEPS)

/* Exits with the same reason and, for KVM_EXIT_IO, the same direction and port. */
struct exit_kind {
    uint32_t reason; /* EXIT_NONE: exits of more kinds than there is room for */
    uint32_t out;
    uint64_t port;
    uint64_t count;
    uint64_t vmm_ns; /* from these exits to the next entries, without the time halted */
};

struct interrupt_counts {
    uint64_t raised;   /* became pending */
    uint64_t merged;   /* the device had something while it was pending already */
    uint64_t injected; /* KVM_INTERRUPT succeeded */
};

/* KVM's own statistics of a vCPU or VM: api.rst 4.133 KVM_GET_STATS_FD. */
struct kvm_stat {
    char name[48];
    uint64_t value;
};

struct kvm_stats {
    uint64_t count; /* 0: this KVM has none, or they were not read */
    struct kvm_stat stats[KVM_STATS_MAX];
};

struct vcpu_totals {
    int64_t status;     /* the vCPU's exit status; -1: it has not ended */
    uint64_t injected;  /* as the module counts: vcpu->interrupts */
    uint64_t guest_ns;  /* in KVM_RUN */
    uint64_t vmm_ns;    /* between two KVM_RUNs */
    uint64_t halted_ns; /* of that not counted in vmm_ns: the handler of KVM_EXIT_HLT waited */
    uint64_t entries;
    uint64_t interrupted;                   /* entries that ended without an exit: EINTR */
    uint64_t kicks;                         /* signals to the vCPU's thread */
    uint64_t lines;                         /* printed */
    struct exit_kind kinds[EXIT_KINDS_MAX]; /* in order of their first exits; the rest are zeros */
    struct interrupt_counts interrupts[VECTORS_MAX]; /* by vector, from TIMER_VECTOR on */
    _Atomic uint32_t pending; /* vcpu->pending when its lock was last released */
    uint32_t unused;
    uint64_t latency_worst_ns; /* from raised to injected */
    uint64_t latencies[LATENCY_BUCKETS];
    struct kvm_stats kvm;
};

struct totals {
    struct vcpu_totals vcpus[VCPUS_MAX];
    struct kvm_stats vms[VCPUS_MAX];
};
extern struct totals *totals;

/* The median of the latencies; 0: there are none. At most 3 % off. */
uint64_t latency_median(const struct vcpu_totals *vcpu);

/* Reads the statistics of a VM or a vCPU: kvm_stats.c. */
void kvm_stats_read(int fd, struct kvm_stats *stats);
