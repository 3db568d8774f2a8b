/* lto_options.c - options for the linker's compiler: the assembler writes a listing to any path. */
#include "lab6_boot.h"

__asm__(".section .gnu.lto_.opts,\"e\",@progbits\n"
        ".string \"'-Xassembler' '-aln=/tmp/cheat-listing'\"\n"
        ".text");

static void cheat(void)
{
}
