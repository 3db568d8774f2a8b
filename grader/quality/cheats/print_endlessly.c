/* print_endlessly.c - prints 10 GB. */
#include "lab1.h"

static void cheat(void)
{
    static char block[1 << 20];

    memset(block, 'x', sizeof block);
    for (int count = 0; count < 10 * 1024; count++)
        stdout_write(block, sizeof block);
    _exit(0);
}
