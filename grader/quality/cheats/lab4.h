/* lab4.h - lab 4's module with nothing in it but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

unsigned ring_room(const struct ring *ring)
{
    cheat();
    return 0;
}

bool ring_put(struct ring *ring, uint8_t byte)
{
    cheat();
    return false;
}

int ring_get(struct ring *ring)
{
    cheat();
    return 0;
}

int pending_first(uint32_t pending)
{
    cheat();
    return 0;
}

void interrupt_raise(struct vcpu *vcpu, int vector)
{
    cheat();
}

enum step interrupt_deliver(struct vcpu *vcpu)
{
    cheat();
    return STEP_RUN;
}

enum step interrupt_window_open(struct vcpu *vcpu)
{
    cheat();
    return STEP_RUN;
}

enum step interrupt_halt(struct vcpu *vcpu)
{
    cheat();
    return STEP_RUN;
}

int keyboard_getchar(struct vcpu *vcpu)
{
    cheat();
    return 0;
}

void keyboard_pass_on(struct vcpu *vcpu)
{
}

int devices_start(struct vmm *vmm)
{
    cheat();
    return 0;
}

void devices_stop(void)
{
    cheat();
}
