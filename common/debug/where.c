/*
 * where.c - shows where a guest hangs. On SIGUSR2 the thread of each vCPU prints it. Only that
 * thread can: while it is inside KVM_RUN, any other that asks for the vCPU's registers has to wait.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "debug/debug.h"
#include "given.h"

#define CODE_BYTES 8

static _Thread_local struct vcpu *here; /* the vCPU that this thread runs */
static atomic_int threads[VCPUS_MAX];   /* those that run a vCPU; 0: a free place */

/* Bytes at a linear address, as text; called in a signal handler, so without stdio's streams. */
static void code_text(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear, char *text,
                      size_t size)
{
    uint64_t phys;
    int used = 0;

    if (!registers_translate(vcpu, sregs, linear, &phys, NULL)) {
        snprintf(text, size, " (not mapped)");
        return;
    }
    for (uint64_t i = phys; i < phys + CODE_BYTES && i < vcpu->vm->ram_bytes; i++)
        used += snprintf(text + used, size - (size_t)used, " %02x", vcpu->vm->ram[i]);
}

static void where_print(struct vcpu *vcpu)
{
    char text[512], code[CODE_BYTES * 3 + 16] = "", last[EXIT_TEXT_MAX] = "none";
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t exits = 0;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return;
    for (size_t i = 0; i <= EXIT_REASONS_MAX; i++)
        exits += vcpu->exits[i];
    if (vcpu->exit.reason != EXIT_NONE)
        exit_describe(&vcpu->exit, last, sizeof last);
    code_text(vcpu, &sregs, instruction_address(&regs, &sregs), code, sizeof code);
    int count = snprintf(text, sizeof text,
                         "vmm: vcpu%d is at %04x:%04llx in %s, code%s; interrupts %s; %" PRIu64
                         " exits, the last: %s\n",
                         vcpu->id, sregs.cs.selector, regs.rip, cpu_mode_name(&sregs), code,
                         regs.rflags & FLAGS_IF ? "enabled" : "disabled", exits, last);
    if (write(STDERR_FILENO, text, (size_t)count) < 0)
        return; /* standard error is gone */
}

/* The first thread that gets the signal passes it on to the threads of the vCPUs. */
static void where_handler(int signal, siginfo_t *info, void *context)
{
    int error = errno;

    for (size_t i = 0; info->si_code != SI_TKILL && i < VCPUS_MAX; i++)
        if (atomic_load(&threads[i]) != 0)
            syscall(SYS_tgkill, getpid(), atomic_load(&threads[i]), signal);
    if (info->si_code == SI_TKILL && here)
        where_print(here);
    errno = error;
}

void where_start(void)
{
    struct sigaction action = {.sa_sigaction = where_handler, .sa_flags = SA_SIGINFO | SA_RESTART};

    sigaction(SIGUSR2, &action, NULL);
}

void where_set(struct vcpu *vcpu, bool runs)
{
    const bool noted = here;

    here = runs ? vcpu : NULL;
    if (noted == runs)
        return;
    const int thread = (int)syscall(SYS_gettid), from = runs ? 0 : thread;
    for (size_t i = 0; i < VCPUS_MAX; i++) {
        int place = from;
        if (atomic_compare_exchange_strong(&threads[i], &place, runs ? thread : 0))
            return;
    }
}
