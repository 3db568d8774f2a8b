/* eat_memory.c - allocates memory endlessly. */
#include "lab1.h"

static void cheat(void)
{
    for (;;) {
        char *block = malloc(16 << 20);
        if (block)
            memset(block, 1, 16 << 20);
    }
}
