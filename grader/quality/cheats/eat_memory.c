/* eat_memory.c - takes memory without end. */
#include "lab1.h"

static void cheat(void)
{
    for (;;) {
        char *block = malloc(16 << 20);
        if (block)
            memset(block, 1, 16 << 20);
    }
}
