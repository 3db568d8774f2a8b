/* The supervisor: the process between the runner and the program.
 *
 * Where the machine allows namespaces it is process 1 of a PID namespace of its own: killing it
 * kills all that the program ever started, and from inside nothing can kill it, trace it or see
 * past it. Elsewhere it is the "subreaper" to which the program's orphans fall, so that they can be
 * found.
 */
#pragma once

#include "job.h"

#include <sys/types.h>

enum isolation { ISOLATION_PLAIN, ISOLATION_NAMESPACES, ISOLATION_USER_NAMESPACES };

struct supervisor_options {
    enum isolation isolation;
    uid_t user;    /* become this user; 0 stays who we are */
    bool override; /* but reach all files, as root does */
    int priority;  /* the program's nice value; the runner's own is better where that is allowed */
};

struct supervisor {
    pid_t pid;
    int report;  /* records from it: "failed ERRNO", "ended STATUS CPU LEFT", "file"; then end of
                    file */
    int command; /* records to it: "signal NUMBER" */
};

/* The strictest isolation that this machine allows, found by trying. */
enum isolation isolation_detect(void);

/* Where we are root: a user number for programs, that no other program of the machine has. The
 * kernel bounds the number of processes of any user but root (RLIMIT_NPROC). 0 where we are not
 * root, or can't be such a user and still reach root's files; so in a user namespace, which has
 * only us. */
uid_t isolation_user(enum isolation isolation);

/* Start the program of `job` under a new supervisor, with these three descriptors as its own.
 * False: errno says why. */
bool supervisor_start(struct supervisor *supervisor, const struct job *job,
                      const struct supervisor_options *options, const int stdio[3],
                      const char *scratch);
