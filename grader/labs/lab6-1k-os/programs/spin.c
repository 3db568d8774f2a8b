/* spin.c - computes and does not call the kernel any more; only the timer can stop it. */
#include "libc.h"

int main(const char *argument)
{
    printf("spinning\n");
    for (;;)
        asm volatile("");
}
