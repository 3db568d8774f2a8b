/* family.c - wait in all its forms. The argument is a number for the children's statuses. */
#include "say.h"

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
    say("second: %s, status %d", ended == second ? "right" : "wrong", status);
    ended = wait(first, 0, &status);
    say("first: %s, status %d", ended == first ? "right" : "wrong", status);
    say("once more: %d", wait(first, 0, &status));
    say("a stranger: %d, myself: %d", wait(1, 0, &status), wait(getpid(), 0, &status));

    /* Without waiting, and for any. */
    int sleeper = child("nap", 200);
    say("too early: %d", wait(WAIT_ANY, WAIT_NO_HANG, &status));
    ended = wait(WAIT_ANY, 0, &status);
    say("any: %s, status %d", ended == sleeper ? "right" : "wrong", status);
    say("none: %d", wait(WAIT_ANY, 0, &status));

    /* A child that is killed, and one that is left to the shell. */
    int faulty = spawn("attack", "divide", 0);
    ended = wait(faulty, 0, &status);
    say("killed: %s, status %d", ended == faulty ? "right" : "wrong", status);
    child("nap", 100);
    return 0;
}
