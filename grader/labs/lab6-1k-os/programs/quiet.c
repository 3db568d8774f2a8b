/* quiet.c - sleeps, and prints which processes used the processor meanwhile: only idle. */
#include "say.h"

#define TICK_MS 50 /* what it is graded with */

static uint32_t used_by(int pid)
{
    struct process_info process;

    for (uint32_t place = 0; processes(place, &process) == 0; place++)
        if (process.state != PROCESS_UNUSED && process.pid == pid)
            return process.ticks;
    return 0;
}

int main(const char *argument)
{
    int status, naps = spawn("nap", "2000", 0);
    uint32_t start = ticks(), idle = used_by(0), own = used_by(getpid());

    sleep(1500);
    uint32_t passed = ticks() - start;
    idle = used_by(0) - idle;
    own = used_by(getpid()) - own;
    say("%s", passed >= 1500 / TICK_MS ? "slept long enough" : "woke too early");
    say("%s", own <= passed / 4 ? "cost nothing" : "was counted while it slept");
    say("%s", idle >= passed / 2 ? "idle ran" : "idle did not run");
    wait(naps, 0, &status);
    return 0;
}
