#define _GNU_SOURCE
#include "supervisor.h"

#include "isolation.h"
#include "processes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * Time for helpers to end after the program, before they count as left behind.
 */
enum { GRACE_MS = 100, GRACE_STEP_MS = 5 };

/* The kernel's own limit counts all threads of the user. It stops a fork bomb; the runner counts
 * this run's processes and reports it. */
enum { THREADS_EACH = 16 };

enum { DESCRIPTORS_MAX = PORT_FD + 1 };

static void limit(__rlimit_resource_t resource, rlim_t value)
{
    if (!isolation_limit(resource, value))
        perror("runner: limit");
}

static void prefer_for_oom_killer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1000", 4) != 4)
        perror("runner: oom_score_adj");
    close(fd);
}

/* Become the program. Returns only on failure, with errno set. */
static void program_become(const struct job *job, const struct supervisor_options *options,
                           const int stdio[3], const char *scratch)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    for (int fd = 0; fd < 3; fd++)
        if (job->terminal[fd] && ioctl(stdio[fd], TIOCSCTTY, 0) == 0)
            break;
    prefer_for_oom_killer();
    limit(RLIMIT_CORE, 0);
    if (job->limits.file)
        limit(RLIMIT_FSIZE, job->limits.file);
    if (job->limits.processes)
        limit(RLIMIT_NPROC, processes_on_machine() + THREADS_EACH * job->limits.processes);
    setpriority(PRIO_PROCESS, 0, options->priority);
    if (!isolation_drop_rights(options->user, options->override) ||
        chdir(job->directory ? job->directory : scratch) != 0 ||
        !isolation_forbid_calls(!job->live, job->no_kvm_devices))
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(stdio[fd], fd) < 0)
            return;
    /* Also what who started the runner has left open. */
    for (int fd = STDERR_FILENO + 1; fd < DESCRIPTORS_MAX; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (job->port > 0 && dup2(job->port, PORT_FD) < 0)
        return;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(job->program, job->arguments.items,
           job->environment.items ? job->environment.items : (char *[]){NULL});
}

/* Wait until the program ends; reap orphans and pass on signals. */
static int program_wait(pid_t program, int command, struct rusage *usage)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    struct pollfd polled[] = {{signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), POLLIN, 0},
                              {command, POLLIN, 0}};
    for (;;) {
        int status;
        struct signalfd_siginfo ignored;
        pid_t ended;
        while ((ended = wait4(-1, &status, WNOHANG, usage)) > 0)
            if (ended == program)
                return status;
        if (poll(polled, 2, -1) < 0)
            continue;
        if (polled[0].revents && read(polled[0].fd, &ignored, sizeof ignored) < 0)
            continue;
        struct record record;
        if (!polled[1].revents)
            continue;
        if (!record_read(command, &record))
            _exit(1); /* the runner is gone */
        kill(program, atoi(record.data));
        record_free(&record);
    }
}

/* Processes that outlived the program. */
static size_t left_behind(void)
{
    size_t left = 0;
    for (int waited = 0; waited <= GRACE_MS; waited += GRACE_STEP_MS) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
        left = processes_measure(getpid()).count;
        if (left == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = GRACE_STEP_MS * 1000000}, NULL);
    }
    return left;
}

/* Send a file of the scratch folder. Only a regular file: a link could point to a file that the
 * program may not read. */
static void file_report(int report, const char *scratch, const char *name, size_t limit_bytes)
{
    char path[4096];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    size_t header = strlen(name) + 1;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        (size_t)status.st_size <= limit_bytes) {
        size_t size = (size_t)status.st_size;
        char *text = malloc(header + size);
        if (text) {
            memcpy(text, name, header);
            ssize_t got = read(fd, text + header, size);
            record_write(report, "file", text, header + (got > 0 ? (size_t)got : 0));
        }
        free(text);
    }
    close(fd);
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void supervisor_main(const struct job *job, const struct supervisor_options *options,
                            const int stdio[3], const char *scratch, int report, int command)
{
    sigset_t child;
    struct rusage usage;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    uid_t owner = options->user ? options->user : geteuid();
    if (!isolation_mount(options->isolation, scratch,
                         job->limits.file ? job->limits.file : 64 << 20, owner)) {
        record_printf(report, "failed", "%d", errno);
        _exit(1);
    }
    pid_t program = fork();
    if (program == 0) {
        program_become(job, options, stdio, scratch);
        record_printf(report, "failed", "%d", errno);
        _exit(127);
    }
    /* In particular the other end of the program's stdin, or it would never see the end of input.
     */
    for (int fd = 3; fd < DESCRIPTORS_MAX; fd++)
        if (fd != report && fd != command)
            close(fd);
    int status = program_wait(program, command, &usage);
    size_t left = left_behind();
    for (size_t i = 0; i < job->outputs.count; i++)
        file_report(report, scratch, job->outputs.items[i], job->limits.file);
    record_printf(report, "ended", "%d %.6f %zu", status,
                  seconds(usage.ru_utime) + seconds(usage.ru_stime), left);
    _exit(0);
}

bool supervisor_start(struct supervisor *supervisor, const struct job *job,
                      const struct supervisor_options *options, const int stdio[3],
                      const char *scratch)
{
    int report[2], command[2];
    if (pipe2(report, O_CLOEXEC) != 0)
        return false;
    if (pipe2(command, O_CLOEXEC) != 0) {
        close(report[0]);
        close(report[1]);
        return false;
    }
    supervisor->pid = isolation_fork(options->isolation);
    if (supervisor->pid == 0) {
        close(command[1]);
        supervisor_main(job, options, stdio, scratch, report[1], command[0]);
    }
    close(report[1]);
    close(command[0]);
    supervisor->report = report[0];
    supervisor->command = command[1];
    return supervisor->pid > 0;
}
