/*
 * locks.h - stands between a module and the C library's mutexes, for the unit programs of the labs
 * with threads. A misuse that usually goes unnoticed is noted, and answered as an error-checking
 * mutex would; and a test can have something happen in the gaps in which another thread could act.
 */
#pragma once

#include "unit.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <ucontext.h>
#include <x86intrin.h>

/* What a unit program's definition hides. */
#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

/*
 * The same for pthread_create and pthread_join, which AddressSanitizer follows together: clang
 * links it into the program itself, where RTLD_NEXT does not find it. Not for a signal's handler.
 */
#define REAL_OF_THREADS(name)                                                                      \
    ((__typeof__(&(name)))function_of_threads("__interceptor_" #name, #name))

BOTH static inline void *function_of_threads(const char *sanitizers, const char *name)
{
    void *found = dlsym(RTLD_DEFAULT, sanitizers);

    return found ? found : dlsym(RTLD_NEXT, name);
}

/* Looked up once: a test may step through a function whose every instruction takes a lock. */
static PRIVATE struct {
    __typeof__(&pthread_mutex_lock) lock;
    __typeof__(&pthread_mutex_trylock) trylock;
    __typeof__(&pthread_mutex_unlock) unlock;
} real;

static inline void check_locks(void);

static inline __attribute__((constructor)) void locks_begin(void)
{
    before_end = check_locks;
    real.lock = REAL(pthread_mutex_lock);
    real.trylock = REAL(pthread_mutex_trylock);
    real.unlock = REAL(pthread_mutex_unlock);
}

static pthread_mutex_t *devices_lock; /* lab 4's, once it is known */

/* The first misuse, and which lock it was. */
static enum { LOCK_RIGHT, LOCKED_TWICE, UNLOCKED_NOT_HELD, WAITED_NOT_HELD } lock_misuse;
static enum { LOCK_OTHER, LOCK_OF_VCPU, LOCK_OF_DEVICES } lock_misused;

static _Thread_local unsigned locks_held;
static _Thread_local pthread_mutex_t **first_lock; /* where to note the next lock taken, or NULL */
/*
 * In each thread that has just taken the lock, or still holds it; or NULL. Set in the module's
 * process, and private: Check takes locks in the judge, which is to be led nowhere.
 */
static PRIVATE void (*after_lock)(const pthread_mutex_t *lock);
static PRIVATE void (*before_unlock)(const pthread_mutex_t *lock);
static PRIVATE void (*before_wait)(const pthread_mutex_t *lock);

/* By the owner that glibc keeps: 0 or a thread's number. */
BOTH static inline bool lock_is_mine(const pthread_mutex_t *lock)
{
    return lock->__data.__owner == (int)syscall(SYS_gettid);
}

BOTH static inline bool lock_is_recursive(const pthread_mutex_t *lock)
{
    return (lock->__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE;
}

BOTH static inline int lock_misuse_note(int misuse, const pthread_mutex_t *lock, int error)
{
    if (lock_misuse == LOCK_RIGHT) {
        lock_misused = lock == devices_lock ? LOCK_OF_DEVICES : LOCK_OTHER;
        for (int i = 0; i < VCPUS_MAX; i++)
            if (lock == &vmm.vcpus[i].lock)
                lock_misused = LOCK_OF_VCPU;
        lock_misuse = (__typeof__(lock_misuse))misuse;
    }
    return error;
}

/*
 * A gap: this thread is about to take a lock, or has just released it. Another thread may act
 * there; a test has it act in gap number `gap_wanted`.
 */
static _Thread_local void (*in_gap)(void);
static _Thread_local const pthread_mutex_t *gap_lock; /* only gaps of this lock count */
static _Thread_local unsigned gap_wanted, gaps_seen;

BOTH static inline void gap(const pthread_mutex_t *lock)
{
    void (*act)(void) = in_gap;

    if (!act || lock != gap_lock || gaps_seen++ != gap_wanted)
        return;
    in_gap = NULL; /* what it does has no gaps */
    act();
}

/* From here to gaps_end `act` is called in gap `number` of this lock, counted from 0. */
BOTH static inline void gaps_begin(const pthread_mutex_t *lock, unsigned number, void (*act)(void))
{
    gap_lock = lock;
    gap_wanted = number;
    gaps_seen = 0;
    in_gap = act;
}

/* Whether gap `number` came. */
BOTH static inline bool gaps_end(void)
{
    in_gap = NULL;
    return gaps_seen > gap_wanted;
}

/* The lock was taken, unless there was an error, which is returned. */
BOTH static inline int lock_taken(const pthread_mutex_t *lock, int error)
{
    locks_held += error == 0;
    if (error == 0 && after_lock)
        after_lock(lock);
    return error;
}

BOTH int pthread_mutex_lock(pthread_mutex_t *lock)
{
    if (lock_is_mine(lock) && !lock_is_recursive(lock))
        return lock_misuse_note(LOCKED_TWICE, lock, EDEADLK);
    if (first_lock && !*first_lock)
        *first_lock = lock;
    gap(lock);
    return lock_taken(lock, real.lock(lock));
}

/* So many trylocks find the lock taken: another thread may have it at any time. */
static atomic_uint busy_locks;

BOTH static inline bool lock_is_busy(void)
{
    unsigned left = atomic_load(&busy_locks);

    while (left > 0 && !atomic_compare_exchange_weak(&busy_locks, &left, left - 1))
        ;
    return left > 0;
}

BOTH int pthread_mutex_trylock(pthread_mutex_t *lock)
{
    if (lock_is_busy())
        return EBUSY;
    return lock_taken(lock, real.trylock(lock));
}

BOTH int pthread_mutex_timedlock(pthread_mutex_t *lock, const struct timespec *until)
{
    return lock_taken(lock, REAL(pthread_mutex_timedlock)(lock, until));
}

BOTH int pthread_mutex_unlock(pthread_mutex_t *lock)
{
    if (!lock_is_mine(lock))
        return lock_misuse_note(UNLOCKED_NOT_HELD, lock, EPERM);
    if (before_unlock)
        before_unlock(lock);
    locks_held--;
    int error = real.unlock(lock);
    gap(lock);
    return error;
}

static atomic_uint asleep; /* threads that wait, and hold the lock that the condition needs */
static atomic_uint sleeps; /* waits so far that only a signal ends, or a time far away */

#define FAR_MS 1000 /* who waits for less polls */

/*
 * The latest time that this thread has read, of each clock: what a wait's end is counted from, so
 * that it does not matter how late the thread comes to its wait.
 */
#define CLOCKS_MAX 16
static _Thread_local struct timespec clocks_read[CLOCKS_MAX];

BOTH int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);

    if (result == 0 && clock >= 0 && clock < CLOCKS_MAX)
        clocks_read[clock] = *time;
    return result;
}

/* So many waits with a time limit reach it at once, as if that time had passed. */
static _Thread_local unsigned timeouts;

/* 0, or an error: the wait must not begin. */
BOTH static inline int wait_begin(const pthread_mutex_t *lock, clockid_t clock,
                                  const struct timespec *until)
{
    const struct timespec *start = &clocks_read[(unsigned)clock % CLOCKS_MAX];

    if (!lock_is_mine(lock)) {
        sched_yield(); /* it may come again and again */
        return lock_misuse_note(WAITED_NOT_HELD, lock, EPERM);
    }
    if (before_wait)
        before_wait(lock);
    if (until && timeouts > 0) {
        timeouts--;
        return ETIMEDOUT;
    }
    const double left = until ? (double)(until->tv_sec - start->tv_sec) * 1e3 +
                                    (double)(until->tv_nsec - start->tv_nsec) / 1e6
                              : FAR_MS;
    atomic_fetch_add(&sleeps, left > FAR_MS - 1);
    atomic_fetch_add(&asleep, 1);
    return 0;
}

BOTH static inline int wait_end(int error)
{
    atomic_fetch_sub(&asleep, 1);
    return error;
}

BOTH int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    int error = wait_begin(lock, CLOCK_REALTIME, NULL);

    return error ? error : wait_end(REAL(pthread_cond_wait)(condition, lock));
}

BOTH int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
                                const struct timespec *until)
{
    int error = wait_begin(lock, CLOCK_REALTIME, until);

    return error ? error : wait_end(REAL(pthread_cond_timedwait)(condition, lock, until));
}

BOTH int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *lock, clockid_t clock,
                                const struct timespec *until)
{
    int error = wait_begin(lock, clock, until);

    return error ? error : wait_end(REAL(pthread_cond_clockwait)(condition, lock, clock, until));
}

/* ------------------------------------------------------------------ instruction by instruction */

/* A handler of a fault in an atomic access: ThreadSanitizer holds a lock of its own there. */
#define UNWATCHED __attribute__((no_sanitize("thread")))

#define TRAP_FLAG 0x100 /* of RFLAGS: SIGTRAP after each instruction */

/* With a LOCK prefix, or XCHG, which needs none. */
BOTH static inline bool is_atomic(const uint8_t *code)
{
    code += *code == 0x66;          /* operand size */
    code += (*code & 0xf0) == 0x40; /* REX */
    return *code == 0xf0 || *code == 0x86 || *code == 0x87;
}

/* What `step`, called after an instruction, has as context: where the next one is. */
BOTH static inline const uint8_t *next_instruction(const ucontext_t *context)
{
    return (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];
}

BOTH static inline void step_handle(void (*step)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};

    sigaction(SIGTRAP, &action, NULL);
}

/* From here to steps_end `step` is called after each instruction of this thread. */
BOTH static inline void steps_begin(void (*step)(int, siginfo_t *, void *))
{
    step_handle(step);
    __writeeflags(__readeflags() | TRAP_FLAG);
}

BOTH static inline void steps_end(void)
{
    __writeeflags(__readeflags() & ~(unsigned long long)TRAP_FLAG);
}

/* ------------------------------------------------------------------ what tests ask */

static inline void check_locks(void)
{
    static const char *const names[] = {"a mutex", "vcpu->lock", "devices.lock"};
    const char *name = names[(unsigned)lock_misused % 3];

    ck_assert_msg(lock_misuse != WAITED_NOT_HELD,
                  "pthread_cond_wait with %s, which the thread does not hold: what comes between "
                  "its last look and its sleep wakes nobody",
                  name);
    ck_assert_msg(lock_misuse != LOCKED_TWICE,
                  "a thread takes %s, which it already holds: it would wait for itself forever",
                  name);
    ck_assert_msg(lock_misuse == LOCK_RIGHT,
                  "a thread unlocks %s, which it does not hold: one unlock for each lock, by the "
                  "same thread",
                  name);
}

/* Locks that the thread of the tests still holds. */
THERE(unsigned, locks_left, (void), ())
{
    return locks_held;
}

/* A lock that is kept makes the next thread that wants it hang, and the hint would blame that. */
static inline void check_unlocked(const char *function)
{
    check_locks();
    ck_assert_msg(locks_left() == 0,
                  "%s returned with a lock held: the next thread that wants it waits forever. "
                  "Unlock on each way out",
                  function);
}
