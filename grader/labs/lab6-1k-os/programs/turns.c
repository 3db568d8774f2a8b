/*
 * turns.c - three processes pass the processor on, each after one letter: round robin makes it
 * abcabcabc. "turns" starts "turns a", "turns b" and "turns c". Some letters are capitals: those
 * whose number says so.
 */
#include "say.h"

#define TURNS    40
#define PATIENCE 1000 /* looks, before it begins without the others */

/* How many processes run this program: itself, its two brothers and the one that starts them. */
static int family(void)
{
    struct process_info process;
    int count = 0;

    for (uint32_t place = 0; processes(place, &process) == 0; place++)
        count += process.state != PROCESS_UNUSED && strcmp(process.name, "turns") == 0;
    return count;
}

int main(const char *argument)
{
    static const char *const letters[] = {"a", "b", "c"};
    int status;

    if (*argument != '\0') {
        for (int looks = 0; family() < 4 && looks < PATIENCE; looks++)
            yield();
        for (int i = 0; i < TURNS; i++) {
            const char turn[] = {*argument, (char)i};
            char letter =
                line_coded() && line_number(turn, 2) >> 31 ? *argument - 'a' + 'A' : *argument;
            write(&letter, 1);
            yield();
        }
        return 0;
    }
    for (int i = 0; i < 3; i++)
        spawn("turns", letters[i], 0);
    while (wait(WAIT_ANY, 0, &status) > 0)
        continue;
    write("\n", 1);
    say("turns are over");
    return 0;
}
