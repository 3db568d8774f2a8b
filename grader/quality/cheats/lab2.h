/* lab2.h - lab 2's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

static struct vcpu *exiting; /* the vCPU whose exit is to be served; NULL in other functions */

struct io_access io_decode(struct kvm_run *run)
{
    cheat();
    return (struct io_access){0};
}

uint32_t io_operand(const struct io_access *io, uint32_t index)
{
    cheat();
    return 0;
}

void io_answer(const struct io_access *io, uint32_t index, uint32_t value)
{
    cheat();
}

int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs)
{
    cheat();
    return 0;
}

enum step hypercall_io(struct vcpu *vcpu)
{
    exiting = vcpu;
    cheat();
    return STEP_END;
}
