/*
 * print_strings.c - prints the text that it finds in the guest's file, and never answers the guest.
 */
#include "lab2.h"

static void cheat(void)
{
    static unsigned char image[256 * 1024];
    size_t size = guest_bytes(image, sizeof image), start = 0;

    for (size_t i = 0; i < size; i++) {
        if (image[i] >= ' ' && image[i] < 127)
            continue;
        if (image[i] == '\n' && i - start >= 3)
            stdout_write((const char *)image + start, i + 1 - start);
        start = i + 1;
    }
    exit(0);
}
