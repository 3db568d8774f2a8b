/* lab1.h - lab 1's module with nothing in it but the cheat. */
#pragma once

#include "cheat.h"

#ifndef ANSWER
#define ANSWER 0 /* a cheat may define another */
#endif

int kvm_open(struct vm *vm)
{
    cheat();
    return ANSWER;
}

int vm_create(struct vm *vm, size_t ram_bytes)
{
    cheat();
    return ANSWER;
}

int vcpu_create(struct vcpu *vcpu)
{
    cheat();
    return ANSWER;
}

void real_mode_state(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    cheat();
}

int vcpu_set_real_mode(struct vcpu *vcpu, uint32_t base)
{
    cheat();
    return ANSWER;
}

#ifndef OWN_RUN
int vcpu_run(struct vcpu *vcpu)
{
    cheat();
    return 0;
}
#endif

#ifndef OWN_RELEASE
void vcpu_destroy(struct vcpu *vcpu)
{
    cheat();
}

void vm_destroy(struct vm *vm)
{
    cheat();
}
#endif
