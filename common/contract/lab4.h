/* lab4.h - what interrupts.c of lab 4 provides: a timer, a keyboard, and their interrupts. */
#pragma once

#include "lab3.h"

#define RING_BYTES 256

/* Bytes on their way from standard input to the guest. All zeros: empty. It has no lock. */
struct ring {
    uint8_t bytes[RING_BYTES];
    unsigned head;  /* where the next byte is taken */
    unsigned count; /* bytes in it, 0 to RING_BYTES */
};

/* 4.5 Room left, in bytes. */
unsigned ring_room(const struct ring *ring);

/* 4.5 Appends a byte; false: the ring is full. */
bool ring_put(struct ring *ring, uint8_t byte);

/* 4.5 Takes the oldest byte; -1: the ring is empty. */
int ring_get(struct ring *ring);

/* 4.2 The vector to inject first out of a set (vcpu->pending's format), or -1 for an empty set. */
int pending_first(uint32_t pending);

/*
 * 4.3 Makes `vector` pending on the vCPU, from any thread, and kicks it. A vector that is pending
 * already stays so. Takes vcpu->lock and releases it before the kick.
 */
void interrupt_raise(struct vcpu *vcpu, int vector);

/*
 * 4.2 before_entry: injects the first pending vector if the guest can take it now, and sets
 * request_interrupt_window while others are pending. What KVM rejects stays pending. Takes
 * vcpu->lock.
 */
enum step interrupt_deliver(struct vcpu *vcpu);

/* 4.2 The handler of KVM_EXIT_IRQ_WINDOW_OPEN. */
enum step interrupt_window_open(struct vcpu *vcpu);

/*
 * 4.4 The handler of KVM_EXIT_HLT: with interrupts enabled it sleeps on vcpu->wake, without
 * polling, until one is pending or the VMM stops, else the vCPU ends with status 0. A wait with a
 * time limit of less than a second counts as polling. Takes vcpu->lock.
 */
enum step interrupt_halt(struct vcpu *vcpu);

/*
 * 4.5 HC_GETCHAR's source from lab 4 on: a byte for any vCPU of the VM that has the keyboard,
 * GETCHAR_NOTHING, or GETCHAR_END. Raises KEYBOARD_VECTOR again, on that VM's vCPU 0, while there
 * is more to take. Takes the devices' lock, and inside it that of vCPUs.
 */
int keyboard_getchar(struct vcpu *vcpu);

/* Gives the keyboard to the next VM when the guests of a VM with it have ended; provided. */
void keyboard_pass_on(struct vcpu *vcpu);

/*
 * 4.1, 4.5, 4.6 Start and stop timer, keyboard and the devices' thread. While nothing happens that
 * thread sleeps, without polling. 0 or STATUS_NO_KVM.
 *
 * Between the two, and until the program ends in any way, a terminal on standard input hands over
 * each key at once, unechoed, as the byte that it sends, whatever its settings (man 3 termios)
 * were. Enter is a newline. Ctrl-C is SIGINT and Ctrl-\ is SIGQUIT; with a 32-bit ELF guest
 * both are bytes, and Ctrl-] is SIGINT. No key suspends the VMM or its output. Typed keys are not
 * lost, and output not changed.
 */
int devices_start(struct vmm *vmm);
void devices_stop(void);
