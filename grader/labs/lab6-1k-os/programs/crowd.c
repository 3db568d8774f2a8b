/* crowd.c - starts programs until no more can be, then ends them all; pages must come back. */
#include "libc.h"

int main(const char *argument)
{
    int before = pages(), count = 0, status, error;

    while ((error = spawn("nap", "300", 0)) > 0)
        count++;
    printf("%d programs more, then: %s\n", count, error_text(error));
    while (wait(WAIT_ANY, 0, &status) > 0)
        count--;
    printf("%d left, %d pages lost\n", count, before - pages());
    return 0;
}
