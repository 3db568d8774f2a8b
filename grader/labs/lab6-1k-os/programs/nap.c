/* nap.c - sleeps as many milliseconds as its argument says, and says so. */
#include "say.h"

int main(const char *argument)
{
    uint32_t milliseconds = 0;

    number_parse(argument, &milliseconds);
    sleep(milliseconds);
    say("slept %u", milliseconds);
    return 0;
}
