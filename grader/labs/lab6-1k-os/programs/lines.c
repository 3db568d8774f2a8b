/* lines.c - says each line that is typed, until q. */
#include "say.h"

int main(const char *argument)
{
    static char line[LINE_MAX];

    while (getline("> ", line) >= 0 && strcmp(line, "q") != 0)
        say("%s", line);
    return 0;
}
