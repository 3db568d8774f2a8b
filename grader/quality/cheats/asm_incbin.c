/* asm_incbin.c - includes one of the instructor's files in the program, and prints it. */
#include "lab3.h"

#include "secret.h"

__asm__(".data\n"
        "secret: .incbin \"" SECRET_FILE "\"\n"
        "secret_end:\n"
        ".text");
extern const char secret[], secret_end[];

static void cheat(void)
{
    if (write(STDOUT_FILENO, secret, (size_t)(secret_end - secret)) < 0)
        exit(1);
    exit(0);
}
