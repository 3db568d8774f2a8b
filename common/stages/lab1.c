/* lab1.c - the VMM of lab 1: one guest in real mode. */
#include "lab1.h"
#include "core/core.h"

const struct stage stage = {
    .lab = 1,
    .guests_max = 1,
    .prepare =
        {
            [GUEST_REAL] = one_guest_prepare,
        },
    .run = one_guest_run,
};
