/* primes.c - the primes up to 100, by the sieve of Eratosthenes. */
#include "libc.h"

#define LIMIT 100

int main(const char *argument)
{
    bool composite[LIMIT + 1] = {false};
    int count = 0;

    for (int number = 2; number <= LIMIT; number++) {
        if (composite[number])
            continue;
        for (int multiple = number * number; multiple <= LIMIT; multiple += number)
            composite[multiple] = true;
        if (count > 0)
            printf(count % 10 == 0 ? "\n" : " ");
        printf("%d", number);
        count++;
    }
    printf("\nTotal: %d primes\n", count);
    return 0;
}
