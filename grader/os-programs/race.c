/* race.c - starts three programs that only compute, and tells whether each one gets on. */
#include "libc.h"

int main(const char *argument)
{
    int pids[3];
    struct process_info process;
    for (int i = 0; i < 3; i++)
        pids[i] = spawn("spin", "", 0);
    for (int rest = 0; rest < 2; rest++) {
        uint32_t before[3] = {0};
        for (int look = 0; look < 2; look++) {
            for (uint32_t place = 0; processes(place, &process) == 0; place++)
                for (int i = 0; i < 3; i++) {
                    if (process.state == PROCESS_UNUSED || process.pid != pids[i])
                        continue;
                    if (look > 0)
                        printf("%d %s\n", i,
                               process.ticks > before[i] ? "gets on" : "stands still");
                    before[i] = process.ticks;
                }
            if (look == 0)
                sleep(1000);
        }
    }
    printf("the race is over\n");
    return 0;
}
