/* stress.c - runs as many programs as its argument says, one after the other, and counts pages. */
#include "say.h"

int main(const char *argument)
{
    uint32_t count = 0, done = 0;
    int before = pages(), status;

    number_parse(argument, &count);
    for (; done < count; done++) {
        int pid = spawn("nothing", "0", 0);
        if (pid < 0 || wait(pid, 0, &status) != pid || status != 0)
            break;
    }
    say("%u programs, %d pages %s", done, before - pages(), "lost");
    return 0;
}
