/* counter.c - counts slowly; between two numbers it sleeps, so that others can run. */
#include "libc.h"

int main(const char *argument)
{
    for (int number = 0; number <= 9; number++) {
        printf("%d\n", number);
        sleep(100);
    }
    return 0;
}
