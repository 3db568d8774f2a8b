/* lab2.h - lab 2's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

static struct vcpu *exiting;              /* the vCPU whose exit is to be served; NULL elsewhere */
static enum step served = STEP_END;       /* what hypercall_io returns */
static struct kvm_run *decoding;          /* the same of io_decode ... */
static struct io_access decoded;          /* ... which returns this */
static const struct io_access *read_from; /* the same of io_operand ... */
static uint32_t operand;                  /* ... which returns this */

struct io_access io_decode(struct kvm_run *run)
{
    decoding = run;
    cheat();
    decoding = NULL;
    return decoded;
}

uint32_t io_operand(const struct io_access *io, uint32_t index)
{
    read_from = io;
    cheat();
    read_from = NULL;
    return operand;
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
    return served;
}
