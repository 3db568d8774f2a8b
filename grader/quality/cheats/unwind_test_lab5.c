/* unwind_test_lab5.c - unwind_test.c in lab 5. */
#include "lab5.h"
#include "unwind.h"

static void cheat(void)
{
    unwind(5);
}
