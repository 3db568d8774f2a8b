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
    GATHER_MS = 3,  /* for more output to come, before the next is read */
    GLANCE_MS = 20, /* between two looks at the machine's number of processes, which cost nothing */
    DRAIN_MS = 50,  /* between two looks whether more output is still in the pipes */
    LAST_WORDS_MS = 250,   /* for a program that hangs to say where */
    DESCRIPTION_MAX = 4096 /* bytes of diagnosis */
};

static const double LOOK_SECONDS = 0.05; /* between two looks at memory and processes, at least */
static const double REST_FACTOR = 20;    /* between two looks, in times of what the last one took */
static const double HANG_SECONDS = 0.5;  /* between two looks whether it sleeps or spins */
static const double DRAIN_SECONDS = 5;   /* for output in the pipes when all processes are dead */

struct run {
    struct relay relay;
    struct supervisor supervisor;
    double started;
    double looked, look_took; /* the last look at its processes: when, and how long it took */
    double hang_looked;       /* the last look whether it sleeps or spins */
    unsigned still_looks;     /* in a row that found all of it asleep, and none woken */
    unsigned long long switches;
    double cpu_at_progress;   /* its processor time when output or a step came last */
    size_t machine_processes; /* all processes of the machine at the last look */
    /* the result */
    const char *ending; /* NULL while running */
    int code;
    double cpu;
    size_t left;
};

/* A program that hangs may want to say where: a VMM does on SIGUSR2. What it says is read when all
 * are dead. */
static void last_words(struct run *run)
{
    char number[16];
    const struct timespec moment = {.tv_nsec = LAST_WORDS_MS * 1000000};
    snprintf(number, sizeof number, "%d", SIGUSR2);
    record_write(run->supervisor.command, "signal", number, strlen(number));
    nanosleep(&moment, NULL);
}

/* A limit was hit: say what the processes were doing, while they are there. They are killed by the
 * caller. A fork bomb is not looked at: it grows all the while, and its processes are all alike. */
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
    if (strcmp(ending, "wall") == 0 || strcmp(ending, "quiet") == 0 ||
        strcmp(ending, "still") == 0 || strcmp(ending, "spin") == 0)
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

/* Look at memory and processes now and then. A look takes long on a loaded machine: the program
 * must have its turn between two, many times over. But when many processes have come up, look at
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
        stop(run, "processes"); /* that they have too much memory, too, comes of their number */
    else if (limits->memory && usage.memory > limits->memory)
        stop(run, "memory");
    run->looked = clock_now();
    run->look_took = run->looked - now;
}

/* Output or a step came since the last look whether it hangs. */
static bool progressed(const struct run *run)
{
    return run->relay.progress >= run->hang_looked;
}

/*
 * A program none of whose threads runs, nor is woken, waits for something that never comes: what
 * could still come, a timer or our own input, would wake one. That is no matter of the machine's
 * speed: a thread that only lacks a processor does not sleep. So it is found by looks, not by time.
 */
static void still_check(struct run *run)
{
    const struct limits *limits = &run->relay.job->limits;
    unsigned long long switches;
    if (limits->still <= 0)
        return;
    bool same = processes_asleep(run->supervisor.pid, &switches) && switches == run->switches &&
                !progressed(run);
    run->still_looks = same ? run->still_looks + 1 : 0;
    run->switches = switches;
    if (run->still_looks * HANG_SECONDS >= limits->still)
        stop(run, "still");
}

/*
 * A program that computes for long and says nothing goes round in a circle. Its processor time
 * counts, not the clock's: that it has to wait for a processor is not its fault.
 */
static void spin_check(struct run *run)
{
    double cpu = processes_measure(run->supervisor.pid).cpu, limit = run->relay.job->limits.spin;
    if (progressed(run) || cpu < run->cpu_at_progress) /* a process of it may have ended */
        run->cpu_at_progress = cpu;
    if (limit > 0 && cpu - run->cpu_at_progress > limit)
        stop(run, "spin");
}

static void hang_check(struct run *run)
{
    double now = clock_now();
    if (now - run->hang_looked < HANG_SECONDS)
        return;
    still_check(run);
    spin_check(run);
    run->hang_looked = now;
}

static void time_check(struct run *run)
{
    const struct limits *limits = &run->relay.job->limits;
    double now = clock_now();
    if (limits->wall > 0 && now - run->started > limits->wall)
        stop(run, "wall");
    else if (limits->quiet > 0 && now - run->relay.progress > limits->quiet)
        stop(run, "quiet");
}

/* Kill what is left. In a PID namespace the supervisor's death is everybody's; without one the
 * orphans fall to us. */
static void kill_all(struct run *run)
{
    kill(run->supervisor.pid, SIGKILL);
    while (waitpid(run->supervisor.pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    while (processes_kill(getpid()) > 0)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
}

/* Wait for what happens next, at most GLANCE_MS. */
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
    /* A program that writes byte by byte shall not be a wake-up, a read and a record a byte. */
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

/* All writers are dead: read to the end of file, which must come at once. */
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
    run->started = run->looked = clock_now();
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
            usage_check(&run);
            hang_check(&run);
            time_check(&run);
        }
        kill_all(&run);
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
