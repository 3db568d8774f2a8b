/* other.c - the process to switch to, and back. */
#include "libc.h"

int main(const char *argument)
{
    for (;;)
        yield();
}
