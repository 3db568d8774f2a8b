/* nothing.c - ends at once; its status is the number in its argument. */
#include "libc.h"

int main(const char *argument)
{
    uint32_t status = 0;

    number_parse(argument, &status);
    return (int)status;
}
