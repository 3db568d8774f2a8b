/*
 * given.h - the functions that the kit provides (common/core/ and common/debug/) and that the
 * modules of the labs call.
 *
 * A function that can fail returns 0, or an exit status (STATUS_...) after it has printed on
 * standard error what failed and why; fail() does both. Where nothing else is said a function may
 * be called from any thread and takes no lock.
 */
#pragma once

#include "vmm.h"

/* ------------------------------------------------------------------ messages, files, RAM */

/* Prints "vmm: ..." as one line on standard error; returns `status`. */
int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the VMM with STATUS_TODO and prints which exercise, where, and which handout section. */
#define TODO(exercise) todo_reached(exercise, __FILE__, __LINE__)
_Noreturn void todo_reached(const char *exercise, const char *file, int line);

/*
 * Reads a whole regular file of 1 to `max` bytes into memory from malloc; the caller frees it. 0,
 * STATUS_GUEST_FILE or STATUS_NO_KVM (no memory), then with *bytes NULL.
 */
int file_read(const char *path, size_t max, uint8_t **bytes, size_t *count);

/* Copies `count` bytes into guest RAM; false: they don't fit, and nothing was copied. */
bool ram_write(struct vm *vm, uint64_t phys, const void *bytes, size_t count);

/*
 * Writes all bytes to standard output; ends the VMM with STATUS_OUTPUT when that fails. A terminal
 * gets them at once, anything else within 10 ms and before a guest waits, asks for input or ends.
 */
void stdout_write(const char *bytes, size_t count);

/* ------------------------------------------------------------------ a vCPU's state */

/* Set every field to "nothing created yet", so that vm_destroy and vcpu_destroy are always safe. */
void vm_init(struct vm *vm, struct vmm *vmm);
void vcpu_init(struct vcpu *vcpu, int id, int index, struct vm *vm, struct guest *guest);

/* Loads the guest and sets its start state, by its kind. 0 or a status. */
int vcpu_prepare(struct vcpu *vcpu);

/* The vCPU ends by itself with this status: STEP_END. Takes no lock, and may be called with any. */
enum step vcpu_end(struct vcpu *vcpu, int status) __attribute__((warn_unused_result));

/*
 * The guest crashed: prints the cause in words and a post-mortem; the vCPU ends with
 * STATUS_CRASHED: STEP_END. Only on the vCPU's own thread.
 */
enum step vcpu_crash(struct vcpu *vcpu, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result));

/*
 * The vCPU has ended, and vcpu->state is VCPU_ENDED: prints --regs, calls the stage's on_end. Its
 * own thread calls it last.
 */
void vcpu_ended(struct vcpu *vcpu);

/* ------------------------------------------------------------------ the run loop */

/* Calls the stage's before_entry hooks, until one does not answer STEP_RUN. */
enum step stage_before_entry(struct vcpu *vcpu);

/* Records the exit in vcpu->run (--stats, --trace) and calls the stage's handler for it. */
enum step exit_dispatch(struct vcpu *vcpu);

/* "KVM_EXIT_HLT", or "exit reason 99", valid until the thread's next call. */
const char *exit_name(uint32_t reason);

/* Writes a line of --trace, for events other than exits. */
void trace_event(struct vcpu *vcpu, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Guest-physical address of a linear address, as the vCPU's current mode translates it; it holds
 * only up to the end of its page. Prints the page walk to `out`, unless NULL. false: not mapped.
 * Only on the vCPU's own thread, at an exit or before the first entry.
 */
bool vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out);
