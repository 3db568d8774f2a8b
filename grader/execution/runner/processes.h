/* The processes below one process, as /proc shows them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct usage {
    size_t count;  /* processes that still run; a zombie does not */
    size_t memory; /* resident bytes of all */
    double cpu;    /* seconds of all */
};

/* All processes and threads of the machine. Costs next to nothing. */
size_t processes_on_machine(void);

/* What the descendants of `root` use, without root itself. */
struct usage processes_measure(pid_t root);

/*
 * Whether all threads of the descendants of `root` sleep. `switches` is how often they have been
 * switched to and from so far: who finds the same number twice knows that none has run meanwhile.
 */
bool processes_asleep(pid_t root, unsigned long long *switches);

/* SIGKILL to every descendant of `root`; the number of those found. */
size_t processes_kill(pid_t root);

/* Text for a person: each descendant with its threads, their state, CPU time and system call. */
void processes_describe(pid_t root, char *text, size_t size);
