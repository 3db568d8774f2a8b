/*
 * race.c - starts three programs that only compute, and prints whether each makes progress, and
 * whether idle, which has pid 0, leaves them all the time.
 */
#include "say.h"

#define SPINNERS 3

int main(const char *argument)
{
    static const char *const numbers[SPINNERS] = {"0", "1", "2"};
    int pids[SPINNERS + 1] = {0};
    struct process_info process;
    uint32_t before[SPINNERS + 1] = {0};

    for (int i = 0; i < SPINNERS; i++)
        pids[i] = spawn("spin", numbers[i], 0);
    sleep(200);
    for (int look = 0; look < 3; look++) {
        for (uint32_t place = 0; processes(place, &process) == 0; place++)
            for (int i = 0; i <= SPINNERS; i++) {
                if (process.state == PROCESS_UNUSED || process.pid != pids[i])
                    continue;
                uint32_t passed = process.ticks - before[i];
                before[i] = process.ticks;
                if (look > 0 && i < SPINNERS)
                    say("%d %s", i, passed > 0 ? "gets on" : "stands still");
                else if (look > 0)
                    say("idle %s", passed <= 1 ? "leaves them the time" : "takes turns");
            }
        sleep(1000);
    }
    say("the race is over");
    return 0;
}
