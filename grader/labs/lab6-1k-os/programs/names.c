/* names.c - says the names of all processes, in one line. */
#include "say.h"

int main(const char *argument)
{
    static char names[PROCESS_NAME_MAX * 16];
    struct process_info process;
    size_t length = 0;

    for (uint32_t place = 0; processes(place, &process) == 0; place++) {
        if (process.state == PROCESS_UNUSED)
            continue;
        names[length++] = ' ';
        text_copy(names + length, process.name, sizeof process.name);
        length += strlen(names + length);
    }
    say("processes:%s", names);
    return 0;
}
