#define _GNU_SOURCE
#include "run.h"

#include "ends.h"
#include "processes.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024, /* bytes read at a time, and the most that the host sends in one `input` */
    MEASURE_MS = 50,   /* between two looks at memory and processes */
    GLANCE_MS = 10, /* between two looks at the machine's number of processes, which cost nothing */
    DRAIN_SECONDS = 5,     /* for output still in the pipes when all processes are dead */
    DESCRIPTION_MAX = 4096 /* bytes of diagnosis */
};

/* What one of the program's streams has said: kept only where a step waits for something in it. */
struct heard {
    char *data;
    size_t length, searched;
};

struct run {
    int channel;
    struct job *job;
    struct ends ends;
    struct keeper keeper;
    struct heard heard[2];
    char *input; /* not yet taken by the program */
    size_t input_length;
    bool input_ending; /* close stdin once all is taken */
    size_t steps_done, output_bytes;
    double started, progress, measured; /* CLOCK_MONOTONIC seconds */
    size_t machine_processes;           /* all processes of the machine when the run started */
    bool host_gone;
    /* the result */
    const char *ending; /* NULL while running */
    int code;
    double cpu;
    size_t left;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void tell(struct run *run, const char *key, const void *data, size_t length)
{
    if (!run->host_gone && !record_write(run->channel, key, data, length))
        run->host_gone = true;
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
    run->cpu = processes_measure(run->keeper.pid).cpu;
    processes_describe(run->keeper.pid, text, sizeof text);
    tell(run, "diagnosis", text, strlen(text));
}

/* --- input --- */

static void input_append(struct run *run, const char *data, size_t length)
{
    char *grown = realloc(run->input, run->input_length + length + 1);
    if (!grown)
        return;
    memcpy(grown + run->input_length, data, length);
    run->input = grown;
    run->input_length += length;
}

static void input_end(struct run *run)
{
    if (run->ends.input == run->ends.terminal && run->ends.terminal >= 0)
        input_append(run, (const char *)&run->ends.initial.c_cc[VEOF], 1);
    else
        run->input_ending = true;
}

static void input_flush(struct run *run)
{
    if (run->input_length > 0) {
        ssize_t put = write(run->ends.input, run->input, run->input_length);
        if (put < 0 && errno != EAGAIN &&
            errno != EINTR) { /* the program closed its stdin: not our affair */
            ends_close_input(&run->ends);
            put = (ssize_t)run->input_length;
        }
        if (put > 0) {
            run->input_length -= (size_t)put;
            memmove(run->input, run->input + put, run->input_length);
        }
        if (run->input_length == 0 && run->job->live)
            tell(run, "taken", "", 0);
    }
    if (run->input_length == 0 && run->input_ending)
        ends_close_input(&run->ends);
}

/* --- steps and the host's wishes --- */

static void act(struct run *run, enum action action, const struct record *data)
{
    unsigned short rows, columns;
    switch (action) {
    case ACTION_SEND:
        input_append(run, data->data, data->length);
        break;
    case ACTION_CLOSE:
        input_end(run);
        break;
    case ACTION_SIGNAL:
        record_write(run->keeper.command, "signal", data->data, data->length);
        break;
    case ACTION_RESIZE:
        if (sscanf(data->data, "%hu %hu", &rows, &columns) == 2)
            ends_resize(&run->ends, rows, columns);
        break;
    }
}

static bool marker_found(struct heard *heard, const struct record *marker)
{
    if (!marker->data)
        return true;
    char *start = heard->data ? heard->data + heard->searched : NULL;
    char *place =
        start ? memmem(start, heard->length - heard->searched, marker->data, marker->length) : NULL;
    if (place)
        heard->searched = (size_t)(place - heard->data) + marker->length;
    return place;
}

static void steps_take(struct run *run)
{
    struct job *job = run->job;
    while (run->steps_done < job->step_count) {
        struct step *step = &job->steps[run->steps_done];
        if (!marker_found(&run->heard[step->stream - 1], &step->after))
            return;
        act(run, step->action, &step->data);
        run->steps_done++;
        run->progress = now();
    }
    if (!job->hold_input && !job->live && !job->terminal[0])
        run->input_ending = true;
}

static void host_obey(struct run *run)
{
    struct record record;
    if (!record_read(run->channel, &record)) {
        run->host_gone = true;
        return;
    }
    if (record_is(&record, "send"))
        act(run, ACTION_SEND, &record);
    else if (record_is(&record, "close"))
        act(run, ACTION_CLOSE, &record);
    else if (record_is(&record, "signal"))
        act(run, ACTION_SIGNAL, &record);
    else if (record_is(&record, "resize"))
        act(run, ACTION_RESIZE, &record);
    else if (record_is(&record,
                       "shut")) /* nobody reads this stream any more: the program gets SIGPIPE */
        ends_close_output(&run->ends, atoi(record.data) - 1);
    record_free(&record);
}

/* --- output --- */

static void heard_append(struct run *run, int which, const char *data, size_t length)
{
    struct heard *heard = &run->heard[which];
    char *grown = realloc(heard->data, heard->length + length);
    if (!grown)
        return;
    memcpy(grown + heard->length, data, length);
    heard->data = grown;
    heard->length += length;
}

static void output_take(struct run *run, int which)
{
    static char chunk[CHUNK];
    ssize_t got = read(run->ends.output[which], chunk, sizeof chunk);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* EIO: the last one closed the terminal */
        ends_close_output(&run->ends, which);
        return;
    }
    size_t length = (size_t)got, limit = run->job->limits.output;
    if (limit && run->output_bytes + length > limit) {
        length = limit - run->output_bytes;
        stop(run, "output");
    }
    run->output_bytes += length;
    run->progress = now();
    tell(run, which == 0 ? "stdout" : "stderr", chunk, length);
    if (run->job->step_count)
        heard_append(run, which, chunk, length);
}

/* --- the program's end --- */

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
    if (!record_read(run->keeper.report, &record)) {
        if (!run->ending)
            run->ending = "escaped";
        return;
    }
    if (record_is(&record, "ended"))
        ended(run, record.data);
    else if (record_is(&record, "file"))
        tell(run, "file", record.data, record.length);
    else if (record_is(&record, "failed")) {
        run->ending = "not-started";
        run->code = atoi(record.data);
    }
    record_free(&record);
}

static size_t machine_processes(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? info.procs : 0;
}

/* Look at memory and processes now and then, and at once when many processes have come up. */
static void limits_check(struct run *run)
{
    const struct limits *limits = &run->job->limits;
    bool crowd =
        limits->processes && machine_processes() > run->machine_processes + limits->processes;
    if (now() - run->measured < MEASURE_MS / 1e3 && !crowd)
        return;
    run->measured = now();
    struct usage usage = processes_measure(run->keeper.pid);
    if (limits->memory && usage.memory > limits->memory)
        stop(run, "memory");
    else if (limits->processes && usage.count > limits->processes)
        stop(run, "processes");
    else if (limits->wall > 0 && now() - run->started > limits->wall)
        stop(run, "wall");
    else if (limits->quiet > 0 && now() - run->progress > limits->quiet)
        stop(run, "quiet");
}

/* Kill what is left. In a PID namespace the keeper's death is everybody's; without one the orphans
 * fall to us. */
static void kill_all(struct run *run)
{
    kill(run->keeper.pid, SIGKILL);
    while (waitpid(run->keeper.pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    while (processes_kill(getpid()) > 0)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
}

/* Wait for what happens next, at most GLANCE_MS. */
static void wait_and_serve(struct run *run)
{
    struct pollfd polled[] = {
        {run->keeper.report, POLLIN, 0},
        {run->ends.output[0], POLLIN, 0},
        {run->ends.output[1], POLLIN, 0},
        {run->input_length > 0 || run->input_ending ? run->ends.input : -1, POLLOUT, 0},
        {run->channel, POLLIN, 0},
    };
    if (poll(polled, sizeof polled / sizeof *polled, GLANCE_MS) < 0)
        return;
    for (int which = 0; which < 2; which++)
        if (polled[1 + which].revents)
            output_take(run, which);
    steps_take(run);
    if (polled[3].revents)
        input_flush(run);
    if (polled[4].revents)
        host_obey(run);
    if (polled[0].revents && !run->ending)
        report_take(run);
}

/* All writers are dead: read to the end of file, which must come at once. */
static void drain(struct run *run)
{
    if (run->ends.slave >= 0)
        close(run->ends.slave);
    run->ends.slave = -1;
    double deadline = now() + DRAIN_SECONDS;
    while ((run->ends.output[0] >= 0 || run->ends.output[1] >= 0) && now() < deadline) {
        struct pollfd polled[] = {{run->ends.output[0], POLLIN, 0},
                                  {run->ends.output[1], POLLIN, 0}};
        if (poll(polled, 2, MEASURE_MS) <= 0)
            continue;
        for (int which = 0; which < 2; which++)
            if (polled[which].revents)
                output_take(run, which);
        if (run->ending && strcmp(run->ending, "output") == 0)
            break;
    }
}

static bool run_start(struct run *run, const struct keeper_options *options, const char *scratch)
{
    if (!ends_open(&run->ends, run->job) ||
        !keeper_start(&run->keeper, run->job, options, run->ends.program, scratch)) {
        run->ending = "not-started";
        run->code = errno;
        return false;
    }
    ends_started(&run->ends);
    input_append(run, run->job->input ? run->job->input : "", run->job->input_length);
    run->started = run->progress = run->measured = now();
    run->machine_processes = machine_processes();
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

bool run_execute(int channel, struct job *job, const struct keeper_options *options)
{
    struct run run = {.channel = channel, .job = job};
    char scratch[] = "/tmp/mini-kvm-XXXXXX", restored = '-';
    if (!mkdtemp(scratch)) {
        perror("runner: /tmp");
        return false;
    }
    if (run_start(&run, options, scratch)) {
        while (!run.ending && !run.host_gone) {
            wait_and_serve(&run);
            limits_check(&run);
        }
        kill_all(&run);
        restored = ends_restored(&run.ends);
        drain(&run);
        close(run.keeper.report);
        close(run.keeper.command);
    }
    double wall = now() - run.started;
    ends_close(&run.ends);
    if (rmdir(scratch) != 0)
        scratch_remove(scratch);
    char result[128];
    snprintf(result, sizeof result, "%s %d %.6f %.6f %zu %zu %c",
             run.ending ? run.ending : "escaped", run.code, wall, run.cpu, run.left, run.steps_done,
             restored);
    tell(&run, "result", result, strlen(result));
    for (int which = 0; which < 2; which++)
        free(run.heard[which].data);
    free(run.input);
    return !run.host_gone;
}
