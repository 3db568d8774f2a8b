/* echo.c - repeats its argument; without one, each line that is typed until q. */
#include "libc.h"

int main(const char *argument)
{
    static char line[LINE_MAX];

    if (*argument != '\0') {
        printf("%s\n", argument);
        return 0;
    }
    printf("Say something; q ends.\n");
    while (getline("> ", line) >= 0 && strcmp(line, "q") != 0)
        printf("%s\n", line);
    return 0;
}
