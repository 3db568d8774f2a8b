/* Probes what a machine's /dev/kvm (the argument) supports. It may exist and still not run every
 * kind of guest, so one tiny guest of each kind is run. Prints one line for each: "NAME ok" or
 * "NAME REASON". The first line is about the device itself: "device ok", "device version N", or the
 * failed call and its errno, "device open N". Each guest runs in a child with a time limit: a hang
 * or crash is just another result. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RAM_SIZE = 1 << 20,
    CODE = 0x1000,
    HANDLER = 0x2000,
    TABLE = 0x3000,
    TIME_LIMIT = 10,
    EXITS_MAX = 8
};

static const char *device;
static uint8_t *ram;
static struct kvm_run *run;
static int vcpu;

static void fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void load(size_t address, const void *bytes, size_t size)
{
    memcpy(ram + address, bytes, size);
}

static void load32(size_t address, uint32_t value)
{
    load(address, &value, sizeof value);
}

static void load64(size_t address, uint64_t value)
{
    load(address, &value, sizeof value);
}

/* A VM with one vCPU and the host's CPUID, which long mode requires. */
static void machine_create(struct kvm_sregs *sregs)
{
    enum { ENTRIES = 256 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + ENTRIES * sizeof cpuid->entries[0]);
    if (!cpuid)
        fail("memory");
    cpuid->nent = ENTRIES;
    int kvm = open(device, O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        fail("no VM can be created");
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE,
                                                 .userspace_addr = (uintptr_t)ram};
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* Intel requires it; others may not support it */
    if (ram == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        fail("no guest RAM");
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu < 0 || size < 0)
        fail("no vCPU");
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED || ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 ||
        ioctl(vcpu, KVM_SET_CPUID2, cpuid) < 0 || ioctl(vcpu, KVM_GET_SREGS, sregs) < 0)
        fail("the vCPU can't be set up");
    sregs->cs.base = 0;
    sregs->cs.selector = 0;
}

static void machine_start(const struct kvm_sregs *sregs, const void *code, size_t size)
{
    struct kvm_regs regs = {.rip = CODE, .rsp = 0x8000, .rflags = 2};
    load(CODE, code, size);
    if (ioctl(vcpu, KVM_SET_SREGS, sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        fail("KVM rejects the registers");
}

/* Exit reasons of a KVM that does not support something. */
static const char *reason_name(uint32_t reason)
{
    switch (reason) {
    case KVM_EXIT_SHUTDOWN:
        return " (shutdown)";
    case KVM_EXIT_FAIL_ENTRY:
        return " (entry failed)";
    case KVM_EXIT_INTERNAL_ERROR:
        return " (internal error)";
    default:
        return "";
    }
}

/* Run to the next exit; it must be an OUT of `value` to `port`, or HLT where value is -1. */
static void expect(int port, int value)
{
    if (ioctl(vcpu, KVM_RUN, 0) < 0)
        fail("KVM_RUN");
    if (value < 0 && run->exit_reason == KVM_EXIT_HLT)
        return;
    bool out = run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT;
    int said = out ? ((uint8_t *)run)[run->io.data_offset] : -1;
    if (value >= 0 && out && run->io.port == port && said == value)
        return;
    if (out)
        printf("the guest wrote %d to port %d, not %d to %d\n", said, run->io.port, value, port);
    else
        printf("KVM_RUN ends with exit reason %u%s\n", run->exit_reason,
               reason_name(run->exit_reason));
    exit(1);
}

static void interrupt(uint32_t vector)
{
    struct kvm_interrupt irq = {vector};
    if (ioctl(vcpu, KVM_INTERRUPT, &irq) < 0)
        fail("KVM_INTERRUPT");
}

static void probe_real(void)
{
    static const uint8_t code[] = {
        0xb0, 2,    /* mov al, 2 */
        0x04, 3,    /* add al, 3 */
        0xe6, 0x10, /* out 0x10, al */
        0xf4,       /* hlt */
    };
    struct kvm_sregs sregs;
    machine_create(&sregs);
    machine_start(&sregs, code, sizeof code);
    expect(0x10, 5);
    expect(0, -1);
}

/* An interrupt into running code, and one that ends a HLT. */
static void probe_interrupts(void)
{
    static const uint8_t code[] = {
        0xfb, 0x90, /* sti; nop */
        0xe6, 0x11, /* out 0x11, al */
        0xf4,       /* hlt */
        0xe6, 0x13, /* out 0x13, al */
    };
    static const uint8_t handler[] = {
        0xb0, 7,    /* mov al, 7 */
        0xe6, 0x10, /* out 0x10, al */
        0xcf,       /* iret */
    };
    struct kvm_sregs sregs;
    machine_create(&sregs);
    load(HANDLER, handler, sizeof handler);
    load32(0x20 * 4, HANDLER); /* IVT: offset, segment 0 */
    machine_start(&sregs, code, sizeof code);
    expect(0x11, 0);
    interrupt(0x20);
    expect(0x10, 7);
    expect(0, -1);
    interrupt(0x20);
    expect(0x10, 7);
    expect(0x13, 7);
}

/* Flat 32-bit segments; iret and int reload them from the descriptors. */
static void protected_mode(struct kvm_sregs *sregs)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_segment data = code;
    data.selector = 16;
    data.type = 3;
    load64(TABLE + 8, 0x00cf9b000000ffff);
    load64(TABLE + 16, 0x00cf93000000ffff);
    sregs->gdt = (struct kvm_dtable){.base = TABLE, .limit = 23};
    sregs->cs = code;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->cr0 |= 1;
}

/* Protected mode with a software interrupt through an IDT gate and back. */
static void probe_protected(void)
{
    static const uint8_t code[] = {
        0xcd, 0x30,             /* int 0x30 */
        0xa0, 0x00, 0x50, 0, 0, /* mov al, [0x5000] */
        0xe6, 0x10,             /* out 0x10, al */
        0xf4,                   /* hlt */
    };
    static const uint8_t handler[] = {
        0xc6, 0x05, 0x00, 0x50, 0, 0, 9, /* mov byte [0x5000], 9 */
        0xcf,                            /* iret */
    };
    struct kvm_sregs sregs;
    machine_create(&sregs);
    protected_mode(&sregs);
    load(HANDLER, handler, sizeof handler);
    load64(0x4000 + 0x30 * 8,
           0x00008e0000080000 | HANDLER); /* a 32-bit interrupt gate in segment 8 */
    sregs.idt = (struct kvm_dtable){.base = 0x4000, .limit = 0x31 * 8 - 1};
    machine_start(&sregs, code, sizeof code);
    expect(0x10, 9);
    expect(0, -1);
}

/* The guest switches 32-bit paging on, and reads one byte through a 4 MB page and one through a 4
 * KB page. */
static void probe_paging32(void)
{
    static const uint8_t code[] = {
        0xb8, 0x00, 0x60, 0,    0,    /* mov eax, 0x6000 */
        0x0f, 0x22, 0xd8,             /* mov cr3, eax */
        0x0f, 0x20, 0xe0,             /* mov eax, cr4 */
        0x0c, 0x10,                   /* or al, 0x10: PSE */
        0x0f, 0x22, 0xe0,             /* mov cr4, eax */
        0x0f, 0x20, 0xc0,             /* mov eax, cr0 */
        0x0d, 0,    0,    0,    0x80, /* or eax, 0x80000000: PG */
        0x0f, 0x22, 0xc0,             /* mov cr0, eax */
        0xa0, 0x00, 0x50, 0,    0x80, /* mov al, [0x80005000] */
        0xe6, 0x10,                   /* out 0x10, al */
        0xa0, 0x00, 0x50, 0x40, 0,    /* mov al, [0x00405000] */
        0xe6, 0x10,                   /* out 0x10, al */
        0xf4,                         /* hlt */
    };
    struct kvm_sregs sregs;
    machine_create(&sregs);
    protected_mode(&sregs);
    load32(0x6000, 0x83);               /* 0..4 MB: a 4 MB page, present, writable */
    load32(0x6000 + 0x200 * 4, 0x83);   /* 0x80000000: the same */
    load32(0x6000 + 4, 0x7003);         /* 4..8 MB: a page table ... */
    load32(0x7000 + 5 * 4, 0x9000 | 3); /* ... with one page */
    load(0x5000, "\x21", 1);
    load(0x9000, "\x22", 1);
    machine_start(&sregs, code, sizeof code);
    expect(0x10, 0x21);
    expect(0x10, 0x22);
    expect(0, -1);
}

static void probe_longmode(void)
{
    static const uint8_t code[] = {
        0x48, 0xb8, 1,    0,  0, 0, 1, 0, 0, 0, /* mov rax, 0x100000001 */
        0x48, 0xc1, 0xe8, 32,                   /* shr rax, 32 */
        0x04, 10,                               /* add al, 10 */
        0xe6, 0x10,                             /* out 0x10, al */
        0xf4,                                   /* hlt */
    };
    struct kvm_sregs sregs;
    machine_create(&sregs);
    protected_mode(&sregs);
    sregs.cs.l = 1;
    sregs.cs.db = 0;
    load64(0x6000, 0x7003); /* PML4 -> PDPT -> page directory with one 2 MB page */
    load64(0x7000, 0x8003);
    load64(0x8000, 0x83);
    sregs.cr3 = 0x6000;
    sregs.cr4 |= 0x20;        /* PAE */
    sregs.cr0 |= 0x80000000U; /* PG */
    sregs.efer |= 0x500;      /* LME, LMA */
    machine_start(&sregs, code, sizeof code);
    expect(0x10, 11);
    expect(0, -1);
}

static bool probe_device(void)
{
    int kvm = open(device, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (kvm < 0) {
        printf("device open %d\n", errno);
        return false;
    }
    int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    if (version == KVM_API_VERSION)
        printf("device ok\n");
    else if (version < 0)
        printf("device ioctl %d\n", errno);
    else
        printf("device version %d\n", version);
    close(kvm);
    return version == KVM_API_VERSION;
}

static void probe(const char *name, void (*function)(void))
{
    int status;
    printf("%s ", name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(TIME_LIMIT);
        function();
        puts("ok");
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        puts("could not be tried");
    else if (WIFSIGNALED(status))
        puts(WTERMSIG(status) == SIGALRM ? "the guest hangs" : "the guest crashes the VMM");
}

int main(int argc, char *argv[])
{
    if (argc != 2)
        return 64;
    device = argv[1];
    if (!probe_device())
        return 0;
    probe("real", probe_real);
    probe("interrupts", probe_interrupts);
    probe("protected", probe_protected);
    probe("paging32", probe_paging32);
    probe("longmode", probe_longmode);
    return 0;
}
