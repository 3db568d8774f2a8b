/* spin.c - computes and never calls the kernel again; only the timer takes the processor from it.
 */
#include "libc.h"

int main(const char *argument)
{
    printf("spinning\n");
    for (;;)
        asm volatile("");
}
