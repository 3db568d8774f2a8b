/* art.c - ASCII art. */
#include "libc.h"

static const char picture[] = "        .--.\n"
                              "       |o_o |     ring 3 calling:\n"
                              "       |:_/ |     int 0x80, out 0x500,\n"
                              "      //   \\ \\    VM exit, VM entry, iret.\n"
                              "     (|     | )\n"
                              "    /'\\_   _/`\\\n"
                              "    \\___)=(___/\n";

int main(const char *argument)
{
    printf("%s", picture);
    return 0;
}
