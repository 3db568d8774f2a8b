#define _GNU_SOURCE
#include "run.h"

#include "processes.h"
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    GATHER_MS = 3,  /* to gather more output before the next read */
    GLANCE_MS = 20, /* between two checks of the machine's number of processes, which are free */
    DRAIN_MS = 50,  /* between two checks for output in the pipes */
    LAST_WORDS_MS = 250,   /* for a hanging program to report where */
    DESCRIPTION_MAX = 4096 /* bytes of diagnosis */
};

static const double LOOK_SECONDS = 0.05; /* at least, between two checks of memory and processes */
static const double REST_FACTOR =
    20; /* between two checks, as a multiple of the last one's duration */
static const double HANG_SECONDS = 0.5; /* between two checks for deadlock and busy loops */
static const double DRAIN_SECONDS =
    5; /* for output left in the pipes when all processes are dead */

struct run {
    struct relay relay;
    struct supervisor supervisor;
    double started;
    double looked, look_took; /* the last check of its processes: time and duration */
    double hang_looked;       /* the last check for deadlock and busy loops */
    unsigned deadlock_looks;  /* consecutive checks that found all threads asleep, none woken */
    unsigned long long switches;
    double cpu_at_progress;   /* its CPU time at the last output or step */
    size_t machine_processes; /* all processes of the machine at the last check */
    /* the result */
    const char *ending; /* NULL while running */
    int code;
    double cpu;
    size_t left;
};

/* Let a hanging program report where it is: a VMM does so on SIGUSR2. The report is read once all
 * processes are dead. */
static void last_words(struct run *run)
{
    char number[16];
    const struct timespec moment = {.tv_nsec = LAST_WORDS_MS * 1000000};
    snprintf(number, sizeof number, "%d", SIGUSR2);
    record_write(run->supervisor.command, "signal", number, strlen(number));
    nanosleep(&moment, NULL);
}

/* A limit was exceeded: describe the processes while they exist; the caller kills them. A fork bomb
 * is not described: it keeps growing, and its processes are all alike. */
static void stop(struct run *run, const char *ending)
{
    char text[DESCRIPTION_MAX];
    if (run->ending)
        return;
    run->ending = ending;
    if (strcmp(ending, "processes") == 0)
        return;
    run->cpu = processes_measure(run->supervisor.pid).cpu;
    processes_describe(run->supervisor.pid, text, sizeof text);
    relay_send(&run->relay, "diagnosis", text, strlen(text));
    if (strcmp(ending, "timeout") == 0 || strcmp(ending, "no-output") == 0 ||
        strcmp(ending, "deadlock") == 0 || strcmp(ending, "spin") == 0)
        last_words(run);
}

static void ended(struct run *run, const char *text)
{
    int status;
    if (sscanf(text, "%d %lf %zu", &status, &run->cpu, &run->left) != 3)
        return;
    run->ending = WIFEXITED(status) ? "exit" : "signal";
    run->code = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
}

static void report_take(struct run *run)
{
    struct record record;
    if (!record_read(run->supervisor.report, &record)) {
        if (!run->ending)
            run->ending = "escaped";
        return;
    }
    if (record_is(&record, "ended"))
        ended(run, record.data);
    else if (record_is(&record, "file"))
        relay_send(&run->relay, "file", record.data, record.length);
    else if (record_is(&record, "failed")) {
        run->ending = "not-started";
        run->code = atoi(record.data);
    }
    record_free(&record);
}

/* Check memory and processes from time to time. A check takes long on a loaded machine, so the
 * program must get many times that time in between. But if many processes have appeared, check at
 * once. */
static void usage_check(struct run *run)
{
    const struct limits *limits = &run->relay.job->limits;
    bool too_many =
        limits->processes && processes_on_machine() > run->machine_processes + limits->processes;
    double now = clock_now(), since = now - run->looked;
    if (!too_many && (since < REST_FACTOR * run->look_took || since < LOOK_SECONDS))
        return;
    run->machine_processes = processes_on_machine();
    struct usage usage = processes_measure(run->supervisor.pid);
    if (limits->processes && usage.count > limits->processes)
        stop(
            run,
            "processes"); /* even if they also exceed the memory limit: their number is the cause */
    else if (limits->memory && usage.memory > limits->memory)
        stop(run, "memory");
    run->looked = clock_now();
    run->look_took = run->looked - now;
}

/* There was output or a step since the last check for a hang. */
static bool progressed(const struct run *run)
{
    return run->relay.progress >= run->hang_looked;
}

/*
 * If no thread of a program runs or is woken, it waits for an event that never occurs: any event
 * that still can, such as a timer or our own input, would wake a thread. This does not depend on
 * the machine's speed, because a thread that only lacks a processor does not sleep. So count
 * checks, not time.
 */
static void deadlock_check(struct run *run)
{
    const struct limits *limits = &run->relay.job->limits;
    unsigned long long switches;
    if (limits->deadlock <= 0)
        return;
    bool same = processes_asleep(run->supervisor.pid, &switches) && switches == run->switches &&
                !progressed(run);
    run->deadlock_looks = same ? run->deadlock_looks + 1 : 0;
    run->switches = switches;
    if (run->deadlock_looks * HANG_SECONDS >= limits->deadlock)
        stop(run, "deadlock");
}

/*
 * A program that computes for a long time without output is in a busy loop. CPU time counts, not
 * wall-clock time: waiting for a processor is not its fault.
 */
static void processor_check(struct run *run)
{
    const struct limits *limits = &run->relay.job->limits;
    const struct usage usage = processes_measure(run->supervisor.pid);
    const double cpu = usage.cpu, limit = limits->spin;
    if (progressed(run) || cpu < run->cpu_at_progress) /* one of its processes may have ended */
        run->cpu_at_progress = cpu;
    if (limit > 0 && cpu - run->cpu_at_progress > limit)
        stop(run, "spin");
    else if (limits->processor > 0 && usage.total > limits->processor)
        stop(run, "processor");
}

static void hang_check(struct run *run)
{
    double now = clock_now();
    if (now - run->hang_looked < HANG_SECONDS)
        return;
    deadlock_check(run);
    processor_check(run);
    run->hang_looked = now;
}

static void time_check(struct run *run)
{
    const struct job *job = run->relay.job;
    const struct limits *limits = &job->limits;
    const bool ending = limits->after_steps > 0 && run->relay.steps_done == job->step_count;
    const double quiet = ending ? limits->after_steps : limits->no_output;
    double now = clock_now();
    if (limits->wall > 0 && now - run->started > limits->wall)
        stop(run, "timeout");
    else if (quiet > 0 && now - run->relay.progress > quiet)
        stop(run, "no-output");
}

static void limits_check(struct run *run)
{
    usage_check(run);
    hang_check(run);
    time_check(run);
}

/* Kill the remaining processes. In a PID namespace they die with the supervisor; without one the
 * orphans become our children. */
static void kill_all(struct run *run, enum isolation isolation)
{
    kill(run->supervisor.pid, SIGKILL);
    while (waitpid(run->supervisor.pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    while (isolation == ISOLATION_PLAIN && processes_kill(getpid()) > 0)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
}

/* Wait for the next event, at most GLANCE_MS. */
static void wait_and_serve(struct run *run)
{
    struct relay *relay = &run->relay;
    bool input_wanted = relay_input_waits(relay) || relay->input_ending;
    struct pollfd polled[] = {
        {run->supervisor.report, POLLIN, 0},
        {relay->endpoints.output[0], POLLIN, 0},
        {relay->endpoints.output[1], POLLIN, 0},
        {input_wanted ? relay->endpoints.input : -1, POLLOUT, 0},
        {relay->channel, POLLIN, 0},
    };
    if (poll(polled, sizeof polled / sizeof *polled, GLANCE_MS) < 0)
        return;
    for (int which = 0; which < 2; which++)
        if (polled[1 + which].revents)
            relay_output_take(relay, which);
    /* Avoid one wake-up, read and record per byte for a program that writes single bytes. */
    if (polled[1].revents || polled[2].revents)
        nanosleep(&(struct timespec){.tv_nsec = GATHER_MS * 1000000}, NULL);
    if (relay->flooded)
        stop(run, "output");
    relay_steps_take(relay);
    if (polled[3].revents)
        relay_input_flush(relay);
    if (polled[4].revents)
        relay_host_obey(relay);
    if (polled[0].revents && !run->ending)
        report_take(run);
}

/* All writers are dead: read up to end of file, which must follow at once. */
static void drain(struct relay *relay)
{
    struct endpoints *endpoints = &relay->endpoints;
    double deadline = clock_now() + DRAIN_SECONDS;
    endpoints_close_slave(endpoints);
    while (!relay->flooded && (endpoints->output[0] >= 0 || endpoints->output[1] >= 0) &&
           clock_now() < deadline) {
        struct pollfd polled[] = {{endpoints->output[0], POLLIN, 0},
                                  {endpoints->output[1], POLLIN, 0}};
        if (poll(polled, 2, DRAIN_MS) <= 0)
            continue;
        for (int which = 0; which < 2; which++)
            if (polled[which].revents)
                relay_output_take(relay, which);
    }
}

static bool run_start(struct run *run, const struct supervisor_options *options,
                      const char *scratch)
{
    struct endpoints *endpoints = &run->relay.endpoints;
    run->started = run->looked = run->hang_looked = clock_now();
    run->machine_processes = processes_on_machine();
    if (!endpoints_open(endpoints, run->relay.job) ||
        !supervisor_start(&run->supervisor, run->relay.job, options, endpoints->program, scratch)) {
        run->ending = "not-started";
        run->code = errno;
        return false;
    }
    endpoints_started(endpoints);
    relay_begin(&run->relay, run->supervisor.command);
    return true;
}

static void scratch_remove(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

bool run_execute(int channel, struct job *job, const struct supervisor_options *options)
{
    struct run run = {.relay = {.channel = channel, .job = job}};
    char scratch[] = "/tmp/mini-kvm-XXXXXX", restored = '-', result[128];
    if (!mkdtemp(scratch)) {
        perror("runner: /tmp");
        return false;
    }
    if (run_start(&run, options, scratch)) {
        while (!run.ending && !run.relay.host_gone) {
            wait_and_serve(&run);
            if (!run.ending)
                limits_check(&run);
        }
        kill_all(&run, options->isolation);
        restored = endpoints_restored(&run.relay.endpoints);
        drain(&run.relay);
        close(run.supervisor.report);
        close(run.supervisor.command);
    }
    endpoints_close(&run.relay.endpoints);
    if (rmdir(scratch) != 0)
        scratch_remove(scratch);
    snprintf(result, sizeof result, "%s %d %.6f %.6f %zu %zu %c",
             run.ending ? run.ending : "escaped", run.code, clock_now() - run.started, run.cpu,
             run.left, run.relay.steps_done, restored);
    relay_send(&run.relay, "result", result, strlen(result));
    relay_free(&run.relay);
    return !run.relay.host_gone;
}
