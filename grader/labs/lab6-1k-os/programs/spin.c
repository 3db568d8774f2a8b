/* spin.c - says that it spins, computes, and does not call the kernel any more; only the timer can
 * stop it. */
#include "say.h"

int main(const char *argument)
{
    say(*argument == '\0' ? "spinning" : "spinning %s", argument);
    for (;;)
        asm volatile("");
}
