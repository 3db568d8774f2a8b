/*
 * spin.c - says that it spins, computes, and does not call the kernel any more; only the timer can
 * stop it. With an argument it first says when it has taken turns with others: none but itself
 * knows that, because the scheduler that is graded counts the ticks of processes.
 */
#include "say.h"

/* Computes until the processor was taken from it, for a tick or more, so many times. */
static void turns_take(unsigned times)
{
    uint32_t last = ticks();

    while (times > 0) {
        for (int i = 0; i < 1000; i++)
            asm volatile("");
        uint32_t now = ticks();
        times -= now - last >= 2;
        last = now;
    }
}

int main(const char *argument)
{
    say(*argument == '\0' ? "spinning" : "spinning %s", argument);
    if (*argument != '\0') {
        turns_take(3);
        say("%s has taken turns", argument);
    }
    for (;;)
        asm volatile("");
}
