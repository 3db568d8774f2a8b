/* full-table.c - starts programs until the process table is full, then ends them all. */
#include "say.h"

int main(const char *argument)
{
    int before = pages(), count = 0, status, error;

    while ((error = spawn("nap", "300", 0)) > 0)
        count++;
    say("%d programs more, then: %s", count, error_text(error));
    while (wait(WAIT_ANY, 0, &status) > 0)
        count--;
    say("%d left, %d pages lost", count, before - pages());
    return 0;
}
