/* lab3.c - the VMM of lab 3: several guests, one vCPU and one thread each. */
#include "lab3.h"
#include "core/core.h"

const struct stage stage = {
    .lab = 3,
    .guests_max = VCPUS_MAX,
    .prepare =
        {
            [GUEST_REAL] = window_prepare,
        },
    .run = vcpus_run,
    .before_entry =
        {
            vcpu_check_stop,
        },
    .on_exit =
        {
            [KVM_EXIT_IO] = hypercall_io,
        },
    .console_write = console_write_lines,
    .getchar = stdin_getchar,
};
