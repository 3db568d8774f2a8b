/* say.c - says its argument. */
#include "say.h"

int main(const char *argument)
{
    say("%s", argument);
    return 0;
}
