/* The supervisor: the process between the runner and the program.
 *
 * Where the machine allows namespaces, it is process 1 of its own PID namespace: killing it kills
 * every process that the program ever started, and no process inside can kill it, trace it or see
 * past it. Elsewhere it is the "subreaper": the program's orphans become its children, so they can
 * be found.
 */
#pragma once

#include "job.h"

#include <sys/types.h>

enum isolation { ISOLATION_PLAIN, ISOLATION_NAMESPACES, ISOLATION_USER_NAMESPACES };

struct supervisor_options {
    enum isolation isolation;
    uid_t user;    /* become this user; 0: keep ours */
    bool override; /* but keep root's access to all files */
    int priority;  /* the program's nice value; the runner's own is better if allowed */
};

struct supervisor {
    pid_t pid;
    int report;  /* records from it: "failed ERRNO", "ended STATUS CPU LEFT", "file"; then end of
                    file */
    int command; /* records to it: "signal NUMBER" */
};

/* The strictest isolation that works on this machine. */
enum isolation isolation_detect(void);

/* If we are root: a user number for programs that no other program on the machine has, because the
 * kernel limits the number of processes of every user except root (RLIMIT_NPROC). 0 if we are not
 * root, or if that user could not reach root's files, as in a user namespace, which has only one
 * user. */
uid_t isolation_user(enum isolation isolation);

/* Start the program of `job` under a new supervisor, with these three descriptors as stdin, stdout
 * and stderr. False on failure, with errno set. */
bool supervisor_start(struct supervisor *supervisor, const struct job *job,
                      const struct supervisor_options *options, const int stdio[3],
                      const char *scratch);
