/*
 * replay.c - how a guest came to its crash, for make explain (--explain). At every entry it keeps a
 * checkpoint of the vCPU and of RAM. When the guest crashes it returns to the last one, executes
 * the guest again one instruction at a time, and writes the last instructions and the guest's
 * memory to standard error; grader/commands/explain/ reads them.
 *
 * Interrupts are injected at entries only, so what a guest executes between an entry and the next
 * exit depends on nothing but the state at that entry: the second time it does the same.
 *
 * A guest that hangs is ended, and what it executes from there is written.
 */
#include <sys/ioctl.h>

#include "debug/replay.h"
#include "given.h"

#define TRIES     4
#define REPLAY_NS (30 * (int64_t)SECOND_NS) /* after that it is given up */
#define HANG_NS   (3 * (int64_t)SECOND_NS)  /* of processor time without I/O or HLT */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool replaying; /* no other vCPU may enter; guarded by `lock` */

static void set_inside(struct watched *watch, bool inside)
{
    watch->inside = inside;
    pthread_cond_broadcast(&changed);
}

/* Waits until no other vCPU is in its guest, and keeps them out. Called with the lock. */
static void others_stop(const struct watched *self)
{
    while (replaying)
        pthread_cond_wait(&changed, &lock);
    replaying = true;
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct watched *other = &watched[id];
        if (other == self || !other->inside)
            continue;
        immediate_exit_set(other->vcpu, 1);
        pthread_kill(other->thread, SIGRTMIN);
        while (other->inside)
            pthread_cond_wait(&changed, &lock);
    }
}

static void others_continue(void)
{
    pthread_mutex_lock(&lock);
    replaying = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void replay_before_hooks(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    set_inside(watch, false); /* after EINTR there was no exit */
    pthread_mutex_unlock(&lock);
    exit_finish(vcpu);
}

/* Writes what a guest that has not crashed executes from its checkpoint on. */
static void executes_record(struct vcpu *vcpu, const char *reason)
{
    step_all(vcpu, KVM_EXIT_DEBUG, HISTORY, INT64_MAX);
    record_print(vcpu, reason, true);
}

static bool replay_ends(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    if (!watch->vcpu || clock_ns(CLOCK_THREAD_CPUTIME_ID) - watch->waited < HANG_NS)
        return false;
    pthread_mutex_lock(&lock);
    others_stop(watch);
    checkpoint_take(vcpu);
    pthread_mutex_unlock(&lock);
    executes_record(vcpu, "hang");
    others_continue();
    vcpu->status = STATUS_CRASHED;
    return true;
}

static void replay_entry(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    while (replaying)
        pthread_cond_wait(&changed, &lock);
    if (!watch->vcpu)
        watch_start(watch, vcpu);
    checkpoint_take(vcpu);
    set_inside(watch, true);
    pthread_mutex_unlock(&lock);
    tick_arm(watch, TICK_NS);
}

static void replay_exit(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    tick_arm(watch, 0);
    if (vcpu->run->exit_reason != KVM_EXIT_IRQ_WINDOW_OPEN)
        watch->waited = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_lock(&lock);
    set_inside(watch, false);
    pthread_mutex_unlock(&lock);
}

/* Executes the guest again up to its crash, and writes how it came to it. */
static void crash_record(struct vcpu *vcpu, uint32_t reason)
{
    int64_t deadline = clock_ns(CLOCK_MONOTONIC) + REPLAY_NS;
    bool same = false;

    for (int try = 0; try < TRIES && !same; try++)
        same = step_all(vcpu, reason, STEPS_FIRST, deadline) ||
               (history_count >= STEPS_FIRST && checkpoint_advance(vcpu, deadline) &&
                step_all(vcpu, reason, STEPS_MAX, deadline));
    record_print(vcpu, exit_name(reason), same);
}

static void replay_crash(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];
    uint32_t reason = vcpu->exit.reason;

    pthread_mutex_lock(&lock);
    bool failed = watch->inside; /* KVM_RUN, without an exit */
    set_inside(watch, false);
    others_stop(watch);
    pthread_mutex_unlock(&lock);
    if (!watch->checkpoint.taken)
        return;
    uint8_t *kept = ram_keep(vcpu->vm);
    if (failed)
        executes_record(vcpu, "no exit");
    else
        crash_record(vcpu, reason);
    ram_return(vcpu->vm, kept);
}

/* The post-mortem reads RAM as well. */
static void replay_crash_end(struct vcpu *vcpu)
{
    others_continue();
}

const struct observer replay = {
    .before_hooks = replay_before_hooks,
    .ends = replay_ends,
    .entry = replay_entry,
    .exit = replay_exit,
    .crash = replay_crash,
    .crash_end = replay_crash_end,
};
