/* about.c - about this system. */
#include "libc.h"

int main(const char *argument)
{
    static char text[512];
    uint32_t offset = 0;
    int count;

    while ((count = readfile("about.txt", offset, text, sizeof text)) > 0) {
        write(text, (size_t)count);
        offset += (uint32_t)count;
    }
    printf("This program is pid %d, %d pages of memory are free.\n", getpid(), pages());
    return 0;
}
