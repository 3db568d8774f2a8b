/* naps.c - starts "nap N" for each number of its argument, all at once, and waits for them. */
#include "say.h"

int main(const char *argument)
{
    char number[12];
    int status;

    while (*argument != '\0') {
        size_t length = 0;
        while (*argument != '\0' && *argument != ' ' && length < sizeof number - 1)
            number[length++] = *argument++;
        number[length] = '\0';
        while (*argument == ' ')
            argument++;
        spawn("nap", number, 0);
    }
    while (wait(WAIT_ANY, 0, &status) > 0)
        continue;
    say("all are awake");
    return 0;
}
