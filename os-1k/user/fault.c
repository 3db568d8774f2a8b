/* fault.c - reads the kernel's memory; the kernel ends it, and nobody else notices. */
#include "libc.h"

int main(const char *argument)
{
    printf("reading 0x80100000\n");
    printf("it holds 0x%x\n", *(volatile uint32_t *)0x80100000);
    return 0;
}
