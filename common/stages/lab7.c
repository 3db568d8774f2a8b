/* lab7.c - the VMM of lab 7: 64-bit guests. */
#include "lab7.h"
#include "stages/long_guest.h"

const struct stage stage = {
    .lab = 7,
    .guests_max = VCPUS_MAX,
    .prepare =
        {
            [GUEST_REAL] = window_prepare,
            [GUEST_PAGING] = paging_prepare,
            [GUEST_ELF] = boot_prepare,
            [GUEST_ELF64] = prepare_long,
        },
    .run = vcpus_run,
    .before_entry =
        {
            vcpu_check_stop,
            interrupt_deliver,
        },
    .on_exit =
        {
            [KVM_EXIT_IO] = long_mode_io,
            [KVM_EXIT_HLT] = interrupt_halt,
            [KVM_EXIT_IRQ_WINDOW_OPEN] = interrupt_window_open,
        },
    .console_write = console_write_lines,
    .getchar = keyboard_getchar,
    .devices_start = devices_start,
    .devices_stop = devices_stop,
    .on_end = keyboard_pass_on,
    .translate = paging_translate,
    .translate_long = translate_long,
};
