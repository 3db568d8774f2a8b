/*
 * meter.c - measures a run for --stats and --record: where each vCPU's time goes, and what becomes
 * of each interrupt. It sees the modules from outside only. An interrupt is raised when its bit in
 * vcpu->pending is new at the time vcpu->lock is released, and injected when KVM_INTERRUPT
 * succeeds. Linux's interrupts come from devices that the meter does not see: there they count as
 * raised when they are injected.
 */
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "debug/debug.h"
#include "debug/record.h"

static struct totals own_totals; /* without a record */
struct totals *totals = &own_totals;

/* A vCPU as it is now. */
static struct {
    /* Only its own thread uses these. */
    uint64_t since; /* when the guest was entered or left; 0: before the first entry */
    bool in_guest;
    struct exit_kind *kind; /* of the exit that is handled; NULL: none */

    atomic_bool started; /* then `thread` is valid */
    pthread_t thread;

    /* vcpu->lock guards these, if the module takes it where it must. */
    _Atomic uint32_t injected; /* vectors that were injected since the lock was taken */
    _Atomic uint64_t raised_ns[VECTORS_MAX]; /* 0: not seen */
} meters[VCPUS_MAX];

static struct vmm *vmm;
static atomic_int timer_fd = -1;

static _Thread_local struct vcpu *self; /* the vCPU that this thread runs */

/* By vCPU: vectors that this thread is about to raise, because of what it has read. */
static _Thread_local uint32_t expected[VCPUS_MAX];

static _Thread_local char line[RECORD_LINE_MAX]; /* printed, without a newline yet */
static _Thread_local size_t line_bytes;

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Adds to a count that several threads change. */
static void count_add(uint64_t *count)
{
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

/* Records an event of a vCPU, or with RECORD_NO_VCPU of the devices. */
static void event_add(uint64_t time, enum event_kind kind, int vcpu, uint32_t number)
{
    const uint8_t source = self ? (uint8_t)self->id : RECORD_NO_VCPU;

    record_event((struct event){.time_ns = time,
                                .kind = (uint8_t)kind,
                                .vcpu = (uint8_t)vcpu,
                                .source = source,
                                .number = number});
}

static void meter_start(struct vmm *whole)
{
    vmm = whole;
    record_start(vmm, now());
    for (size_t i = 0; i < VCPUS_MAX; i++)
        totals->vcpus[i].status = -1;
}

/* ------------------------------------------------------------------ time */

static struct exit_kind *kind_find(struct vcpu_totals *vcpu, const struct exit_record *exit)
{
    const bool io = exit->reason == KVM_EXIT_IO;
    const uint32_t out = io && exit->out;
    const uint64_t port = io ? exit->address : 0;

    for (size_t i = 0; i < EXIT_KINDS_MAX - 1; i++) {
        struct exit_kind *kind = &vcpu->kinds[i];
        if (kind->count == 0)
            *kind = (struct exit_kind){.reason = exit->reason, .out = out, .port = port};
        if (kind->reason == exit->reason && kind->out == out && kind->port == port)
            return kind;
    }
    vcpu->kinds[EXIT_KINDS_MAX - 1].reason = EXIT_NONE;
    return &vcpu->kinds[EXIT_KINDS_MAX - 1];
}

/* The time since the last entry or exit was the guest's or the VMM's. */
static void time_add(struct vcpu *vcpu, uint64_t time)
{
    struct vcpu_totals *total = &totals->vcpus[vcpu->id];
    uint64_t took = time - meters[vcpu->id].since;

    if (meters[vcpu->id].in_guest) {
        total->guest_ns += took;
    } else {
        total->vmm_ns += took;
        if (meters[vcpu->id].kind)
            meters[vcpu->id].kind->vmm_ns += took;
    }
    meters[vcpu->id].since = time;
}

static void meter_before_hooks(struct vcpu *vcpu)
{
    struct vcpu_totals *total = &totals->vcpus[vcpu->id];
    struct exit_kind *kind = meters[vcpu->id].kind;
    uint64_t time = now();

    if (!self) {
        self = vcpu;
        meters[vcpu->id].thread = pthread_self();
        atomic_store(&meters[vcpu->id].started, true);
        meters[vcpu->id].since = time;
        event_add(time, EVENT_STARTED, vcpu->id, 0);
    } else if (meters[vcpu->id].in_guest) {
        time_add(vcpu, time);
        meters[vcpu->id].in_guest = false;
        meters[vcpu->id].kind = NULL;
        total->interrupted++;
        event_add(time, EVENT_INTERRUPTED, vcpu->id, 0);
    } else if (kind && kind->reason == KVM_EXIT_HLT) {
        total->halted_ns += time - meters[vcpu->id].since;
        meters[vcpu->id].since = time;
        event_add(time, EVENT_WOKEN, vcpu->id, 0);
    }
}

static void meter_entry(struct vcpu *vcpu)
{
    uint64_t time = now();

    time_add(vcpu, time);
    meters[vcpu->id].in_guest = true;
    totals->vcpus[vcpu->id].entries++;
    event_add(time, EVENT_ENTERED, vcpu->id, 0);
}

static void meter_exit(struct vcpu *vcpu)
{
    uint64_t time = now();
    const struct exit_record exit = exit_read(vcpu->run);

    time_add(vcpu, time);
    meters[vcpu->id].in_guest = false;
    meters[vcpu->id].kind = kind_find(&totals->vcpus[vcpu->id], &exit);
    meters[vcpu->id].kind->count++;
    record_event((struct event){.time_ns = time,
                                .kind = EVENT_EXITED,
                                .vcpu = (uint8_t)vcpu->id,
                                .source = (uint8_t)vcpu->id,
                                .detail = exit.out,
                                .number = exit.reason,
                                .a = exit.address,
                                .b = exit.rip});
}

static void meter_crash(struct vcpu *vcpu)
{
    event_add(now(), EVENT_CRASHED, vcpu->id, 0);
}

/* Records what the vCPU has printed since its last newline. */
static void line_end(uint64_t time)
{
    record_line(time, (uint8_t)self->id, line, line_bytes);
    line_bytes = 0;
}

static void meter_ended(struct vcpu *vcpu)
{
    struct vcpu_totals *total = &totals->vcpus[vcpu->id];
    uint64_t time = now();

    time_add(vcpu, time);
    total->status = vcpu->status;
    total->injected = vcpu->interrupts;
    if (self)
        line_end(time);
    event_add(time, EVENT_ENDED, vcpu->id, (uint32_t)vcpu->status);
    kvm_stats_read(vcpu->fd, &total->kvm);
    kvm_stats_read(vcpu->vm->fd, &totals->vms[vcpu->vm - vmm->vms]);
}

static void meter_output(const char *bytes, size_t count)
{
    for (size_t i = 0; self && i < count; i++) {
        if (bytes[i] == '\n') {
            totals->vcpus[self->id].lines++;
            line_end(now());
        } else if (line_bytes < sizeof line) {
            line[line_bytes++] = bytes[i];
        }
    }
}

/* ------------------------------------------------------------------ interrupts */

static void meter_timer(int fd)
{
    atomic_store(&timer_fd, fd);
}

/*
 * A device has something: its interrupt is raised next, or merges if it is still pending. Only the
 * vCPU's lock says which, so meter_unlock decides.
 */
static void meter_device_read(int fd, const void *bytes, ssize_t count)
{
    const bool timer = fd == atomic_load(&timer_fd);
    uint64_t expirations = 0;

    if (count < 0 || self || !(timer || fd == STDIN_FILENO))
        return;
    if (timer && count == sizeof expirations)
        memcpy(&expirations, bytes, sizeof expirations);
    if (timer)
        event_add(now(), EVENT_TICK, RECORD_NO_VCPU, (uint32_t)expirations);
    else
        event_add(now(), EVENT_INPUT, RECORD_NO_VCPU, (uint32_t)count);
    const uint32_t raised = timer ? 1u : 1u << (KEYBOARD_VECTOR - TIMER_VECTOR);
    for (int i = 0; i < vmm->guest_count; i++)
        expected[i] = timer || vmm->vcpus[i].index == 0 ? raised : 0;
}

static void meter_unlock(pthread_mutex_t *mutex)
{
    size_t id = 0;

    while (vmm && id < (size_t)vmm->guest_count && mutex != &vmm->vcpus[id].lock)
        id++;
    if (!vmm || id == (size_t)vmm->guest_count)
        return;
    struct vcpu *vcpu = &vmm->vcpus[id];
    if (vcpu->state == VCPU_ENDED) /* nothing more will be injected */
        return;
    if (vcpu->guest->kind == GUEST_LINUX) /* its set has news for the devices: see lab8.h */
        return;
    const uint32_t pending = vcpu->pending, injected = meters[id].injected;
    uint32_t before = totals->vcpus[id].pending;
    uint64_t time = pending ? now() : 0;

    if (self != vcpu)
        before &= ~injected; /* the vCPU's thread has cleared these without the lock */
    for (unsigned bit = 0; pending && bit < VECTORS_MAX; bit++) {
        const uint32_t mask = 1u << bit;
        if (pending & ~before & mask) {
            meters[id].raised_ns[bit] = time;
            count_add(&totals->vcpus[id].interrupts[bit].raised);
            event_add(time, EVENT_RAISED, (int)id, TIMER_VECTOR + bit);
            expected[id] &= ~mask;
        } else if (pending & expected[id] & mask) {
            count_add(&totals->vcpus[id].interrupts[bit].merged);
            event_add(time, EVENT_MERGED, (int)id, TIMER_VECTOR + bit);
            expected[id] &= ~mask;
        }
    }
    totals->vcpus[id].pending = pending;
    meters[id].injected = 0;
}

static void latency_add(struct vcpu_totals *vcpu, uint64_t latency)
{
    const unsigned octave = latency < LATENCY_STEPS ? 0 : 60 - (unsigned)__builtin_clzll(latency);
    const uint64_t step = octave == 0 ? latency : (latency >> (octave - 1)) % LATENCY_STEPS;
    const uint64_t bucket = octave * LATENCY_STEPS + step;

    vcpu->latencies[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
    if (latency > vcpu->latency_worst_ns)
        vcpu->latency_worst_ns = latency;
}

uint64_t latency_median(const struct vcpu_totals *vcpu)
{
    uint64_t all = 0, seen = 0, bucket = 0;

    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        all += vcpu->latencies[i];
    if (all == 0)
        return 0;
    while ((seen += vcpu->latencies[bucket]) < (all + 1) / 2)
        bucket++;
    const uint64_t octave = bucket / LATENCY_STEPS, step = bucket % LATENCY_STEPS;
    /* The middle of the bucket: a latency of octave 1 or more has a leading 1 before its step. */
    const uint64_t middle =
        octave == 0 ? step : ((LATENCY_STEPS + step) << (octave - 1)) + (1ull << (octave - 1)) / 2;
    return middle < vcpu->latency_worst_ns ? middle : vcpu->latency_worst_ns;
}

static void meter_injected(int vcpu_fd, uint32_t vector)
{
    const uint32_t bit = vector - TIMER_VECTOR;
    int id = 0;

    while (id < vmm->guest_count && vmm->vcpus[id].fd != vcpu_fd)
        id++;
    if (id == vmm->guest_count || bit >= VECTORS_MAX)
        return;
    uint64_t time = now(), raised = atomic_exchange(&meters[id].raised_ns[bit], 0);
    if (raised)
        latency_add(&totals->vcpus[id], time - raised);
    record_event((struct event){.time_ns = time,
                                .kind = EVENT_INJECTED,
                                .vcpu = (uint8_t)id,
                                .source = (uint8_t)id,
                                .number = vector,
                                .a = raised ? time - raised : 0});
    totals->vcpus[id].interrupts[bit].injected++;
    if (vmm->vcpus[id].guest->kind == GUEST_LINUX) /* its 8259s raise: unseen until then */
        totals->vcpus[id].interrupts[bit].raised++;
    meters[id].injected |= 1u << bit;
}

static void meter_signal(pthread_t thread, int signal)
{
    for (int i = 0; signal > 0 && signal < SIGRTMIN && i < vmm->guest_count; i++)
        if (atomic_load(&meters[i].started) && pthread_equal(meters[i].thread, thread)) {
            count_add(&totals->vcpus[i].kicks);
            event_add(now(), EVENT_KICKED, i, (uint32_t)signal);
        }
}

const struct observer meter = {
    .start = meter_start,
    .finish = record_finish,
    .todo = record_todo,
    .before_hooks = meter_before_hooks,
    .entry = meter_entry,
    .exit = meter_exit,
    .crash = meter_crash,
    .ended = meter_ended,
    .output = meter_output,
    .unlock = meter_unlock,
    .injected = meter_injected,
    .signal = meter_signal,
    .timer = meter_timer,
    .device_read = meter_device_read,
};
