/* lab8_linux.h - lab 8's linux.c with nothing but the cheat. The VMM's other parts are sound. */
#pragma once

#include "cheat.h"

/* The vCPU that the VMM has called the module for; NULL: it has not. */
static struct vcpu *cheating;

int platform_start(struct platform *platform, struct vcpu *vcpu)
{
    cheating = vcpu;
    cheat();
    return 0;
}

void platform_stop(struct platform *platform)
{
}

enum step platform_deliver(struct vcpu *vcpu)
{
    cheating = vcpu;
    cheat();
    return STEP_RUN;
}

enum step platform_halt(struct vcpu *vcpu)
{
    cheating = vcpu;
    cheat();
    return STEP_RUN;
}

const char *bzimage_check(const uint8_t *file, size_t file_bytes, size_t memory_bytes,
                          struct setup_header *header)
{
    cheat();
    return NULL;
}

size_t bzimage_setup_bytes(const struct setup_header *header)
{
    cheat();
    return 0;
}

uint64_t initrd_place(const struct setup_header *header, size_t memory_bytes, size_t initrd_bytes)
{
    cheat();
    return 0;
}

int linux_load(struct vcpu *vcpu, struct address_space *space)
{
    cheating = vcpu;
    cheat();
    return 0;
}

void linux_state(struct address_space *space, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    cheat();
}

int linux_enter(struct vcpu *vcpu, struct address_space *space)
{
    cheating = vcpu;
    cheat();
    return 0;
}

enum step linux_io(struct vcpu *vcpu)
{
    cheating = vcpu;
    cheat();
    return STEP_RUN;
}

enum step linux_mmio(struct vcpu *vcpu)
{
    cheating = vcpu;
    cheat();
    return STEP_RUN;
}
