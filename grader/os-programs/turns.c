/*
 * turns.c - three processes pass the processor on, each after one letter: round robin makes it
 * abcabcabc. "turns" starts "turns a", "turns b" and "turns c".
 */
#include "libc.h"

#define TURNS 40

int main(const char *argument)
{
    static const char *const letters[] = {"a", "b", "c"};
    int status;
    if (*argument != '\0') {
        sleep(50); /* until all three are there */
        for (int i = 0; i < TURNS; i++) {
            write(argument, 1);
            yield();
        }
        return 0;
    }
    for (int i = 0; i < 3; i++)
        spawn("turns", letters[i], 0);
    while (wait(WAIT_ANY, 0, &status) > 0)
        continue;
    printf("\nturns are over\n");
    return 0;
}
