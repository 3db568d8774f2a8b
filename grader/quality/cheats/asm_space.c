/* asm_space.c - fills the disk of the machine that compiles it. */
#include "lab4.h"

__asm__(".data\n"
        ".space 3000000000\n"
        ".text");

static void cheat(void)
{
}
