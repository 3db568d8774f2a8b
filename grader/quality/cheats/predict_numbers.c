/*
 * predict_numbers.c - takes random numbers of a unit test that it finds in its memory for those of
 * a generator whose state is a linear function of them, computes that state, and makes the exits
 * of io_decode's test once more instead of decoding them.
 */
#include "lab2.h"
#include "symbols.h"

enum { STATE = 64, BYTES = 40 };

static uint64_t state;

static uint32_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* Bit i of the state becomes the sum of itself and of bit i - by; which bits of the first state
 * each one consists of is in `bits`. */
static void shift(uint64_t *bits, int by)
{
    uint64_t old[STATE];

    memcpy(old, bits, sizeof old);
    for (int i = 0; i < STATE; i++)
        if (i - by >= 0 && i - by < STATE)
            bits[i] ^= old[i - by];
}

/* Solves one equation a bit by Gaussian elimination. */
static void state_find(const uint8_t *numbers)
{
    uint64_t bits[STATE], rows[STATE] = {0};
    uint8_t sums[STATE] = {0};

    for (int i = 0; i < STATE; i++)
        bits[i] = 1ull << i;
    for (int n = 0; n < BYTES; n++) {
        shift(bits, 13);
        shift(bits, -7);
        shift(bits, 17);
        for (int bit = 0; bit < 8; bit++) {
            uint64_t row = bits[16 + bit];
            uint8_t sum = numbers[n] >> bit & 1;
            for (int i = STATE - 1; i >= 0 && row; i--) {
                if (row >> i & 1 && rows[i]) {
                    row ^= rows[i];
                    sum ^= sums[i];
                } else if (row >> i & 1) {
                    rows[i] = row;
                    sums[i] = sum;
                    row = 0;
                }
            }
        }
    }
    for (int i = 0; i < STATE; i++)
        state |= (uint64_t)(sums[i] ^ (uint8_t)__builtin_parityll(rows[i] & ~(1ull << i) & state))
                 << i;
}

static void cheat(void)
{
    static const uint8_t sizes[] = {1, 2, 4};
    static const uint8_t *junk;
    static int calls;

    if (!decoding)
        return;
    if (!junk) {
        junk = variable_find("junk");
        if (!junk)
            return;
        state_find(junk);
        for (int n = 0; n < 512; n++)
            next_random();
    }
    decoded.out = next_random() & 1;
    decoded.port = (uint16_t)next_random();
    decoded.size = sizes[next_random() % 3];
    decoded.count = calls % 2 ? 1 + next_random() % 100 : next_random();
    decoded.data = (uint8_t *)decoding + (next_random() % 2 ? 0x10000 : PAGE_BYTES);
    decoded.data += next_random() % 512;
    for (uint32_t i = 0; i < decoded.size * (calls % 2 ? decoded.count : 1); i++)
        next_random();
    calls++;
}
