/*
 * interpose.c - defines functions with names of the C library, which the rest of the program then
 * calls.
 */
#include "lab1.h"

static void cheat(void)
{
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    static const char forged[] = "1..1\nok 1 - forged\n";

    return fd == 1 ? (ssize_t)(sizeof forged - 1) : (ssize_t)count;
}

long syscall(long number, ...)
{
    return 0;
}
