/*
 * replay.h - what the files of --explain share: replay.c, checkpoint.c, handler_traps.c, history.c
 * and crash_record.c.
 */
#pragma once

#include <signal.h>
#include <time.h>

#include "debug/debug.h"

#define HISTORY     64        /* the instructions that are written */
#define CODE_BYTES  15        /* of the longest instruction */
#define STEPS_FIRST 2000      /* instructions executed one at a time, from the last checkpoint */
#define STEPS_MAX   300000    /* and from one closer to the crash */
#define TICK_NS     200000000 /* a guest without exits is interrupted, for a new checkpoint */
#define SECOND_NS   1000000000

/* ------------------------------------------------------------------ checkpoint.c */

/* A vCPU's state at one of its entries. */
struct checkpoint {
    bool taken;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_vcpu_events events;
    uint8_t *ram;
    uint64_t *dirty;   /* pages of RAM that may differ from `ram` */
    uint64_t *written; /* pages that may have something in them */
};

/* Whether a page of RAM is in such a set. */
bool page_is_in(const uint64_t *bitmap, size_t page);

/* A vCPU whose guest may be executed again. */
struct watched {
    struct vcpu *vcpu; /* NULL: it was never entered */
    pthread_t thread;
    timer_t timer;
    bool inside;    /* between its entry and the next exit; guarded by replay.c's lock */
    int64_t waited; /* its thread's processor time at the guest's last I/O or HLT, in ns */
    struct checkpoint checkpoint;
};
extern struct watched watched[VCPUS_MAX]; /* by the vCPU's id */

/* At a vCPU's first entry, on its own thread. */
void watch_start(struct watched *watch, struct vcpu *vcpu);

/* The time of a clock, in ns. */
int64_t clock_ns(clockid_t clock);

/* Interrupts this thread, and its KVM_RUN, after a time; 0: no longer. tick_over: it has. */
void tick_arm(const struct watched *watch, long nanoseconds);
extern _Thread_local volatile sig_atomic_t tick_over;

/* Of kvm_run: other threads may set it meanwhile. */
void immediate_exit_set(struct vcpu *vcpu, uint8_t value);

/*
 * KVM carries out the rest of an exit, like the register that `in` sets, at the next KVM_RUN. With
 * immediate_exit it does no more than that. A kick that this clears came before the hooks that
 * look for its reason.
 */
void exit_finish(struct vcpu *vcpu);

/* Keeps the vCPU's state; goes back to it; false: KVM refuses. */
void checkpoint_take(struct vcpu *vcpu);
bool checkpoint_restore(struct vcpu *vcpu);

/* RAM as it is; and as it was then: checkpoint_restore changes what other vCPUs go on with. */
uint8_t *ram_keep(const struct vm *vm);
void ram_return(const struct vm *vm, uint8_t *kept);

/*
 * Brings the checkpoint closer to the crash, because a guest may execute millions of instructions.
 * false: the guest no longer crashes, or not before `deadline` (CLOCK_MONOTONIC).
 */
bool checkpoint_advance(struct vcpu *vcpu, int64_t deadline);

/* ------------------------------------------------------------------ handler_traps.c */

/* The first byte of a handler, HLT for now. */
struct trap {
    uint64_t phys;
    uint8_t byte; /* the handler's own */
};

/* Sets the traps, again if the guest has changed its handlers; removes them all. */
void traps_update(struct vcpu *vcpu, const struct kvm_sregs *sregs);
void traps_remove(struct vm *vm);

/* The trap at an address, or NULL. */
struct trap *trap_at(uint64_t phys);

/* ------------------------------------------------------------------ history.c */

/* An instruction that is about to be executed. */
struct instruction {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint8_t code[CODE_BYTES];
    size_t code_bytes;
    uint32_t repeated; /* how often, if it is a repeated string instruction */
    bool handler;      /* the processor came here to deliver an exception or interrupt */
};
extern struct instruction history[HISTORY]; /* a ring: the latest is at (count - 1) % HISTORY */
extern uint64_t history_count;

/*
 * Executes from the checkpoint to the crash, at most `max` instructions, one at a time, and not
 * beyond `deadline`. Returns whether it ended with `reason`, as the first time.
 */
bool step_all(struct vcpu *vcpu, uint32_t reason, int max, int64_t deadline);

/* ------------------------------------------------------------------ crash_record.c */

/*
 * Writes the history and the memory. `reason`: the exit's name, "hang" or "no exit"; `same`: the
 * guest has ended as the first time.
 */
void record_print(struct vcpu *vcpu, const char *reason, bool same);
