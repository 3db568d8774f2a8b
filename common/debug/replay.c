/*
 * replay.c - how a guest came to its crash, for make explain (--explain). At every entry it keeps a
 * checkpoint of the vCPU and of RAM. When the guest crashes it returns to the last one, executes
 * the guest again one instruction at a time, and writes the last instructions and the guest's
 * memory to standard error; grader/commands/explain/ reads them.
 *
 * Interrupts are injected at entries only, so what a guest executes between an entry and the next
 * exit depends on nothing but the state at that entry: the second time it does the same.
 */
#include <sys/ioctl.h>

#include "debug/replay.h"
#include "given.h"

#define TRIES 4

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool replaying; /* no other vCPU may enter; guarded by `lock` */

static void set_inside(struct watched *watch, bool inside)
{
    watch->inside = inside;
    pthread_cond_broadcast(&changed);
}

/*
 * KVM carries out the rest of an exit, like the register that `in` sets, at the next KVM_RUN. With
 * immediate_exit it does no more than that. A kick that this clears came before the hooks that
 * look for its reason.
 */
static void finish_exit(struct vcpu *vcpu)
{
    vcpu->run->immediate_exit = 1;
    ioctl(vcpu->fd, KVM_RUN, 0);
    vcpu->run->immediate_exit = 0;
}

static void replay_before_hooks(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    if (!watch->vcpu)
        watch_start(watch, vcpu);
    set_inside(watch, false); /* after EINTR there was no exit */
    while (replaying)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    finish_exit(vcpu);
}

static void replay_entry(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    checkpoint_take(vcpu);
    set_inside(watch, true);
    pthread_mutex_unlock(&lock);
    tick_arm(watch, TICK_NS);
}

static void replay_exit(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    tick_arm(watch, 0);
    pthread_mutex_lock(&lock);
    set_inside(watch, false);
    pthread_mutex_unlock(&lock);
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
        other->vcpu->run->immediate_exit = 1;
        pthread_kill(other->thread, SIGRTMIN);
        while (other->inside)
            pthread_cond_wait(&changed, &lock);
    }
}

static void replay_crash(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];
    uint32_t reason = vcpu->exit.reason;

    if (!watch->checkpoint.taken)
        return;
    pthread_mutex_lock(&lock);
    set_inside(watch, false); /* KVM_RUN may have failed */
    others_stop(watch);
    pthread_mutex_unlock(&lock);
    bool same = false;
    for (int try = 0; try < TRIES && !same; try++)
        same = step_all(vcpu, reason, STEPS_FIRST) ||
               (history_count >= STEPS_FIRST && checkpoint_advance(vcpu) &&
                step_all(vcpu, reason, STEPS_MAX));
    record_print(vcpu, same);
    pthread_mutex_lock(&lock);
    replaying = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

const struct observer replay = {
    .before_hooks = replay_before_hooks,
    .entry = replay_entry,
    .exit = replay_exit,
    .crash = replay_crash,
};
