/*
 * threads.h - what the unit programs ask about the threads that a module has started: whether they
 * sleep while nothing happens. It does not depend on the machine's speed: who sleeps is not woken,
 * however long it takes, and who runs, or waits for a processor, does not sleep.
 */
#pragma once

#include "locks.h"

#include <dirent.h>
#include <stdio.h>

#define TASKS       "/proc/self/task"
#define THREADS_MAX 64
#define LOOK_MS     20   /* between two checks of the threads */
#define SLEEP_MS    300  /* who has slept so long does not look again and again */
#define WAKES_MAX   50   /* of all threads: far more than what came last takes */
#define SPIN_MS     2000 /* of processor time: the same */

/* A thread as it was at the latest look. */
struct thread_seen {
    int id;
    unsigned long switches; /* how often it has stopped to run */
    double since;           /* ms: it has slept from then on */
};

static struct thread_seen threads_seen[THREADS_MAX];
static int threads_before[THREADS_MAX]; /* the test's own, and perhaps a sanitizer's */
static size_t threads_before_count;

BOTH static void *thread_nothing(void *argument)
{
    return argument;
}

BOTH static double clock_in_ms(clockid_t clock)
{
    struct timespec time;

    syscall(SYS_clock_gettime, clock, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* The module has started no thread yet. A sanitizer starts its own with the first thread. */
THERE_VOID(threads_begin, (void), ())
{
    pthread_t first;

    pthread_create(&first, NULL, thread_nothing, NULL);
    pthread_join(first, NULL);
    DIR *tasks = opendir(TASKS);
    threads_before_count = 0;
    for (struct dirent *task; tasks && (task = readdir(tasks));)
        if (threads_before_count < THREADS_MAX)
            threads_before[threads_before_count++] = atoi(task->d_name);
    if (tasks)
        closedir(tasks);
}

BOTH static bool is_the_modules(int id)
{
    for (size_t i = 0; i < threads_before_count; i++)
        if (threads_before[i] == id)
            return false;
    return true;
}

/* Whether the thread runs, or waits for a processor; *switches is left as it is if it has ended. */
BOTH static bool thread_runs(int id, unsigned long *switches)
{
    char path[40], line[80], state = 'S';
    unsigned long own = 0, forced = 0;

    snprintf(path, sizeof path, TASKS "/%d/status", id);
    FILE *status = fopen(path, "r");
    if (!status)
        return false;
    while (fgets(line, sizeof line, status)) {
        sscanf(line, "State: %c", &state);
        sscanf(line, "voluntary_ctxt_switches: %lu", &own);
        sscanf(line, "nonvoluntary_ctxt_switches: %lu", &forced);
    }
    fclose(status);
    *switches = own + forced;
    return state == 'R';
}

/* One look at a thread. */
BOTH static const struct thread_seen *thread_look(int id)
{
    const double now_ms = clock_in_ms(CLOCK_MONOTONIC);
    struct thread_seen *seen = threads_seen;

    while (seen < threads_seen + THREADS_MAX - 1 && seen->id != 0 && seen->id != id)
        seen++;
    unsigned long switches = seen->switches;
    const bool runs = thread_runs(id, &switches);
    if (runs || seen->id != id || switches != seen->switches)
        *seen = (struct thread_seen){id, switches, now_ms};
    return seen;
}

/* The module's threads: how many there are, how many have slept from this time on, and how often
 * all of them have stopped to run. */
struct threads_now {
    unsigned count, asleep;
    unsigned long switches;
};

BOTH static struct threads_now threads_look(double from)
{
    struct threads_now now = {0, 0, 0};
    DIR *tasks = opendir(TASKS);

    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        const int id = atoi(task->d_name);
        if (id <= 0 || !is_the_modules(id))
            continue;
        const struct thread_seen *seen = thread_look(id);
        now.count++;
        now.asleep += seen->since <= from;
        now.switches += seen->switches;
    }
    if (tasks)
        closedir(tasks);
    return now;
}

/* How many threads of the module there are. One that was joined may take a moment to vanish. */
THERE(unsigned, threads_left, (void), ())
{
    return threads_look(0).count;
}

/*
 * Whether the module's threads, once they have done what came last, go to sleep, and none wakes
 * again soon. One that is kept from running may take any time for that.
 */
THERE(bool, threads_sleep, (void), ())
{
    const double used_ms = clock_in_ms(CLOCK_PROCESS_CPUTIME_ID);

    memset(threads_seen, 0, sizeof threads_seen);
    const unsigned long switches = threads_look(0).switches;
    for (;;) {
        poll(NULL, 0, LOOK_MS);
        const struct threads_now now = threads_look(clock_in_ms(CLOCK_MONOTONIC) - SLEEP_MS);
        if (now.asleep == now.count)
            return true;
        if (now.switches > switches + WAKES_MAX ||
            clock_in_ms(CLOCK_PROCESS_CPUTIME_ID) - used_ms > SPIN_MS)
            return false;
    }
}
