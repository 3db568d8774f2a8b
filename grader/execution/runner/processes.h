/* The descendants of one process, from /proc. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct usage {
    size_t count;  /* running processes, without zombies */
    size_t memory; /* resident bytes of all */
    double cpu;    /* seconds of all */
    double total;  /* the same, with those that have ended and that a parent has waited for */
};

/* The number of all processes and threads of the machine; very cheap. */
size_t processes_on_machine(void);

/* Resource usage of the descendants of `root`, without root itself. */
struct usage processes_measure(pid_t root);

/*
 * Whether all threads of the descendants of `root` sleep. `switches` is the number of their context
 * switches so far: if it is the same twice, no thread has run in between.
 */
bool processes_asleep(pid_t root, unsigned long long *switches);

/* Send SIGKILL to every descendant of `root`; returns how many were found. */
size_t processes_kill(pid_t root);

/* Text for a person: each descendant with its threads, their state, CPU time and system call. */
void processes_describe(pid_t root, char *text, size_t size);
