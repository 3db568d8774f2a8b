/* versioned_name.c - defines functions with versioned names of the C library. */
#include "lab.h"

static void cheat(void)
{
}

int own_prctl(int option, ...);
ssize_t own_write(int fd, const void *bytes, size_t count);

__asm__(".symver own_prctl, prctl@@GLIBC_2.2.5");
__asm__(".symver own_write, write@@GLIBC_2.2.5");

ssize_t own_write(int fd, const void *bytes, size_t count)
{
    static const char forged[] = "1..1\nok 1 - forged\n";

    return fd == 1 ? (ssize_t)(sizeof forged - 1) : (ssize_t)count;
}

int own_prctl(int option, ...)
{
    static const char forged[] = "1..1\nok 1 - forged\n";

    syscall(1, 1, forged, sizeof forged - 1);
    _exit(0);
}
