/* fibonacci.c - the Fibonacci numbers up to 89. */
#include "libc.h"

int main(const char *argument)
{
    uint32_t number = 0, next = 1;

    for (int n = 0; number <= 89; n++) {
        printf("F(%d) = %u\n", n, number);
        uint32_t sum = number + next;
        number = next;
        next = sum;
    }
    return 0;
}
