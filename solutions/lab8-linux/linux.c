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
    /* answer 8.3 */
    const uint64_t at = platform->pit.next;
    struct itimerspec time = {0}; /* all zeros: never */

    if (at == platform->timer_at)
        return;
    if (at != PIT_NEVER)
        time.it_value = (struct timespec){(time_t)(at / NS_PER_SECOND), (long)(at % NS_PER_SECOND)};
    timerfd_settime(platform->timer_fd, TFD_TIMER_ABSTIME, &time, NULL);
    platform->timer_at = at;
    /* end 8.3 */
}

/* Exercise 8.3: takes the news of lab 4's threads, and brings the interrupt lines up to date. */
static void platform_update(struct platform *platform)
{
    /* answer 8.3 */
    struct vcpu *vcpu = platform->vcpu;
    const uint32_t timer = 1, keyboard = 1u << (KEYBOARD_VECTOR - TIMER_VECTOR);

    pthread_mutex_lock(&vcpu->lock);
    const uint32_t news = vcpu->pending;
    vcpu->pending &= ~(timer | keyboard);
    pthread_mutex_unlock(&vcpu->lock);
    if (news & keyboard)
        uart_receive(&platform->uart);
    platform->pit.now = clock_now();
    if (pit_expired(&platform->pit)) { /* the output's pulse is short: an edge */
        pic_set_line(&platform->pic, PIT_IRQ, false);
        pic_set_line(&platform->pic, PIT_IRQ, true);
    }
    pic_set_line(&platform->pic, UART_IRQ, uart_interrupt(&platform->uart));
    timer_update(platform);
    /* end 8.3 */
}

/*
 * Exercise 8.3: as in lab 4, KVM takes one interrupt per entry. The 8259s are acknowledged when the
 * guest can take it, not before: until then it may mask or withdraw the request.
 */
enum step platform_deliver(struct vcpu *vcpu)
{
    /* answer 8.3 */
    struct pic *pic = &vcpu->vm->platform->pic;
    struct kvm_run *run = vcpu->run;

    platform_update(vcpu->vm->platform);
    if (pic_asserted(pic) && run->ready_for_interrupt_injection && run->if_flag) {
        struct kvm_interrupt interrupt = {.irq = pic_acknowledge(pic)};
        if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) < 0)
            return vcpu_crash(vcpu, "KVM_INTERRUPT 0x%x: %s", interrupt.irq, strerror(errno));
        vcpu->interrupts++;
        trace_event(vcpu, "inject vector 0x%x", interrupt.irq);
    }
    run->request_interrupt_window = pic_asserted(pic);
    return STEP_RUN;
    /* end 8.3 */
}

/* Exercise 8.3: any news ends lab 4's wait, but only an interrupt ends HLT. */
enum step platform_halt(struct vcpu *vcpu)
{
    /* answer 8.3 */
    struct platform *platform = vcpu->vm->platform;
    enum step step = STEP_RUN;

    platform_update(platform);
    while (step == STEP_RUN && !atomic_load(&vcpu->vm->vmm->stop_signal) &&
           !(vcpu->run->if_flag && pic_asserted(&platform->pic))) {
        step = interrupt_halt(vcpu);
        platform_update(platform);
    }
    return step;
    /* end 8.3 */
}

/* Exercise 8.3: the timer's thread. */
static void *timer_thread(void *argument)
{
    struct platform *platform = argument;

    /* answer 8.3 */
    uint64_t expirations;

    while (read(platform->timer_fd, &expirations, sizeof expirations) == sizeof expirations &&
           !atomic_load(&platform->stopping))
        interrupt_raise(platform->vcpu, TIMER_VECTOR);
    return NULL;
    /* end 8.3 */
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
    /* answer 8.6 */
    if (command == KEYBOARD_RESET)
        platform->reset = true;
    /* end 8.6 */
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

    /* answer 8.3 */
    *platform = (struct platform){.vcpu = vcpu, .timer_at = PIT_NEVER, .pit.next = PIT_NEVER};
    uart->line = platform;
    uart->receive = line_receive;
    uart->transmit = line_transmit;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        bus_add(&platform->bus, &ranges[i]);
    platform->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (platform->timer_fd < 0)
        return fail(STATUS_NO_KVM, "no timer: %s", strerror(errno));
    int error = pthread_create(&platform->thread, NULL, timer_thread, platform);
    if (error != 0)
        return fail(STATUS_NO_KVM, "no thread for the timer: %s", strerror(error));
    vcpu->vm->platform = platform;
    return 0;
    /* end 8.3 */
}

/* Exercise 8.3: the thread waits for the timer, so that has to expire once more. */
void platform_stop(struct platform *platform)
{
    /* answer 8.3 */
    const struct itimerspec now = {.it_value.tv_nsec = 1};

    atomic_store(&platform->stopping, true);
    timerfd_settime(platform->timer_fd, 0, &now, NULL);
    pthread_join(platform->thread, NULL);
    close(platform->timer_fd);
    /* end 8.3 */
}

/* ------------------------------------------------------------------ the kernel's file */

/* A file from before this field was introduced has 0 here, which means 4. */
size_t bzimage_setup_bytes(const struct setup_header *header)
{
    /* answer 8.4 */
    return (size_t)((header->setup_sects ? header->setup_sects : 4) + 1) * SECTOR_BYTES;
    /* end 8.4 */
}

/* Exercise 8.4: the first byte of RAM past the kernel, and past what it unpacks itself to. */
static uint64_t kernel_end(const struct setup_header *header)
{
    /* answer 8.4 */
    const uint64_t loaded = KERNEL_OFFSET + (uint64_t)header->syssize * PARAGRAPH_BYTES;
    const uint64_t unpacked = MAX(header->pref_address, KERNEL_OFFSET) + header->init_size;

    return MAX(loaded, unpacked);
    /* end 8.4 */
}

/* Exercise 8.4: boot.rst "The Real-Mode Kernel Header". */
const char *bzimage_check(const uint8_t *file, size_t file_bytes, size_t memory_bytes,
                          struct setup_header *header)
{
    const size_t at = offsetof(struct boot_params, hdr);

    /* answer 8.4 */
    if (file_bytes < at + sizeof *header)
        return "truncated: shorter than a kernel's header";
    memcpy(header, file + at, sizeof *header);
    if (header->boot_flag != BOOT_FLAG || header->header != HEADER_MAGIC)
        return "not a bzImage: it has no boot flag or no HdrS";
    if (header->version < BOOT_VERSION_MIN)
        return "too old: the boot protocol must be 2.12 or later (Linux 3.8)";
    if (!(header->loadflags & LOADED_HIGH) || !(header->xloadflags & XLF_KERNEL_64))
        return "no 64-bit entry point: a kernel for x86-64 is needed";
    if (!header->relocatable_kernel && header->pref_address != KERNEL_OFFSET)
        return "not relocatable, and not linked for the address 0x100000";
    const size_t setup_bytes = bzimage_setup_bytes(header);
    if (file_bytes < setup_bytes ||
        (file_bytes - setup_bytes) / PARAGRAPH_BYTES < header->syssize ||
        header->syssize <= KERNEL_ENTRY_64 / PARAGRAPH_BYTES)
        return "truncated: the kernel is not all there";
    if (header->pref_address > memory_bytes || kernel_end(header) > memory_bytes)
        return "no room for the kernel to unpack itself: increase --mem";
    /* The header of an older version is shorter: what follows it in the file is code. */
    const size_t bytes = HEADER_END - at + (header->jump >> 8);
    if (bytes < sizeof *header)
        memset((uint8_t *)header + bytes, 0, sizeof *header - bytes);
    return NULL;
    /* end 8.4 */
}

/* Exercise 8.4 */
uint64_t initrd_place(const struct setup_header *header, size_t memory_bytes, size_t initrd_bytes)
{
    /* answer 8.4 */
    const uint64_t end = MIN(memory_bytes, header->initrd_addr_max + 1ull);
    const uint64_t start = (end - initrd_bytes) / PAGE_BYTES * PAGE_BYTES;

    return initrd_bytes > end || start < kernel_end(header) ? 0 : start;
    /* end 8.4 */
}

/* Exercise 8.4: loads --initrd, and notes in the zero page where. */
static int initrd_load(const char *path, struct address_space *space, struct setup_header *header)
{
    /* answer 8.4 */
    uint8_t *initrd;
    size_t bytes;
    int status = file_read(path, space->bytes, &initrd, &bytes);

    if (status != 0)
        return status;
    const uint64_t start = initrd_place(header, space->bytes, bytes);
    if (start == 0)
        status = fail(STATUS_GUEST_FILE, "%s: no room above the kernel: increase --mem", path);
    else
        memcpy(space->memory + start, initrd, bytes);
    header->ramdisk_image = (uint32_t)start;
    header->ramdisk_size = (uint32_t)bytes;
    free(initrd);
    return status;
    /* end 8.4 */
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
    /* answer 8.4 */
    const int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    snprintf(usual, sizeof usual, LINUX_COMMAND_LINE LINUX_TSC, MAX(khz, 0));
    if (strlen(words) > header.cmdline_size || strlen(words) >= LOAD_MIN - COMMAND_LINE_OFFSET)
        return fail(STATUS_USAGE, "--cmdline: %zu characters, but the kernel takes at most %u",
                    strlen(words), header.cmdline_size);
    int status = options->initrd ? initrd_load(options->initrd, space, &header) : 0;
    if (status != 0)
        return status;
    header.type_of_loader = LOADER_UNDEFINED;
    header.vid_mode = VIDEO_MODE_NORMAL;
    header.cmd_line_ptr = COMMAND_LINE_OFFSET;
    *zero_page = (struct boot_params){
        .hdr = header,
        .e820_entries = 2,
        .e820_table = {{0, LOW_RAM_END, E820_RAM},
                       {KERNEL_OFFSET, space->bytes - KERNEL_OFFSET, E820_RAM}},
    };
    strcpy((char *)space->memory + COMMAND_LINE_OFFSET, words);
    memcpy(space->memory + KERNEL_OFFSET, guest->image + bzimage_setup_bytes(&header),
           (size_t)header.syssize * PARAGRAPH_BYTES);
    return 0;
    /* end 8.4 */
}

/* ------------------------------------------------------------------ the start */

/* Exercise 8.5: boot.rst "64-bit Boot Protocol". Lab 7's two descriptors, one selector further. */
void linux_state(struct address_space *space, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    /* answer 8.5 */
    uint64_t *gdt = (uint64_t *)(void *)(space->memory + GDT_OFFSET);

    long_gdt_build(space);
    long_mode_state(space, KERNEL_OFFSET + KERNEL_ENTRY_64, LOW_RAM_END, sregs, regs);
    memmove(&gdt[SELECTOR_BOOT_CODE >> 3], &gdt[SELECTOR_KERNEL_CODE >> 3], 2 * sizeof *gdt);
    sregs->cs = segment_load(gdt, SELECTOR_BOOT_CODE);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss =
        segment_load(gdt, SELECTOR_BOOT_DATA);
    regs->rsi = ZERO_PAGE_OFFSET;
    /* end 8.5 */
}

/* Exercise 8.5: after reset KVM has this MSR without bit 0, and Linux then copies more slowly. */
static int fast_strings_enable(struct vcpu *vcpu)
{
    /* answer 8.5 */
    union {
        struct kvm_msrs list;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } msrs = {.list.nmsrs = 1};

    msrs.list.entries[0].index = MSR_MISC_ENABLE;
    if (ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) != 1)
        return fail(STATUS_NO_KVM, "KVM_GET_MSRS: %s", strerror(errno));
    msrs.list.entries[0].data |= MISC_ENABLE_FAST_STRINGS;
    if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 1)
        return fail(STATUS_NO_KVM, "KVM_SET_MSRS: %s", strerror(errno));
    return 0;
    /* end 8.5 */
}

/* Exercise 8.5 */
int linux_enter(struct vcpu *vcpu, struct address_space *space)
{
    /* answer 8.5 */
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    int status = vcpu_show_cpuid(vcpu);

    if (status == 0)
        status = fast_strings_enable(vcpu);
    if (status != 0)
        return status;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_GET_SREGS: %s", strerror(errno));
    long_tables_build(space);
    linux_state(space, &sregs, &regs);
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return fail(STATUS_NO_KVM, "KVM rejects the start state: %s", strerror(errno));
    return 0;
    /* end 8.5 */
}

/* ------------------------------------------------------------------ accesses, and the end */

/* Exercise 8.6: the guest has asked for a reset: the only way in which Linux ends here. */
static enum step linux_end(struct vcpu *vcpu)
{
    /* answer 8.6 */
    const char *panic = strstr(vcpu->vm->platform->log, PANIC);

    return panic ? vcpu_crash(vcpu, "%s", panic) : vcpu_end(vcpu, 0);
    /* end 8.6 */
}

/* Exercise 8.1: api.rst section 5, KVM_EXIT_IO. */
enum step linux_io(struct vcpu *vcpu)
{
    struct platform *platform = vcpu->vm->platform;
    const struct io_access io = io_decode(vcpu->run);

    if (io.port == HYPERCALL_PORT || io.port == STRING_PORT)
        return hypercall_io(vcpu);
    /* answer 8.1 */
    platform->pit.now = clock_now();
    for (uint32_t i = 0; i < io.count; i++) {
        if (io.out)
            bus_write(&platform->bus, BUS_PORT, io.port, io.size, io_operand(&io, i));
        else
            io_answer(&io, i, (uint32_t)bus_read(&platform->bus, BUS_PORT, io.port, io.size));
    }
    /* end 8.1 */
    return platform->reset ? linux_end(vcpu) : STEP_RUN;
}

/* Exercise 8.1: api.rst section 5, KVM_EXIT_MMIO. */
enum step linux_mmio(struct vcpu *vcpu)
{
    /* answer 8.1 */
    const struct bus *bus = &vcpu->vm->platform->bus;
    struct kvm_run *run = vcpu->run;
    uint64_t value = 0;

    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, run->mmio.len);
        bus_write(bus, BUS_MEMORY, run->mmio.phys_addr, run->mmio.len, value);
    } else {
        value = bus_read(bus, BUS_MEMORY, run->mmio.phys_addr, run->mmio.len);
        memcpy(run->mmio.data, &value, sizeof value);
    }
    return STEP_RUN;
    /* end 8.1 */
}
