/* table.c - the multiplication table, a row a line. */
#include "libc.h"

int main(const char *argument)
{
    for (int row = 2; row <= 9; row++)
        for (int column = 1; column <= 9; column++)
            printf("%d x %d = %d%s", row, column, row * column, column < 9 ? "  " : "\n");
    return 0;
}
