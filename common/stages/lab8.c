/* lab8.c - the VMM of lab 8: Linux. */
#include <termios.h>
#include <unistd.h>

#include "lab8.h"
#include "stages/long_guest.h"

#define STOP_KEY     0x1d /* Ctrl-] */
#define LAB4_TICK_MS 1000 /* Linux has the PIT; lab 4's timer runs, but nothing depends on it */

static struct platform platform; /* a Linux guest is the only guest */

static bool is_linux(const struct vcpu *vcpu)
{
    return vcpu->guest->kind == GUEST_LINUX;
}

static int prepare_linux(struct vcpu *vcpu)
{
    struct address_space space;
    int status = space_open(vcpu, &space);

    if (status == 0)
        status = linux_load(vcpu, &space);
    return status != 0 ? status : linux_enter(vcpu, &space);
}

/* Guests of earlier labs have the handlers of earlier labs. */
static enum step deliver(struct vcpu *vcpu)
{
    return is_linux(vcpu) ? platform_deliver(vcpu) : interrupt_deliver(vcpu);
}

static enum step io(struct vcpu *vcpu)
{
    return is_linux(vcpu) ? linux_io(vcpu) : long_mode_io(vcpu);
}

static enum step mmio(struct vcpu *vcpu)
{
    return is_linux(vcpu) ? linux_mmio(vcpu) : STEP_UNHANDLED;
}

static enum step halt(struct vcpu *vcpu)
{
    return is_linux(vcpu) ? platform_halt(vcpu) : interrupt_halt(vcpu);
}

/* The keys that lab 4 gives to a 32-bit kernel: Ctrl-C and Ctrl-\ are bytes, Ctrl-] ends the VMM.
 */
static void terminal_keys(void)
{
    struct termios keys;

    if (tcgetattr(STDIN_FILENO, &keys) < 0)
        return; /* not a terminal */
    keys.c_cc[VINTR] = STOP_KEY;
    keys.c_cc[VQUIT] = _POSIX_VDISABLE;
    tcsetattr(STDIN_FILENO, TCSANOW, &keys);
}

static int all_devices_start(struct vmm *vmm)
{
    if (vmm->guests[0].kind != GUEST_LINUX)
        return devices_start(vmm);
    vmm->options.tick_ms = LAB4_TICK_MS;
    int status = devices_start(vmm);
    if (status != 0)
        return status;
    terminal_keys();
    status = platform_start(&platform, &vmm->vcpus[0]);
    if (status != 0)
        devices_stop();
    return status;
}

static void all_devices_stop(void)
{
    if (platform.vcpu)
        platform_stop(&platform);
    devices_stop();
}

const struct stage stage = {
    .lab = 8,
    .guests_max = VCPUS_MAX,
    .prepare =
        {
            [GUEST_REAL] = window_prepare,
            [GUEST_PAGING] = paging_prepare,
            [GUEST_ELF] = boot_prepare,
            [GUEST_ELF64] = prepare_long,
            [GUEST_LINUX] = prepare_linux,
        },
    .run = vcpus_run,
    .before_entry =
        {
            vcpu_check_stop,
            deliver,
        },
    .on_exit =
        {
            [KVM_EXIT_IO] = io,
            [KVM_EXIT_HLT] = halt,
            [KVM_EXIT_MMIO] = mmio,
            [KVM_EXIT_IRQ_WINDOW_OPEN] = interrupt_window_open,
        },
    .console_write = console_write_lines,
    .getchar = keyboard_getchar,
    .devices_start = all_devices_start,
    .devices_stop = all_devices_stop,
    .on_end = keyboard_pass_on,
    .translate = paging_translate,
    .translate_long = translate_long,
};
