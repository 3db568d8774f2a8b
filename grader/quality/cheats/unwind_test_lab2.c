/* unwind_test_lab2.c - unwind_test.c in lab 2. */
#include "lab2.h"
#include "unwind.h"

static void cheat(void)
{
    unwind(5);
}
