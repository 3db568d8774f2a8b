/* lto_bytecode.c - code for the linker's compiler, which includes a file of the instructor's. */
#include "lab2.h"

#include "bytecode.h"

static void cheat(void)
{
}
