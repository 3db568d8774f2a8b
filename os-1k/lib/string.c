/* string.c - the part of <string.h> that is needed here. */
#include "text.h"

/* These two in assembly, or an optimising compiler turns their loops into calls of themselves. */
void *memcpy(void *to, const void *from, size_t count)
{
    void *target = to;

    asm volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(count) : : "memory");
    return to;
}

void *memset(void *to, int byte, size_t count)
{
    void *target = to;

    asm volatile("rep stosb" : "+D"(target), "+c"(count) : "a"(byte) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const unsigned char *left = a, *right = b;

    for (size_t i = 0; i < count; i++)
        if (left[i] != right[i])
            return left[i] - right[i];
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0')
        length++;
    return length;
}

int strcmp(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

void text_copy(char *to, const char *from, size_t size)
{
    size_t length = strlen(from);

    if (length > size - 1)
        length = size - 1;
    memcpy(to, from, length);
    to[length] = '\0';
}
