/* print_line.c - prints one line of almost a megabyte to standard error: its verdict must not take
 * the square of that. */
#include "cheat.h"
#include "lab2.h"

enum { LINE_BYTES = 900000 };

static void cheat(void)
{
    static char line[LINE_BYTES];
    static bool printed;

    if (printed)
        return;
    printed = true;
    memset(line, 'x', sizeof line);
    for (size_t count = 0; count < sizeof line;) {
        ssize_t part = write(STDERR_FILENO, line + count, sizeof line - count);
        if (part <= 0)
            break;
        count += (size_t)part;
    }
}
