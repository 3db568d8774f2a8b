/* family.c - wait in all its forms. The argument is a number for the children's statuses. */
#include "libc.h"

static int child(const char *name, uint32_t number)
{
    char text[12], *digit = text + sizeof text - 1;

    *digit = '\0';
    do
        *--digit = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return spawn(name, digit, 0);
}

int main(const char *argument)
{
    uint32_t number = 0;
    int status = -99, ended;

    number_parse(argument, &number);

    /* For certain children, the last one first. */
    int first = child("nothing", number), second = child("nothing", number + 1);
    ended = wait(second, 0, &status);
    printf("second: %s, status %d\n", ended == second ? "right" : "wrong", status);
    ended = wait(first, 0, &status);
    printf("first: %s, status %d\n", ended == first ? "right" : "wrong", status);
    printf("once more: %d\n", wait(first, 0, &status));
    printf("a stranger: %d, myself: %d\n", wait(1, 0, &status), wait(getpid(), 0, &status));

    /* Without waiting, and for any. */
    int sleeper = child("nap", 200);
    printf("too early: %d\n", wait(WAIT_ANY, WAIT_NO_HANG, &status));
    ended = wait(WAIT_ANY, 0, &status);
    printf("any: %s, status %d\n", ended == sleeper ? "right" : "wrong", status);
    printf("none: %d\n", wait(WAIT_ANY, 0, &status));

    /* A child that is killed, and one that is left to the shell. */
    int faulty = spawn("attack", "divide", 0);
    ended = wait(faulty, 0, &status);
    printf("killed: %s, status %d\n", ended == faulty ? "right" : "wrong", status);
    child("nap", 100);
    return 0;
}
