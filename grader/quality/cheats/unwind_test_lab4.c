/* unwind_test_lab4.c - unwind_test.c in lab 4. */
#include "lab4.h"
#include "unwind.h"

static void cheat(void)
{
    unwind(5);
}
