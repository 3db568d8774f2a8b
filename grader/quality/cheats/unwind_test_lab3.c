/* unwind_test_lab3.c - unwind_test.c in lab 3. */
#include "lab3.h"
#include "unwind.h"

static void cheat(void)
{
    unwind(5);
}
