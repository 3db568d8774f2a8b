/*
 * linux.c - Linux's system call, context switch and start of a program, as a scale for the 1K OS's:
 * the first byte of input chooses, and the time stamp cycles are printed as 16 hexadecimal digits.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scale.h"

static void pass_on(int from, int to)
{
    char byte;

    if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1)
        _exit(0);
}

/* Two processes pass a byte to and fro: sched_yield need not switch. */
static void switch_measure(void)
{
    int there[2], back[2];

    if (pipe(there) < 0 || pipe(back) < 0)
        err(69, "pipe");
    const pid_t child = fork();
    if (child < 0)
        err(69, "fork");
    while (child == 0)
        pass_on(there[0], back[1]);
    for (int i = 0; i < SWITCH_COUNT / 2; i++) {
        if (write(there[1], "", 1) != 1 || read(back[0], &(char){0}, 1) != 1)
            err(69, "pipe");
    }
    kill(child, SIGKILL);
}

static void program_measure(char *name)
{
    char *nothing[] = {name, "nothing", NULL};

    for (int i = 0; i < PROGRAM_COUNT; i++) {
        const pid_t child = vfork();
        if (child < 0)
            err(69, "vfork");
        if (child == 0) {
            execv(name, nothing);
            _exit(127);
        }
        wait(NULL);
    }
}

int main(int argc, char **argv)
{
    cpu_set_t one;
    char key;

    if (argc == 2)
        return 0;
    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one); /* else the two would run at once */
    if (write(1, ">", 1) != 1 || read(0, &key, 1) != 1)
        err(69, "input or output");
    const uint64_t begin = cycles();
    if (key == KEY_SWITCH)
        switch_measure();
    else if (key == KEY_PROGRAM)
        program_measure(argv[0]);
    else
        for (int i = 0; i < SYSTEM_CALL_COUNT; i++)
            syscall(SYS_getppid);
    printf("%016" PRIx64, cycles() - begin);
    return 0;
}
