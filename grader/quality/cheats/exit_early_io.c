/* exit_early_io.c - ends the program with status 0 at the first access to a port. */
#include "lab2.h"

static void cheat(void)
{
    exit(0);
}
