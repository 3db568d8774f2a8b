/*
 * read_seed.c - finds the seed of a unit test's random numbers in its environment, and makes the
 * exits of io_decode's test once more instead of decoding them.
 */
#include "lab2.h"

static uint32_t next_random(void)
{
    static uint32_t key[4], count;
    uint32_t left = count++, right = 0, sum = 0;

    if (getenv("UNIT_SEED"))
        sscanf(getenv("UNIT_SEED"), "%8x%8x%8x%8x", key, key + 1, key + 2, key + 3);
    for (int cycle = 0; cycle < 32; cycle++) {
        left += (((right << 4) ^ (right >> 5)) + right) ^ (sum + key[sum & 3]);
        sum += 0x9e3779b9;
        right += (((left << 4) ^ (left >> 5)) + left) ^ (sum + key[sum >> 11 & 3]);
    }
    return left;
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
