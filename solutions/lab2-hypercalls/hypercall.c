/*
 * hypercall.c - lab 2: the guest asks the VMM for a service by writing to an I/O port.
 *
 * The calls are listed in common/contract/abi.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lab2.h"

/* Exercise 2.1: api.rst section 5, KVM_EXIT_IO. The data is data_offset bytes into kvm_run. */
struct io_access io_decode(struct kvm_run *run)
{
    /* answer 2.1 */
    return (struct io_access){
        .out = run->io.direction == KVM_EXIT_IO_OUT,
        .port = run->io.port,
        .size = run->io.size,
        .count = run->io.count,
        .data = (uint8_t *)run + run->io.data_offset,
    };
    /* end 2.1 */
}

/* Exercise 2.1: memcpy, because operands may be unaligned. */
uint32_t io_operand(const struct io_access *io, uint32_t index)
{
    /* answer 2.1 */
    uint32_t value = 0;

    memcpy(&value, io->data + (size_t)index * io->size, io->size);
    return value;
    /* end 2.1 */
}

/* Exercise 2.1: the low bytes of the value, as many as the guest's operand has. */
void io_answer(const struct io_access *io, uint32_t index, uint32_t value)
{
    /* answer 2.1 */
    memcpy(io->data + (size_t)index * io->size, &value, io->size);
    /* end 2.1 */
}

/* Exercise 2.2: api.rst 6.74 KVM_CAP_SYNC_REGS (set up in vcpu_create), 4.11 KVM_GET_REGS. */
int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs)
{
    /* answer 2.2 */
    if (vcpu->run->kvm_valid_regs & KVM_SYNC_X86_REGS) {
        *regs = vcpu->run->s.regs.regs;
        return 0;
    }
    if (ioctl(vcpu->fd, KVM_GET_REGS, regs) < 0)
        return fail(STATUS_CRASHED, "KVM_GET_REGS: %s", strerror(errno));
    return 0;
    /* end 2.2 */
}

/* Exercise 2.2: HC_EXIT. A status reserved for the VMM is clamped to the highest allowed. */
static enum step hypercall_exit(struct vcpu *vcpu, uint8_t status)
{
    /* answer 2.2 */
    if (status > STATUS_GUEST_MAX) {
        fail(0, "vcpu%d ended with status %u; reporting %d, the highest for a guest", vcpu->id,
             status, STATUS_GUEST_MAX);
        status = STATUS_GUEST_MAX;
    }
    return vcpu_end(vcpu, status);
    /* end 2.2 */
}

/* Exercise 2.2: HC_PUTCHAR. */
static enum step hypercall_putchar(struct vcpu *vcpu, uint8_t character)
{
    /* answer 2.2 */
    stage.console_write(vcpu, (const char *)&character, 1);
    return STEP_RUN;
    /* end 2.2 */
}

/*
 * Exercise 2.3: HC_GETCHAR takes two steps, because OUT returns nothing. The OUT only records the
 * call; the IN that follows takes a character and returns it to the guest.
 */
static enum step hypercall_getchar(struct vcpu *vcpu)
{
    /* answer 2.3 */
    vcpu->getchar_called = true;
    return STEP_RUN;
    /* end 2.3 */
}

static enum step hypercall_answer(struct vcpu *vcpu, const struct io_access *io, uint32_t index)
{
    /* answer 2.3 */
    if (!vcpu->getchar_called)
        return vcpu_crash(vcpu, "a read of port 0x%x without a preceding GETCHAR", HYPERCALL_PORT);
    vcpu->getchar_called = false;
    io_answer(io, index, (uint32_t)stage.getchar(vcpu));
    return STEP_RUN;
    /* end 2.3 */
}

/*
 * Exercise 2.4: HC_WRITE, a whole string in one exit. The string starts at DS:ESI and has ECX
 * bytes; 16-bit code uses SI and CX. It may extend over several pages, and with paging these need
 * not be adjacent in RAM: each one is translated by vcpu_translate.
 */
static enum step hypercall_write(struct vcpu *vcpu, const struct kvm_regs *regs)
{
    /* answer 2.4 */
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return vcpu_crash(vcpu, "KVM_GET_SREGS: %s", strerror(errno));
    uint32_t mask = sregs.cs.db ? UINT32_MAX : UINT16_MAX;
    uint32_t linear = (uint32_t)sregs.ds.base + ((uint32_t)regs->rsi & mask);
    uint32_t left = (uint32_t)regs->rcx & mask;
    while (left > 0) {
        uint32_t in_page = PAGE_BYTES - linear % PAGE_BYTES;
        uint32_t part = left < in_page ? left : in_page;
        uint64_t phys;
        if (!vcpu_translate(vcpu, linear, &phys, NULL) || phys + part > vcpu->vm->ram_bytes)
            return vcpu_crash(vcpu, "WRITE of a string at 0x%" PRIx32 ", which is not in RAM",
                              linear);
        stage.console_write(vcpu, (const char *)vcpu->vm->ram + phys, part);
        linear += part;
        left -= part;
    }
    return STEP_RUN;
    /* end 2.4 */
}

/* Exercises 2.2 to 2.5: one call, `number` as written to HYPERCALL_PORT. */
static enum step hypercall_call(struct vcpu *vcpu, uint32_t number)
{
    /* answer 2.2 */
    struct kvm_regs regs;

    if (vcpu_registers(vcpu, &regs) != 0)
        return vcpu_end(vcpu, STATUS_CRASHED);
    switch (number) {
    case HC_EXIT:
        return hypercall_exit(vcpu, (uint8_t)regs.rbx);
    case HC_PUTCHAR:
        return hypercall_putchar(vcpu, (uint8_t)regs.rbx);
    case HC_GETCHAR:
        return hypercall_getchar(vcpu);
    case HC_WRITE:
        return hypercall_write(vcpu, &regs);
    default:
        break; /* unknown: exercise 2.5, below */
    }
    /* end 2.2 */
    /* answer 2.5 */
    return vcpu_crash(vcpu, "unknown hypercall %" PRIu32 " at 0x%llx", number, regs.rip);
    /* end 2.5 */
}

/*
 * Exercises 2.2 to 2.5: one exit may carry several operands (`rep`): each is an access. Those for
 * STRING_PORT are characters, one after the other in io.data (2.4).
 */
enum step hypercall_io(struct vcpu *vcpu)
{
    struct io_access io = io_decode(vcpu->run);
    enum step step = STEP_RUN;

    if (io.port == HYPERCALL_PORT) {
        for (uint32_t i = 0; i < io.count && step == STEP_RUN; i++)
            step =
                io.out ? hypercall_call(vcpu, io_operand(&io, i)) : hypercall_answer(vcpu, &io, i);
        return step;
    }
    if (io.port == STRING_PORT && io.out && io.size == 1) {
        /* answer 2.4 */
        stage.console_write(vcpu, (const char *)io.data, io.count);
        return STEP_RUN;
        /* end 2.4 */
    }
    /* answer 2.5 */
    struct kvm_regs regs;

    if (vcpu_registers(vcpu, &regs) != 0)
        return vcpu_end(vcpu, STATUS_CRASHED);
    return vcpu_crash(vcpu, "unknown I/O at 0x%llx: %s port 0x%x, %u bytes", regs.rip,
                      io.out ? "out to" : "in from", io.port, io.size);
    /* end 2.5 */
}
