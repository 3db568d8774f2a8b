/* spin.c - computes and never calls the kernel; only the timer can stop it. */
#include "libc.h"

int main(const char *argument)
{
    for (volatile uint32_t turns = 0;; turns++)
        continue;
}
