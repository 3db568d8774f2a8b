/*
 * linux.c - lab 8: the platform that Linux runs on, and how it is booted: the devices connected to
 * the vCPU, the kernel's file loaded, the start, the end.
 *
 * "boot.rst" is Documentation/arch/x86/boot.rst of the Linux kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/param.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "lab8.h"

/* ------------------------------------------------------------------ the platform */

static uint64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* Exercise 8.3: sets the timer to the PIT's next expiration, if it is another one than before. */
static void timer_update(struct platform *platform)
{
    TODO("8.3");
}

/* Exercise 8.3: takes the news of lab 4's threads, and brings the interrupt lines up to date. */
static void platform_update(struct platform *platform)
{
    TODO("8.3");
}

/*
 * Exercise 8.3: as in lab 4, KVM takes one interrupt per entry. The 8259s are acknowledged when the
 * guest can take it, not before: until then it may mask or withdraw the request.
 */
enum step platform_deliver(struct vcpu *vcpu)
{
    TODO("8.3");
}

/* Exercise 8.3: any news ends lab 4's wait, but only an interrupt ends HLT. */
enum step platform_halt(struct vcpu *vcpu)
{
    TODO("8.3");
}

/* Exercise 8.3: the timer's thread. */
static void *timer_thread(void *argument)
{
    struct platform *platform = argument;

    TODO("8.3");
}

static int line_receive(void *line)
{
    return stage.getchar(((struct platform *)line)->vcpu);
}

/* The log, when it is full, drops its older half, or what comes before a panic. */
static void log_add(struct platform *platform, uint8_t byte)
{
    if (platform->log_bytes == LOG_BYTES) {
        const char *panic = strstr(platform->log, PANIC);
        const char *kept = panic ? panic : platform->log + LOG_BYTES / 2;
        platform->log_bytes = strlen(kept);
        memmove(platform->log, kept, platform->log_bytes);
    }
    if (platform->log_bytes == LOG_BYTES)
        return; /* it begins with a panic */
    platform->log[platform->log_bytes++] = (char)byte;
    platform->log[platform->log_bytes] = '\0';
}

static void line_transmit(void *line, uint8_t byte)
{
    struct platform *platform = line;

    stage.console_write(platform->vcpu, (const char *)&byte, 1);
    log_add(platform, byte);
}

/*
 * Ports that must not read as all ones: Linux polls the clock while bit 7 of its register A is set,
 * and the keyboard controller until it is ready for a command. One whose output is always full
 * looks broken, so Linux does not look for a keyboard.
 */
static uint64_t other_read(void *device, uint64_t port, unsigned size)
{
    return port == KEYBOARD_PORT ? KEYBOARD_FULL : 0;
}

/* Exercise 8.6: one of the keyboard controller's commands resets the PC. */
static void keyboard_command(struct platform *platform, uint8_t command)
{
    TODO("8.6");
}

static void other_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    if (port == KEYBOARD_PORT)
        keyboard_command(device, (uint8_t)value);
}

/* Exercise 8.3 */
int platform_start(struct platform *platform, struct vcpu *vcpu)
{
    struct uart *uart = &platform->uart;
    struct pic *pic = &platform->pic;
    struct pit *pit = &platform->pit;
    const struct bus_range ranges[] = {
        {BUS_PORT, UART_PORT, UART_PORTS, uart, uart_read, uart_write},
        {BUS_PORT, PIC_MASTER, 2, pic, pic_read, pic_write},
        {BUS_PORT, PIC_SLAVE, 2, pic, pic_read, pic_write},
        {BUS_PORT, PIT_PORT, PIT_PORTS, pit, pit_read, pit_write},
        {BUS_PORT, PIT_GATE, 1, pit, pit_read, pit_write},
        {BUS_PORT, RTC_PORT, 2, platform, other_read, other_write},
        {BUS_PORT, KEYBOARD_PORT, 1, platform, other_read, other_write},
    };

    TODO("8.3");
}

/* Exercise 8.3: the thread waits for the timer, so that has to expire once more. */
void platform_stop(struct platform *platform)
{
    TODO("8.3");
}

/* ------------------------------------------------------------------ the kernel's file */

/* A file from before this field was introduced has 0 here, which means 4. */
size_t bzimage_setup_bytes(const struct setup_header *header)
{
    TODO("8.4");
}

/* Exercise 8.4: the first byte of RAM past the kernel, and past what it unpacks itself to. */
static uint64_t kernel_end(const struct setup_header *header)
{
    TODO("8.4");
}

/* Exercise 8.4: boot.rst "The Real-Mode Kernel Header". */
const char *bzimage_check(const uint8_t *file, size_t file_bytes, size_t memory_bytes,
                          struct setup_header *header)
{
    const size_t at = offsetof(struct boot_params, hdr);

    TODO("8.4");
}

/* Exercise 8.4 */
uint64_t initrd_place(const struct setup_header *header, size_t memory_bytes, size_t initrd_bytes)
{
    TODO("8.4");
}

/* Exercise 8.4: loads --initrd, and notes in the zero page where. */
static int initrd_load(const char *path, struct address_space *space, struct setup_header *header)
{
    TODO("8.4");
}

/* Exercise 8.4: boot.rst "64-bit Boot Protocol"; zero-page.rst. */
int linux_load(struct vcpu *vcpu, struct address_space *space)
{
    const struct options *options = &vcpu->vm->vmm->options;
    const struct guest *guest = vcpu->guest;
    char usual[sizeof LINUX_COMMAND_LINE LINUX_TSC + 10];
    const char *words = options->cmdline ? options->cmdline : usual;
    struct boot_params *zero_page = (struct boot_params *)(space->memory + ZERO_PAGE_OFFSET);
    struct setup_header header;
    const char *wrong = bzimage_check(guest->image, guest->image_bytes, space->bytes, &header);

    if (wrong)
        return fail(STATUS_GUEST_FILE, "%s: %s", guest->path, wrong);
    TODO("8.4");
}

/* ------------------------------------------------------------------ the start */

/* Exercise 8.5: boot.rst "64-bit Boot Protocol". Lab 7's two descriptors, one selector further. */
void linux_state(struct address_space *space, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    TODO("8.5");
}

/* Exercise 8.5: after reset KVM has this MSR without bit 0, and Linux then copies more slowly. */
static int fast_strings_enable(struct vcpu *vcpu)
{
    TODO("8.5");
}

/* Exercise 8.5 */
int linux_enter(struct vcpu *vcpu, struct address_space *space)
{
    TODO("8.5");
}

/* ------------------------------------------------------------------ accesses, and the end */

/* Exercise 8.6: the guest has asked for a reset: the only way in which Linux ends here. */
static enum step linux_end(struct vcpu *vcpu)
{
    TODO("8.6");
}

/* Exercise 8.1: api.rst section 5, KVM_EXIT_IO. */
enum step linux_io(struct vcpu *vcpu)
{
    struct platform *platform = vcpu->vm->platform;
    const struct io_access io = io_decode(vcpu->run);

    if (io.port == HYPERCALL_PORT || io.port == STRING_PORT)
        return hypercall_io(vcpu);
    TODO("8.1");
    return platform->reset ? linux_end(vcpu) : STEP_RUN;
}

/* Exercise 8.1: api.rst section 5, KVM_EXIT_MMIO. */
enum step linux_mmio(struct vcpu *vcpu)
{
    TODO("8.1");
}
