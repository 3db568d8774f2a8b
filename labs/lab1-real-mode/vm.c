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

    TODO("1.1");
}

/* Exercise 1.2: api.rst 4.2 KVM_CREATE_VM, 4.35 KVM_SET_USER_MEMORY_REGION. */
int vm_create(struct vm *vm, size_t ram_bytes)
{
    TODO("1.2");
}

/* Exercise 1.3: api.rst 4.46 KVM_GET_SUPPORTED_CPUID, 4.20 KVM_SET_CPUID2. */
static int vcpu_set_cpuid(struct vcpu *vcpu)
{
    TODO("1.3");
}

/* Exercise 1.3: api.rst 4.7 KVM_CREATE_VCPU, 4.5 KVM_GET_VCPU_MMAP_SIZE; 6.74 KVM_CAP_SYNC_REGS. */
int vcpu_create(struct vcpu *vcpu)
{
    TODO("1.3");
}

/*
 * Exercise 1.4: base = selector << 4 in each segment register, as in real mode. The types are those
 * that Intel's VMX requires at entry, accessed and busy: what KVM_GET_SREGS returns differs between
 * processors. SDM vol. 3, 21.1.1 "Address Translation in Real-Address Mode", 27.3.1.2 "Checks on
 * Guest Segment Registers".
 */
void real_mode_state(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    TODO("1.4");
}

/* Exercise 1.4: api.rst 4.13 KVM_GET_SREGS, 4.14 KVM_SET_SREGS, 4.12 KVM_SET_REGS. */
int vcpu_set_real_mode(struct vcpu *vcpu, uint32_t base)
{
    TODO("1.4");
}

/* The exits that no later lab has a handler for: api.rst section 5, "The kvm_run structure". */
static enum step vcpu_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    enum step step = exit_dispatch(vcpu);

    if (step != STEP_UNHANDLED)
        return step;
    TODO("1.5");
}

/* Exercise 1.5: api.rst 4.10 KVM_RUN. */
int vcpu_run(struct vcpu *vcpu)
{
    TODO("1.5");
}

/* Exercise 1.6 */
void vcpu_destroy(struct vcpu *vcpu)
{
    TODO("1.6");
}

/* Exercise 1.6 */
void vm_destroy(struct vm *vm)
{
    TODO("1.6");
}
