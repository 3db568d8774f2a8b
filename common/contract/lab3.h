/* lab3.h - what vcpus.c of lab 3 provides: several vCPUs, one thread each, and their common end. */
#pragma once

#include "lab2.h"

/* 3.1 Guest-physical address of the window of vCPU `id`. */
uint32_t window_base(int id);

/*
 * 3.1 Loads a real-mode guest into the window of its vcpu->id and starts it there. 0,
 * STATUS_GUEST_FILE (the image does not fit into its window, or into RAM, which is unchanged then)
 * or STATUS_NO_KVM.
 */
int window_prepare(struct vcpu *vcpu);

/*
 * 3.2, 3.4, 3.5 Runs all guests to their end, in one VM or with --isolate each in its own; the
 * highest of their statuses. SIGINT, SIGTERM, SIGHUP and SIGQUIT stop them all.
 */
int vcpus_run(struct vmm *vmm);

/*
 * 3.3 Writes a vCPU's output: that of a single guest at once; of several guests by lines, each
 * whole and with its guest's name; a line that fills vcpu->line goes out in pieces. Takes a lock
 * while it prints, so that no two lines mix, and none while it collects. Does not hold vcpu->lock
 * while it prints: a kick takes that, and a write may block. Only on the vCPU's own thread.
 */
void console_write_lines(struct vcpu *vcpu, const char *bytes, size_t count);

/* 3.3 Writes the vCPU's last line, if it was left without a newline. */
void console_finish(struct vcpu *vcpu);

/*
 * 3.4 Makes the vCPU, from any thread, check what it has to do, at a stop or for another reason:
 * takes it out of KVM_RUN and out of its sleep on vcpu->wake, even if it is just about to enter
 * either, or has not seen an earlier kick. Set the flag that it must see before the call. Each kick
 * sends vcpu->thread a signal (pthread_kill). Takes vcpu->lock; does nothing unless vcpu->state is
 * VCPU_RUNNING.
 */
void vcpu_kick(struct vcpu *vcpu);

/*
 * 3.4 before_entry: ends the vCPU with STATUS_SIGNAL plus the signal if the VMM stops. Clears the
 * kick (kvm_run.immediate_exit), and loses none: either what was set before a kick is seen here, or
 * the kick makes KVM_RUN return.
 */
enum step vcpu_check_stop(struct vcpu *vcpu);
