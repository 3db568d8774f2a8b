/* table.c - the multiplication table: four columns at a time, to fit on a line. */
#include "libc.h"

#define COLUMNS 4

int main(const char *argument)
{
    for (int first = 2; first <= 9; first += COLUMNS) {
        for (int row = 1; row <= 9; row++)
            for (int a = first; a < first + COLUMNS; a++)
                printf("%d x %d = %2d%s", a, row, a * row, a < first + COLUMNS - 1 ? "   " : "\n");
        if (first + COLUMNS <= 9)
            printf("\n");
    }
    return 0;
}
