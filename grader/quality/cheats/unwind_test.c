/* unwind_test.c - returns out of a unit test to Check, which takes it for passed. */
#include "lab1.h"
#include "unwind.h"

static void cheat(void)
{
    unwind(5);
}
