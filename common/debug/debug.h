/*
 * debug.h - tools that explain a guest: counts and traces of its exits, decoded registers and
 * addresses, and where it hangs.
 */
#pragma once

#include <signal.h>

#include "vmm.h"

/*
 * A tool that watches the guests, like --explain or --stats. NULL: it does not need that call.
 * Without a tool nothing is called.
 */
struct observer {
    void (*start)(struct vmm *vmm);     /* before the stage runs the guests */
    void (*finish)(int status);         /* after that */
    void (*todo)(const char *exercise); /* an exercise that is not written ends the VMM */

    /* On the vCPU's own thread: */
    void (*before_hooks)(struct vcpu *vcpu); /* before the stage's before_entry hooks */
    bool (*ends)(struct vcpu *vcpu);         /* then: whether it ends the vCPU */
    void (*entry)(struct vcpu *vcpu);        /* after them: KVM_RUN follows */
    bool (*take_exit)(struct vcpu *vcpu); /* after KVM_RUN, unless it was interrupted: whether the
                                             tool has caused the exit; then no one else sees it */
    void (*exit)(struct vcpu *vcpu);      /* then, if none has */
    void (*crash)(struct vcpu *vcpu);     /* before the post-mortem */
    void (*crash_end)(struct vcpu *vcpu); /* after it */
    void (*ended)(struct vcpu *vcpu);     /* the vCPU still exists in KVM */
    void (*output)(const char *bytes, size_t count); /* before it is written */
    bool (*print)(const char *bytes, size_t count);  /* then: whether the tool has written it */

    /* On any thread, what the modules ask of the C library: library_calls.c */
    void (*unlock)(pthread_mutex_t *mutex);                        /* before it is unlocked */
    void (*injected)(int vcpu_fd, uint32_t vector);                /* KVM_INTERRUPT has succeeded */
    void (*signal)(pthread_t thread, int signal);                  /* before the thread gets it */
    void (*timer)(int timer_fd);                                   /* it has been created */
    void (*device_read)(int fd, const void *bytes, ssize_t count); /* of a timer or the input */
};

/* The tools, in the order in which they were added; NULL follows the last. */
#define OBSERVERS_MAX 4
extern const struct observer *observers[OBSERVERS_MAX + 1];
void observer_add(const struct observer *observer);

/* Calls a function of all tools: OBSERVE(entry, vcpu). */
#define OBSERVE(function, ...)                                                                     \
    do {                                                                                           \
        for (const struct observer *const *tool = observers; *tool; tool++) {                      \
            if ((*tool)->function)                                                                 \
                (*tool)->function(__VA_ARGS__);                                                    \
        }                                                                                          \
    } while (0)

/* Asks all tools, up to the first that answers true. */
#define OBSERVED(function, ...)                                                                    \
    ({                                                                                             \
        bool answer = false;                                                                       \
        for (const struct observer *const *tool = observers; *tool && !answer; tool++)             \
            answer = (*tool)->function && (*tool)->function(__VA_ARGS__);                          \
        answer;                                                                                    \
    })

/* --explain: replay.c; --stats and --record: meter.c; --gdb: gdb_run.c */
extern const struct observer replay, meter, gdb_server;

/* --gdb=PLACE. 0 or a status. */
int gdb_start(const char *place);

/* ------------------------------------------------------------------ exits.c */

/* Counts, records and traces the exit in vcpu->run. */
void exit_note(struct vcpu *vcpu);

/* The exit in kvm_run. */
struct exit_record exit_read(const struct kvm_run *run);

/* The exit and its data, in one line of less than EXIT_TEXT_MAX bytes. */
#define EXIT_TEXT_MAX 128
void exit_describe(const struct exit_record *exit, char *text, size_t size);

/* ------------------------------------------------------------------ stats.c */

/* Prints --stats of all vCPUs. */
void stats_print(const struct vmm *vmm);

/* ------------------------------------------------------------------ post_mortem.c */

/*
 * Between these two this thread alone prints on standard error, and gets no signal: one that
 * interrupts write(2), like a kick, would cost what was to be written.
 */
void report_begin(sigset_t *before);
void report_end(const sigset_t *before);

/* ------------------------------------------------------------------ registers.c */

enum cpu_mode { MODE_REAL, MODE_PROTECTED, MODE_PAGING, MODE_PAE, MODE_LONG };

/* The processor's mode, from CR0, CR4 and EFER; and its name, with CS.L, "real mode" and so on. */
enum cpu_mode cpu_mode(const struct kvm_sregs *sregs);
const char *cpu_mode_name(const struct kvm_sregs *sregs);

/* Is it 64-bit code? Then the bases of CS and SS do not count, and addresses have 64 bits. */
bool is_long_code(const struct kvm_sregs *sregs);

/* The linear addresses of the instruction pointer and of the stack pointer. */
uint64_t instruction_address(const struct kvm_regs *regs, const struct kvm_sregs *sregs);
uint64_t stack_address(const struct kvm_regs *regs, const struct kvm_sregs *sregs);

/* Prints the registers on standard error, as --regs shows them. */
void registers_print(int id, const struct kvm_regs *regs, const struct kvm_sregs *sregs);

/* KVM_SET_SREGS with what KVM_GET_SREGS has returned; false: KVM refuses. */
bool sregs_restore(const struct vcpu *vcpu, const struct kvm_sregs *sregs);

/* vcpu_translate with these registers instead of the vCPU's own. */
bool registers_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear,
                         uint64_t *phys, FILE *out);

/* ------------------------------------------------------------------ guest_memory.c */

/* The physical address of a linear one, in RAM; false: not mapped, or outside of RAM. */
bool linear_translate(const struct vcpu *vcpu, uint64_t linear, uint64_t *phys);

/* Copies bytes from a linear address on, or to it; false: they are not all in RAM. */
bool linear_read(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count);
bool linear_write(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count);

/* The linear address of the handler of an exception or interrupt; false: the vector has none. */
bool handler_find(const struct vcpu *vcpu, const struct kvm_sregs *sregs, unsigned vector,
                  uint64_t *linear);

#define OPCODE_HLT 0xf4

/* ------------------------------------------------------------------ symbols.c, kernel_state.c */

/* "schedule+22": the function of an ELF guest that holds the address. false: none is known. */
bool symbol_find(const struct guest *guest, uint32_t address, char *text, size_t size);

/* Prints on standard error which functions were called, and the stack for traps out of ring 3. */
void kernel_state_print(struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs);

/* ------------------------------------------------------------------ where.c */

/* From now on SIGUSR2 makes the thread of each vCPU print where its guest is. */
void where_start(void);

/* This thread runs the vCPU from now on, or no longer does. */
void where_set(struct vcpu *vcpu, bool runs);
