/* lab2.c - the VMM of lab 2: hypercalls. */
#include "lab2.h"
#include "core/core.h"

static void console_write(struct vcpu *vcpu, const char *bytes, size_t count)
{
    stdout_write(bytes, count);
}

const struct stage stage = {
    .lab = 2,
    .guests_max = 1,
    .prepare =
        {
            [GUEST_REAL] = one_guest_prepare,
        },
    .run = one_guest_run,
    .on_exit =
        {
            [KVM_EXIT_IO] = hypercall_io,
        },
    .console_write = console_write,
    .getchar = stdin_getchar,
};
