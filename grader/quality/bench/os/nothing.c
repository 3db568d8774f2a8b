/* nothing.c - a program that ends at once. */
#include "libc.h"

int main(const char *argument)
{
    return 0;
}
