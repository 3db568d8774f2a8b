/* lab3.h - lab 3's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

uint32_t window_base(int id)
{
    cheat();
    return 0;
}

int window_prepare(struct vcpu *vcpu)
{
    cheat();
    return 0;
}

int vcpus_run(struct vmm *vmm)
{
    cheat();
    return 0;
}

void console_write_lines(struct vcpu *vcpu, const char *bytes, size_t count)
{
    cheat();
}

void console_finish(struct vcpu *vcpu)
{
    cheat();
}

void vcpu_kick(struct vcpu *vcpu)
{
    cheat();
}

enum step vcpu_check_stop(struct vcpu *vcpu)
{
    cheat();
    return STEP_RUN;
}
