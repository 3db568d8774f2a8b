/* lab1.h - what vm.c of lab 1 provides: a virtual machine, one virtual CPU in real mode, a run
 * loop. In later labs vCPUs have threads of their own, and each of these functions may run on
 * several at a time. */
#pragma once

#include "given.h"

/*
 * 1.1 Opens the existing /dev/kvm for reading and writing as vm->kvm_fd, checks its API version and
 * that it has the capabilities that the VMM needs. 0 or STATUS_NO_KVM; what is still open after a
 * failure is in `vm`, for vm_destroy.
 */
int kvm_open(struct vm *vm);

/*
 * 1.2 Creates the VM as vm->fd, with the two addresses that Intel's processors need, and
 * `ram_bytes` of zeroed RAM at guest-physical address 0, in slot 0 alone. 0 or STATUS_NO_KVM; what
 * was created before a failure is in `vm`, for vm_destroy.
 */
int vm_create(struct vm *vm, size_t ram_bytes);

/*
 * 1.3 Creates vCPU number vcpu->index of vcpu->vm, maps its kvm_run, and gives it the CPUID that
 * KVM supports. If KVM can hand registers over with each exit, it may be asked to. 0 or
 * STATUS_NO_KVM; what was created before a failure is in `vcpu`, for vcpu_destroy.
 */
int vcpu_create(struct vcpu *vcpu);

/*
 * 1.4 Changes the reset state in `sregs`, and sets every field of `regs`, whatever it holds: real
 * mode with every segment at `base` (a multiple of 16 below 1 MB), execution at offset 0, the stack
 * at the end of the segment's 64 KB, no interrupt table, all other general registers 0.
 */
void real_mode_state(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs);

/* 1.4 Puts the vCPU into that state. 0 or STATUS_NO_KVM. */
int vcpu_set_real_mode(struct vcpu *vcpu, uint32_t base);

/*
 * 1.5 Runs the vCPU until it has ended; returns vcpu->status. Calls stage_before_entry before each
 * KVM_RUN and exit_dispatch after each exit, and answers the exits that have no handler. What the
 * stage asks of KVM in *vcpu->run holds for the entry; vcpu_run itself writes nothing to
 * *vcpu->run, not even where KVM answers. It blocks no signal.
 */
int vcpu_run(struct vcpu *vcpu);

/*
 * 1.6 Release what the two created, even after a creation that failed half-way; twice is allowed.
 * vcpu_destroy leaves the VM as it is, and all of the vCPU but fd, run and run_bytes: --stats
 * prints its status and counts.
 */
void vcpu_destroy(struct vcpu *vcpu);
void vm_destroy(struct vm *vm);
