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

static bool number_take(const char *text, uint32_t *number)
{
    if (number_parse(text, number))
        return true;
    printf("'%s' is not a number from 0 to %u.\n", text, UINT32_MAX);
    return false;
}

/* Asks until it gets a number; false: no more input. */
static bool number_ask(const char *question, uint32_t *number)
{
    static char line[LINE_MAX];

    while (getline(question, line) >= 0)
        if (number_take(line, number))
            return true;
    return false;
}

int main(const char *argument)
{
    char first[LINE_MAX], second[LINE_MAX];
    uint32_t a, b;
    const char *rest = word_take(word_take(argument, first, sizeof first), second, sizeof second);

    if (*first == '\0') {
        if (!number_ask("First number: ", &a) || !number_ask("Second number: ", &b))
            return 1;
    } else if (*second == '\0' || *rest != '\0') {
        printf("gcd takes two numbers, or none and asks for them.\n");
        return 1;
    } else if (!number_take(first, &a) || !number_take(second, &b)) {
        return 1;
    }
    printf("GCD(%u, %u) = %u\n", a, b, greatest_common_divisor(a, b));
    return 0;
}
