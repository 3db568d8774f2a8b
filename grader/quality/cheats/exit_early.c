/* exit_early.c - ends the program with status 0 as soon as one of its functions is called. */
#include "lab1.h"

static void cheat(void)
{
    _exit(0);
}
