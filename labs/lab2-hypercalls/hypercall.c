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
    TODO("2.1");
}

/* Exercise 2.1: memcpy, because operands may be unaligned. */
uint32_t io_operand(const struct io_access *io, uint32_t index)
{
    TODO("2.1");
}

/* Exercise 2.1: the low bytes of the value, as many as the guest's operand has. */
void io_answer(const struct io_access *io, uint32_t index, uint32_t value)
{
    TODO("2.1");
}

/* Exercise 2.2: api.rst 6.74 KVM_CAP_SYNC_REGS (set up in vcpu_create), 4.11 KVM_GET_REGS. */
int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs)
{
    TODO("2.2");
}

/* Exercise 2.2: HC_EXIT. A status reserved for the VMM is clamped to the highest allowed. */
static enum step hypercall_exit(struct vcpu *vcpu, uint8_t status)
{
    TODO("2.2");
}

/* Exercise 2.2: HC_PUTCHAR. */
static enum step hypercall_putchar(struct vcpu *vcpu, uint8_t character)
{
    TODO("2.2");
}

/*
 * Exercise 2.3: HC_GETCHAR takes two steps, because OUT returns nothing. The OUT only records the
 * call; the IN that follows takes a character and returns it to the guest.
 */
static enum step hypercall_getchar(struct vcpu *vcpu)
{
    TODO("2.3");
}

static enum step hypercall_answer(struct vcpu *vcpu, const struct io_access *io, uint32_t index)
{
    TODO("2.3");
}

/*
 * Exercise 2.4: HC_WRITE, a whole string in one exit. The string starts at DS:ESI and has ECX
 * bytes; 16-bit code uses SI and CX. It may extend over several pages, and with paging these need
 * not be adjacent in RAM: each one is translated by vcpu_translate.
 */
static enum step hypercall_write(struct vcpu *vcpu, const struct kvm_regs *regs)
{
    TODO("2.4");
}

/* Exercises 2.2 to 2.5: one call, `number` as written to HYPERCALL_PORT. */
static enum step hypercall_call(struct vcpu *vcpu, uint32_t number)
{
    TODO("2.2");
    TODO("2.5");
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
        TODO("2.4");
    }
    TODO("2.5");
}
