/*
 * leave_daemon.c - starts processes that outlive it: they print and wait, outside its session and
 * process group.
 */
#include "lab1.h"

static void cheat(void)
{
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                for (int number = 1; number < NSIG; number++)
                    signal(number, SIG_IGN);
                prctl(PR_SET_PDEATHSIG, 0);
                prctl(PR_SET_NAME, "cheat-daemon");
                for (;;)
                    sleep(1);
            }
            _exit(0);
        }
        wait(NULL);
    }
    _exit(0);
}
