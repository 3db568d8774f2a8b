/*
 * vm.c - lab 1: a virtual machine with one virtual CPU in real mode, and the loop that runs it.
 *
 * common/contract/lab1.h says what each function must do. The KVM API is described in
 * Documentation/virt/kvm/api.rst of the Linux kernel (api.rst below).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lab1.h"

/*
 * On older processors Intel's VMX can't run real mode with paging off: KVM then needs three pages
 * for a task state segment and one for an identity page table, outside of guest RAM and below 4 GB.
 * They are set before the first vCPU is created (api.rst 4.36 KVM_SET_TSS_ADDR, 4.40).
 */
#define IDENTITY_MAP_ADDRESS 0xfffbc000u
#define TSS_ADDRESS          0xfffbd000u

#define CPUID_ENTRIES_MAX 256

/* Initial SP: the last 16 bytes of the 64 KB that a real-mode segment reaches stay free. */
#define STACK_TOP 0xfff0u

/*
 * A guest that has not loaded a vector table must crash at its first interrupt or exception and
 * not execute the bytes at address 0: the limit allows no vector, and if a KVM does not check the
 * limit, there is no memory at the base.
 */
#define NO_IDT_BASE 0xfffff000u

/* Exercise 1.1: api.rst 4.1 KVM_GET_API_VERSION, 4.4 KVM_CHECK_EXTENSION. */
int kvm_open(struct vm *vm)
{
    static const struct {
        int number;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    };

    /* answer 1.1 */
    vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->kvm_fd < 0)
        return fail(STATUS_NO_KVM, "can't open /dev/kvm: %s; `make doctor` shows what to do",
                    strerror(errno));
    int version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return fail(STATUS_NO_KVM, "/dev/kvm has API version %d, not %d", version, KVM_API_VERSION);
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
            return fail(STATUS_NO_KVM, "this KVM lacks %s", needed[i].name);
    }
    return 0;
    /* end 1.1 */
}

/* Exercise 1.2: api.rst 4.2 KVM_CREATE_VM, 4.35 KVM_SET_USER_MEMORY_REGION. */
int vm_create(struct vm *vm, size_t ram_bytes)
{
    /* answer 1.2 */
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;

    vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return fail(STATUS_NO_KVM, "KVM_CREATE_VM: %s", strerror(errno));
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(errno));
    if (ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDRESS) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_TSS_ADDR: %s", strerror(errno));

    void *ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram == MAP_FAILED)
        return fail(STATUS_NO_KVM, "no memory for %zu bytes of guest RAM: %s", ram_bytes,
                    strerror(errno));
    vm->ram = ram;
    vm->ram_bytes = ram_bytes;
    struct kvm_userspace_memory_region region = {
        .slot = 0,
        .guest_phys_addr = 0,
        .memory_size = ram_bytes,
        .userspace_addr = (uintptr_t)ram,
    };
    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_USER_MEMORY_REGION of %zu bytes: %s", ram_bytes,
                    strerror(errno));
    return 0;
    /* end 1.2 */
}

/* Exercise 1.3: api.rst 4.46 KVM_GET_SUPPORTED_CPUID, 4.20 KVM_SET_CPUID2. */
static int vcpu_set_cpuid(struct vcpu *vcpu)
{
    /* answer 1.3 */
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof *cpuid + CPUID_ENTRIES_MAX * sizeof cpuid->entries[0]);
    int status = 0;

    if (!cpuid)
        return fail(STATUS_NO_KVM, "no memory for CPUID");
    cpuid->nent = CPUID_ENTRIES_MAX;
    if (ioctl(vcpu->vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        status = fail(STATUS_NO_KVM, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    else if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
        status = fail(STATUS_NO_KVM, "KVM_SET_CPUID2: %s", strerror(errno));
    free(cpuid);
    return status;
    /* end 1.3 */
}

/* Exercise 1.3: api.rst 4.7 KVM_CREATE_VCPU, 4.5 KVM_GET_VCPU_MMAP_SIZE; 6.74 KVM_CAP_SYNC_REGS. */
int vcpu_create(struct vcpu *vcpu)
{
    /* answer 1.3 */
    vcpu->fd = ioctl(vcpu->vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
    if (vcpu->fd < 0)
        return fail(STATUS_NO_KVM, "KVM_CREATE_VCPU %d: %s", vcpu->index, strerror(errno));
    int size = ioctl(vcpu->vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof *vcpu->run)
        return fail(STATUS_NO_KVM, "KVM_GET_VCPU_MMAP_SIZE returned %d, less than struct kvm_run",
                    size);
    void *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return fail(STATUS_NO_KVM, "can't map kvm_run of vCPU %d: %s", vcpu->index,
                    strerror(errno));
    vcpu->run = run;
    vcpu->run_bytes = (size_t)size;

    /* Have KVM copy the registers to kvm_run at each exit, if it can. */
    int synced = ioctl(vcpu->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    if (synced > 0)
        vcpu->run->kvm_valid_regs = (unsigned)synced & (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
    return vcpu_set_cpuid(vcpu);
    /* end 1.3 */
}

/*
 * Exercise 1.4: base = selector << 4 in each segment register, as in real mode. The types are those
 * that Intel's VMX requires at entry, accessed and busy: what KVM_GET_SREGS returns differs between
 * processors. SDM vol. 3, 21.1.1 "Address Translation in Real-Address Mode", 27.3.1.2 "Checks on
 * Guest Segment Registers".
 */
void real_mode_state(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    /* answer 1.4 */
    const struct kvm_segment data = {
        .base = base,
        .selector = (uint16_t)(base >> 4),
        .limit = REAL_MODE_LIMIT,
        .type = TYPE_DATA,
        .s = 1,
        .present = 1,
    };

    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->cs = data;
    sregs->cs.type = TYPE_CODE;
    sregs->tr = (struct kvm_segment){.limit = REAL_MODE_LIMIT, .type = TYPE_TSS_BUSY, .present = 1};
    sregs->ldt = (struct kvm_segment){.limit = REAL_MODE_LIMIT, .type = TYPE_LDT, .present = 1};
    sregs->idt.base = NO_IDT_BASE;
    sregs->idt.limit = 0;
    *regs = (struct kvm_regs){.rip = 0, .rsp = STACK_TOP, .rflags = FLAGS_ALWAYS_ONE};
    /* end 1.4 */
}

/* Exercise 1.4: api.rst 4.13 KVM_GET_SREGS, 4.14 KVM_SET_SREGS, 4.12 KVM_SET_REGS. */
int vcpu_set_real_mode(struct vcpu *vcpu, uint32_t base)
{
    /* answer 1.4 */
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_GET_SREGS: %s", strerror(errno));
    real_mode_state(base, &sregs, &regs);
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_SREGS: %s", strerror(errno));
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return fail(STATUS_NO_KVM, "KVM_SET_REGS: %s", strerror(errno));
    return 0;
    /* end 1.4 */
}

/* The exits that no later lab has a handler for: api.rst section 5, "The kvm_run structure". */
static enum step vcpu_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    enum step step = exit_dispatch(vcpu);

    if (step != STEP_UNHANDLED)
        return step;
    /* answer 1.5 */
    switch (run->exit_reason) {
    case KVM_EXIT_HLT:
        return vcpu_end(vcpu, 0);
    case KVM_EXIT_INTR:
        return STEP_RUN;
    case KVM_EXIT_IO:
        return vcpu_crash(vcpu, "access to I/O port 0x%x: there is no device", run->io.port);
    case KVM_EXIT_MMIO:
        return vcpu_crash(vcpu, "%s address 0x%llx, outside RAM",
                          run->mmio.is_write ? "write to" : "read from", run->mmio.phys_addr);
    case KVM_EXIT_SHUTDOWN:
        return vcpu_crash(vcpu, "shutdown: an exception that could not be handled");
    case KVM_EXIT_FAIL_ENTRY:
        return vcpu_crash(vcpu, "VM entry failed, hardware entry-failure reason 0x%llx",
                          run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR: {
        char data[16 * 18 + 1] = "";
        for (uint32_t i = 0, used = 0; i < run->internal.ndata && i < 16; i++)
            used +=
                (uint32_t)snprintf(data + used, sizeof data - used, " %llx", run->internal.data[i]);
        return vcpu_crash(vcpu, "KVM internal error, suberror %u%s%s", run->internal.suberror,
                          data[0] ? ", data" : "", data);
    }
    default:
        return vcpu_crash(vcpu, "unexpected %s", exit_name(run->exit_reason));
    }
    /* end 1.5 */
}

/* Exercise 1.5: api.rst 4.10 KVM_RUN. */
int vcpu_run(struct vcpu *vcpu)
{
    /* answer 1.5 */
    for (;;) {
        enum step step = stage_before_entry(vcpu);
        if (step == STEP_RUN) {
            if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
                step = vcpu_exit(vcpu);
            else if (errno == EINTR) /* a signal arrived: there was no exit */
                continue;
            else
                step = vcpu_crash(vcpu, "KVM_RUN: %s", strerror(errno));
        }
        if (step == STEP_END)
            return vcpu->status;
    }
    /* end 1.5 */
}

/* Exercise 1.6 */
void vcpu_destroy(struct vcpu *vcpu)
{
    /* answer 1.6 */
    if (vcpu->run)
        munmap(vcpu->run, vcpu->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    vcpu->run = NULL;
    vcpu->fd = -1;
    /* end 1.6 */
}

/* Exercise 1.6 */
void vm_destroy(struct vm *vm)
{
    /* answer 1.6 */
    if (vm->ram)
        munmap(vm->ram, vm->ram_bytes);
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
    vm->ram = NULL;
    vm->fd = vm->kvm_fd = -1;
    /* end 1.6 */
}
