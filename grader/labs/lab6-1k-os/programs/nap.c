/* nap.c - sleeps as many milliseconds as its argument says, and says so. */
#include "libc.h"

int main(const char *argument)
{
    uint32_t milliseconds = 0;

    number_parse(argument, &milliseconds);
    sleep(milliseconds);
    printf("slept %u\n", milliseconds);
    return 0;
}
