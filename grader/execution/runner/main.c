/* The runner: reads runs as records from descriptor 0, executes them, and writes the results there
 * (see grader/execution/runs.py).
 *
 * The same program runs on the host, as a child of the grader, and in the lab VM, as a child of its
 * init. Usage: runner [USER]: runs are executed as user number USER, without any capability.
 * Without USER they keep the grading user; if that is root, they get another user who can read
 * root's files.
 *
 * Or: runner confine [files] COMMAND...: see confine.h.
 */
#define _GNU_SOURCE
#include "confine.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static bool directories_make(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool made = mkdir(path, 0755) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made)
            return false;
    }
    return true;
}

/*
 * "MODE PATH\0CONTENT": a file for a later run; a path that ends in '/' is a folder. The runs' user
 * is the owner, except of what everyone may execute: without a right to read, no run can read it.
 */
static bool file_unpack(const struct record *record, uid_t owner)
{
    char *path = strchr(record->data, ' ');
    if (!path++ || !directories_make(path))
        return false;
    if (path[strlen(path) - 1] == '/')
        return true;
    size_t header = (size_t)(path - record->data) + strlen(path) + 1;
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    ssize_t size = (ssize_t)(record->length - header);
    mode_t mode = (mode_t)strtoul(record->data, NULL, 8);
    bool done = write(fd, record->data + header, (size_t)size) == size &&
                (mode & S_IXOTH || fchown(fd, owner, owner) == 0) && fchmod(fd, mode) == 0;
    close(fd);
    return done;
}

/* A restored VM's clock has the time of the snapshot. */
static bool clock_set(const char *text)
{
    long seconds, microseconds;
    return sscanf(text, "%ld %ld", &seconds, &microseconds) == 2 &&
           settimeofday(&(struct timeval){seconds, microseconds}, NULL) == 0;
}

static bool serve(int channel, const struct supervisor_options *options)
{
    struct job job = {0};
    struct record record;
    bool alive = true;
    while (alive && record_read(channel, &record)) {
        bool understood = true;
        if (record_is(&record, "go")) {
            alive = run_execute(channel, &job, options);
            job_free(&job);
        } else if (record_is(&record, "unpack")) {
            understood = file_unpack(&record, options->user);
        } else if (record_is(&record, "hello")) {
            alive = record_write(channel, "hello", "", 0);
        } else if (record_is(&record, "clock")) {
            understood = clock_set(record.data);
        } else {
            understood = job_add(&job, &record);
        }
        if (!understood) {
            record_printf(channel, "error", "%s: %s", record.key, strerror(errno));
            alive = false;
        }
        record_free(&record);
    }
    job_free(&job);
    return alive;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"plain", "namespaces", "user namespaces"};

    if (argc > 2 && strcmp(argv[1], "confine") == 0) {
        confine(argv + 2);
        return 1;
    }
    struct supervisor_options options = {.isolation = isolation_detect()};
    options.user = argc > 1 ? (uid_t)atol(argv[1]) : isolation_user(options.isolation);
    options.override = argc == 1 && geteuid() == 0;
    int channel = fcntl(0, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (channel < 0 || null < 0 || dup2(null, 0) < 0) {
        perror("runner: descriptors");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the grader, which then closes the channel */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* To get CPU time even during a fork bomb; only root may. */
    options.priority = getpriority(PRIO_PROCESS, 0);
    setpriority(PRIO_PROCESS, 0, -20);
    if (!record_printf(channel, "ready", "%s", names[options.isolation]))
        return 1;
    return serve(channel, &options) ? 0 : 1;
}
