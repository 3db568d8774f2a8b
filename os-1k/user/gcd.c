/* gcd.c - the greatest common divisor of two numbers, by Euclid's algorithm. */
#include "libc.h"

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Asks until it gets a number; false: no more input. */
static bool number_ask(const char *question, uint32_t *number)
{
    static char line[LINE_MAX];

    while (getline(question, line) >= 0) {
        if (number_parse(line, number))
            return true;
        printf("'%s' is not a number from 0 to %u.\n", line, UINT32_MAX);
    }
    return false;
}

int main(const char *argument)
{
    uint32_t a, b;

    if (!number_ask("First number: ", &a) || !number_ask("Second number: ", &b))
        return 1;
    printf("GCD(%u, %u) = %u\n", a, b, greatest_common_divisor(a, b));
    return 0;
}
