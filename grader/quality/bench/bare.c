/*
 * bare.c - the physical limit that `make bench` compares with: a loop around KVM_RUN with the
 * set-up of the kit's VMM and nothing else. It runs guests/bench.asm in real mode.
 *
 *     bare [get-regs] [irqchip] GUEST
 *
 * get-regs asks for the registers at each exit, as a VMM does without KVM_CAP_SYNC_REGS.
 * irqchip has KVM's own interrupt controllers, to which a thread passes the input's bytes and a
 * tick each millisecond by irqfd (api.rst 4.75 KVM_IRQFD).
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define RAM_BYTES            (16u << 20)
#define IDENTITY_MAP_ADDRESS 0xfffbc000u
#define TSS_ADDRESS          0xfffbd000u
#define CPUID_ENTRIES        256
#define STACK_TOP            0xfff0u
#define HYPERCALL_PORT       0x500 /* and the rest as in common/contract/abi.h */
#define HC_EXIT              0
#define STRING_PORT          0x501
#define GETCHAR_END          (-2)
#define TICK_NS              1000000
#define OUTPUT_BYTES         65536 /* a KVM_EXIT_IO has at most a page */

static int must(int result, const char *what)
{
    if (result < 0)
        err(69, "%s", what);
    return result;
}

static void *must_map(size_t bytes, int flags, int fd)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (memory == MAP_FAILED)
        err(69, "mmap");
    return memory;
}

/* ------------------------------------------------------------------ interrupts */

static int timer_fd, irq_fds[2]; /* GSI 0 and 1: the inputs of the first 8259 */
static atomic_int input;         /* the key to take next, as HC_GETCHAR returns it */

static void raise_irq(int irq)
{
    const uint64_t one = 1;

    must((int)write(irq_fds[irq], &one, sizeof one), "irqfd");
}

static void *devices(void *argument)
{
    struct pollfd events[] = {{.fd = timer_fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    uint64_t count;
    uint8_t byte;

    (void)argument;
    for (;;) {
        must(poll(events, 2, -1), "poll");
        if (events[0].revents && read(timer_fd, &count, sizeof count) > 0)
            raise_irq(0);
        if (events[1].revents) {
            const ssize_t got = read(0, &byte, 1);
            atomic_store(&input, got == 1 ? byte : GETCHAR_END);
            if (got != 1)
                events[1].fd = -1;
            raise_irq(1);
        }
    }
    return NULL;
}

static void devices_start(int vm)
{
    const struct timespec tick = {.tv_nsec = TICK_NS};
    const struct itimerspec period = {.it_interval = tick, .it_value = tick};
    pthread_t thread;

    for (unsigned irq = 0; irq < 2; irq++) {
        irq_fds[irq] = must(eventfd(0, EFD_CLOEXEC), "eventfd");
        struct kvm_irqfd irqfd = {.fd = (uint32_t)irq_fds[irq], .gsi = irq};
        must(ioctl(vm, KVM_IRQFD, &irqfd), "KVM_IRQFD");
    }
    timer_fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
    must(timerfd_settime(timer_fd, 0, &period, NULL), "timerfd_settime");
    if (pthread_create(&thread, NULL, devices, NULL) != 0)
        errx(69, "no thread");
}

/* ------------------------------------------------------------------ set-up */

static struct kvm_segment segment(uint8_t type, uint8_t s)
{
    return (struct kvm_segment){.limit = 0xffff, .type = type, .s = s, .present = 1};
}

static void load(const char *path, uint8_t *ram)
{
    const int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);

    must((int)read(fd, ram, RAM_BYTES), path);
    close(fd);
}

static int vcpu_create(int kvm, int vm)
{
    static _Alignas(struct kvm_cpuid2) char
        bytes[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
    struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)bytes;
    const struct kvm_regs regs = {.rsp = STACK_TOP, .rflags = 2};
    const int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    struct kvm_sregs sregs;

    cpuid->nent = CPUID_ENTRIES;
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(3, 1);
    sregs.cs = segment(11, 1);
    sregs.tr = segment(11, 0);
    sregs.ldt = segment(2, 0);
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    return vcpu;
}

static uint8_t output[OUTPUT_BYTES];
static size_t output_bytes;

static void flush(void)
{
    must((int)write(1, output, output_bytes), "standard output");
    output_bytes = 0;
}

/* Answers a KVM_EXIT_IO; false: the guest has ended. */
static bool serve(struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    if (run->io.port == STRING_PORT) {
        if (output_bytes + run->io.count > sizeof output)
            flush();
        memcpy(output + output_bytes, data, run->io.count);
        output_bytes += run->io.count;
    } else if (run->io.direction == KVM_EXIT_IO_IN) {
        const int32_t answer = atomic_load(&input);
        memcpy(data, &answer, run->io.size);
        flush();
    } else {
        return *data != HC_EXIT;
    }
    return true;
}

int main(int argc, char **argv)
{
    bool get_regs = false, irqchip = false;
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;

    for (; argc > 2; argc--, argv++) {
        get_regs = get_regs || strcmp(argv[1], "get-regs") == 0;
        irqchip = irqchip || strcmp(argv[1], "irqchip") == 0;
    }
    if (argc != 2)
        errx(64, "usage: bare [get-regs] [irqchip] GUEST");
    const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    const int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    must(ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map), "KVM_SET_IDENTITY_MAP_ADDR");
    must(ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDRESS), "KVM_SET_TSS_ADDR");
    if (irqchip)
        must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    uint8_t *ram = must_map(RAM_BYTES, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES,
                                                 .userspace_addr = (uintptr_t)ram};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    load(argv[1], ram);
    const int vcpu = vcpu_create(kvm, vm);
    const int size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = must_map((size_t)size, MAP_SHARED, vcpu);
    atomic_store(&input, GETCHAR_END);
    if (irqchip)
        devices_start(vm);
    for (;;) {
        struct kvm_regs regs;

        must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        if (get_regs)
            must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
        if (run->exit_reason != KVM_EXIT_IO)
            errx(70, "exit reason %u", run->exit_reason);
        if (!serve(run))
            break;
    }
    flush();
    exit(0); /* the devices' thread ends with it */
}
