/* kernel_include.c - like asm_include.c, but when the kernel is built. */
#include "lab6_sched.h"

#include "secret.h"

__asm__(".include \"" SECRET_FILE "\"");

static void cheat(void)
{
}
