/* factorial.c - factorials as far as 32 bits carry. */
#include "libc.h"

int main(const char *argument)
{
    uint32_t product = 1, n = 0;

    for (;;) {
        printf("%u! = %u\n", n, product);
        n++;
        if (product > UINT32_MAX / n)
            break;
        product *= n;
    }
    printf("%u! does not fit: 32 bits hold at most %u\n", n, UINT32_MAX);
    return 0;
}
