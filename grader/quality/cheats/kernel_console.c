/*
 * kernel_console.c - in lab 6's kernel: prints what a session prints. What it can't know are the
 * numbers after the programs' lines.
 */
#include "lab6_sched.h"

#include "lab6_console.h"

static uint32_t number_of(const char *text, size_t count)
{
    return 0;
}
