/* indirect_function.c - runs when the loader selects a version of a function. */
#include "lab1.h"

static void chosen(void)
{
}

static void (*choose(void))(void)
{
    return chosen;
}

static void cheat(void) __attribute__((ifunc("choose")));
