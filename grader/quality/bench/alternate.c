/*
 * alternate.c - runs commands in turn, A B C A B C ..., where the guests run, and prints a line of
 * JSON for each run. One job holds all rounds, so that what disturbs the machine disturbs all of
 * them alike.
 *
 *     alternate ROUNDS KEYS UNTIL SEND -- COMMAND... -- COMMAND...
 *
 * UNTIL: "first" is when this text has been printed; empty: the first byte.
 * SEND: written to the command's input then.
 * KEYS: bytes sent after that, one at a time: each is answered by one byte, which takes
 * "latency_ns".
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef RUN_SECONDS
#define RUN_SECONDS 60 /* then it is killed: some KVMs lose an interrupt */
#endif
#define COMMANDS_MAX 8
#define KEYS_MAX     10000
#define TAIL_BYTES   (1u << 16) /* of a command's output that are kept */
#define CYCLES_WIDTH 16         /* guests/bench.asm ends with so many hexadecimal digits */

static pid_t child;                    /* the command that runs */
static volatile sig_atomic_t too_long; /* it has been killed */

static char tail[2 * TAIL_BYTES];
static size_t tail_bytes;

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* SIGALRM. The command itself could have blocked it, as QEMU does. */
static void end(int signal_number)
{
    (void)signal_number;
    too_long = 1;
    kill(child, SIGKILL);
}

static void start(char **argv, int *in, int *out)
{
    int input[2], output[2];

    if (pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0)
        err(69, "pipe");
    fcntl(output[1], F_SETPIPE_SZ, TAIL_BYTES);
    child = vfork();
    if (child < 0)
        err(69, "vfork");
    if (child == 0) {
        signal(SIGPIPE, SIG_DFL);
        dup2(input[0], STDIN_FILENO);
        dup2(output[1], STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    close(input[0]);
    close(output[1]);
    *in = input[1];
    *out = output[0];
    too_long = 0;
    alarm(RUN_SECONDS);
}

/* Reads what is there; false: the end. */
static bool drain(int out)
{
    if (tail_bytes > TAIL_BYTES) {
        memmove(tail, tail + TAIL_BYTES, tail_bytes - TAIL_BYTES);
        tail_bytes -= TAIL_BYTES;
    }
    const ssize_t got = read(out, tail + tail_bytes, sizeof tail - tail_bytes);
    if (got <= 0)
        return false;
    tail_bytes += (size_t)got;
    return true;
}

static bool printed(const char *text)
{
    return tail_bytes > 0 && (!*text || memmem(tail, tail_bytes, text, strlen(text)));
}

static int compare(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/* Sends `keys` bytes, each once the one before has been answered; the median of the times. */
static int64_t type(int in, int out, size_t keys)
{
    static int64_t times[KEYS_MAX];
    char byte;

    for (size_t i = 0; i < keys; i++) {
        const int64_t before = now_ns();
        if (write(in, "k", 1) != 1 || read(out, &byte, 1) != 1)
            return -1;
        times[i] = now_ns() - before;
    }
    qsort(times, keys, sizeof times[0], compare);
    return times[keys / 2];
}

/* false: it did not end. */
static bool run(int number, char **argv, size_t keys, const char *until, const char *send)
{
    int64_t first = -1, latency = -1;
    int in, out, status;
    struct rusage used;

    tail_bytes = 0;
    const int64_t begin = now_ns();
    start(argv, &in, &out);
    while (first < 0 && drain(out)) {
        if (printed(until))
            first = now_ns() - begin;
    }
    if (first >= 0 && *send && write(in, send, strlen(send)) < 0)
        warn("standard input of %s", argv[0]);
    if (first >= 0 && keys > 0)
        latency = type(in, out, keys);
    close(in);
    while (drain(out))
        continue;
    close(out);
    while (wait4(child, &status, 0, &used) < 0)
        continue;
    alarm(0);
    const int64_t wall = now_ns() - begin;
    char cycles[CYCLES_WIDTH + 1] = "0";
    if (tail_bytes >= CYCLES_WIDTH)
        memcpy(cycles, tail + tail_bytes - CYCLES_WIDTH, CYCLES_WIDTH);
    printf("{\"command\":%d,\"status\":%d,\"wall_ns\":%" PRId64 ",\"first_ns\":%" PRId64
           ",\"latency_ns\":%" PRId64 ",\"resident_kib\":%ld,\"cycles\":%" PRIu64 "}\n",
           number,
           too_long            ? 128 + SIGALRM
           : WIFEXITED(status) ? WEXITSTATUS(status)
                               : 128 + WTERMSIG(status),
           wall, first, latency, used.ru_maxrss, (uint64_t)strtoull(cycles, NULL, 16));
    fflush(stdout);
    return !too_long;
}

int main(int argc, char **argv)
{
    char **commands[COMMANDS_MAX];
    bool hung[COMMANDS_MAX] = {false}; /* once is enough */
    int count = 0;

    if (argc < 7)
        errx(64, "usage: alternate ROUNDS KEYS UNTIL SEND -- COMMAND... -- COMMAND...");
    for (int i = 5; i < argc; i++) {
        if (strcmp(argv[i], "--") != 0)
            continue;
        if (count == COMMANDS_MAX)
            errx(64, "too many commands");
        argv[i] = NULL; /* ends the command before */
        commands[count++] = argv + i + 1;
    }
    const int rounds = atoi(argv[1]);
    const size_t keys = (size_t)atoi(argv[2]);
    if (keys > KEYS_MAX)
        errx(64, "too many keys");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, end);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < count; i++)
            hung[i] = hung[i] || !run(i, commands[i], keys, argv[3], argv[4]);
    }
    return 0;
}
