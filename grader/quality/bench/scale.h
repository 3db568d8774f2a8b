/* scale.h - what os/shell.c and linux.c have in common: the same things, each as many times. */
#pragma once

#include <stdint.h>

#define KEY_SYSTEM_CALL 's'
#define KEY_SWITCH      'w'
#define KEY_PROGRAM     'p'

/* rows.py reads these. */
#define SYSTEM_CALL_COUNT 2000
#define SWITCH_COUNT      1000
#define PROGRAM_COUNT     20

static inline uint64_t cycles(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
