/*
 * vcpus.c - lab 3: up to four vCPUs, each on its own thread, and how all of them stop.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lab3.h"

/* The signal that makes a vCPU's thread return from KVM_RUN. */
#define KICK_SIGNAL SIGUSR1

/* Counts the vCPUs that have ended; the main thread waits on it. */
static int ended_fd = -1;

/* Exercise 3.1 */
uint32_t window_base(int id)
{
    /* answer 3.1 */
    return (uint32_t)id * WINDOW_BYTES;
    /* end 3.1 */
}

/* Exercise 3.1: the windows are next to each other, so an image must not be larger than its own. */
int window_prepare(struct vcpu *vcpu)
{
    /* answer 3.1 */
    const struct guest *guest = vcpu->guest;
    uint32_t base = window_base(vcpu->id);

    if (guest->image_bytes > WINDOW_BYTES ||
        !ram_write(vcpu->vm, base, guest->image, guest->image_bytes))
        return fail(STATUS_GUEST_FILE, "%s is too large: %zu bytes, but a window has %d",
                    guest->path, guest->image_bytes, WINDOW_BYTES);
    return vcpu_set_real_mode(vcpu, base);
    /* end 3.1 */
}

/* Prints `bytes` as a line; if there are several guests, after the vCPU's name, in its colour. */
static void console_line(const struct vcpu *vcpu, const char *bytes, size_t count)
{
    static const int colors[VCPUS_MAX] = {36, 33, 32, 35}; /* cyan, yellow, green, magenta */
    char line[CONSOLE_LINE_MAX + 32];
    int used;

    if (vcpu->vm->vmm->options.color)
        used = snprintf(line, sizeof line, "\033[%dmvcpu%d:\033[0m ", colors[vcpu->id], vcpu->id);
    else
        used = snprintf(line, sizeof line, "vcpu%d: ", vcpu->id);
    memcpy(line + used, bytes, count);
    line[(size_t)used + count] = '\n';
    stdout_write(line, (size_t)used + count + 1);
}

/* Exercise 3.3: the lock guards the output. Only its own thread uses vcpu->line: no lock needed. */
void console_write_lines(struct vcpu *vcpu, const char *bytes, size_t count)
{
    /* answer 3.3 */
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    if (vcpu->vm->vmm->guest_count == 1) {
        stdout_write(bytes, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool newline = bytes[i] == '\n';
        if (!newline)
            vcpu->line[vcpu->line_bytes++] = bytes[i];
        if (newline || vcpu->line_bytes == sizeof vcpu->line) {
            pthread_mutex_lock(&lock);
            console_line(vcpu, vcpu->line, vcpu->line_bytes);
            pthread_mutex_unlock(&lock);
            vcpu->line_bytes = 0;
        }
    }
    /* end 3.3 */
}

/* Exercise 3.3 */
void console_finish(struct vcpu *vcpu)
{
    if (vcpu->line_bytes == 0)
        return;
    /* answer 3.3 */
    console_write_lines(vcpu, "\n", 1);
    /* end 3.3 */
}

/* The signal only has to interrupt KVM_RUN: its handler does nothing. */
static void kick_handler(int signal)
{
}

/* Exercise 3.4 */
void vcpu_kick(struct vcpu *vcpu)
{
    /* answer 3.4 */
    /*
     * The signal interrupts KVM_RUN, but has no effect if the thread is just about to call it:
     * immediate_exit closes that gap (api.rst section 5). A halted vCPU of lab 4 sleeps on wake.
     * While the lock is held, the state does not change, so the thread exists.
     */
    pthread_mutex_lock(&vcpu->lock);
    if (vcpu->state == VCPU_RUNNING) {
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        pthread_kill(vcpu->thread, KICK_SIGNAL);
        pthread_cond_signal(&vcpu->wake);
    }
    pthread_mutex_unlock(&vcpu->lock);
    /* end 3.4 */
}

/* Exercise 3.4: the stage's before_entry, called before each entry into the guest. */
enum step vcpu_check_stop(struct vcpu *vcpu)
{
    const atomic_int *stop_signal = &vcpu->vm->vmm->stop_signal;

    if (!__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_SEQ_CST) && !atomic_load(stop_signal))
        return STEP_RUN; /* neither kicked nor stopped */
    /* answer 3.4 */
    /*
     * The order matters. If a kick comes before the store, stop_signal was set before that kick,
     * so the load sees it; if it comes after the store, it makes KVM_RUN return.
     */
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    int signal = atomic_load(stop_signal);
    return signal ? vcpu_end(vcpu, STATUS_SIGNAL + signal) : STEP_RUN;
    /* end 3.4 */
}

/* Other threads kick the vCPU only while its state is VCPU_RUNNING. */
static void vcpu_set_state(struct vcpu *vcpu, enum vcpu_state state)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->thread = pthread_self();
    vcpu->state = state;
    pthread_mutex_unlock(&vcpu->lock);
}

/* Exercise 3.2: a vCPU's thread. Its write to ended_fd is its last step. */
static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;

    /* answer 3.2 */
    const uint64_t one = 1;

    vcpu_set_state(vcpu, VCPU_RUNNING);
    vcpu_run(vcpu);
    vcpu_set_state(vcpu, VCPU_ENDED);
    console_finish(vcpu);
    vcpu_ended(vcpu);
    if (write(ended_fd, &one, sizeof one) != sizeof one)
        fail(0, "can't signal the end of vcpu%d: %s", vcpu->id, strerror(errno));
    return NULL;
    /* end 3.2 */
}

/*
 * Exercise 3.5: which VM a guest runs in, and as which of its vCPUs: one VM for all, or with
 * --isolate each guest its own.
 */
static void assign_vms(struct vmm *vmm)
{
    if (!vmm->options.isolate) {
        vmm->vm_count = 1;
        vm_init(&vmm->vms[0], vmm);
        for (int i = 0; i < vmm->guest_count; i++)
            vcpu_init(&vmm->vcpus[i], i, i, &vmm->vms[0], &vmm->guests[i]);
        return;
    }
    /* answer 3.5 */
    vmm->vm_count = vmm->guest_count;
    for (int i = 0; i < vmm->guest_count; i++) {
        vm_init(&vmm->vms[i], vmm);
        vcpu_init(&vmm->vcpus[i], i, 0, &vmm->vms[i], &vmm->guests[i]);
    }
    /* end 3.5 */
}

static int create_all(struct vmm *vmm)
{
    int status = 0;

    for (int i = 0; status == 0 && i < vmm->vm_count; i++) {
        status = kvm_open(&vmm->vms[i]);
        if (status == 0)
            status = vm_create(&vmm->vms[i], vmm->options.ram_bytes);
    }
    for (int i = 0; status == 0 && i < vmm->guest_count; i++) {
        status = vcpu_create(&vmm->vcpus[i]);
        if (status == 0)
            status = vcpu_prepare(&vmm->vcpus[i]);
    }
    return status;
}

/*
 * Blocks the signals that stop the VMM, in this thread and in all that it creates, and returns a
 * descriptor from which the main thread reads them (man 2 signalfd).
 */
static int signals_open(void)
{
    struct sigaction kick = {.sa_handler = kick_handler}; /* without SA_RESTART: see man 7 signal */
    sigset_t stop;

    sigaction(KICK_SIGNAL, &kick, NULL);
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGHUP);
    sigaddset(&stop, SIGQUIT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    return signalfd(-1, &stop, SFD_CLOEXEC);
}

/* Exercise 3.4: ends all vCPUs because of `signal`. */
static void stop_all(struct vmm *vmm, int signal)
{
    /* answer 3.4 */
    atomic_store(&vmm->stop_signal, signal);
    for (int i = 0; i < vmm->guest_count; i++)
        vcpu_kick(&vmm->vcpus[i]);
    /* end 3.4 */
}

/* Waits until `running` vCPUs have ended. A signal stops them; a second ends the VMM at once. */
static void wait_for_all(struct vmm *vmm, int signal_fd, int running)
{
    struct pollfd events[] = {{.fd = signal_fd, .events = POLLIN},
                              {.fd = ended_fd, .events = POLLIN}};

    while (running > 0) {
        struct signalfd_siginfo info;
        uint64_t ended;

        if (poll(events, 2, -1) < 0)
            continue; /* EINTR */
        if (events[0].revents & POLLIN && read(signal_fd, &info, sizeof info) == sizeof info) {
            if (atomic_load(&vmm->stop_signal)) /* the second: a vCPU may be blocked in write */
                exit(STATUS_SIGNAL + (int)info.ssi_signo);
            stop_all(vmm, (int)info.ssi_signo);
        }
        if (events[1].revents & POLLIN && read(ended_fd, &ended, sizeof ended) == sizeof ended)
            running -= (int)ended;
    }
}

/* Exercise 3.2 */
static int run_all(struct vmm *vmm, int signal_fd)
{
    /* answer 3.2 */
    pthread_t threads[VCPUS_MAX];
    int started = 0, worst = 0, error = 0;

    for (; started < vmm->guest_count && error == 0; started += error == 0)
        error = pthread_create(&threads[started], NULL, vcpu_thread, &vmm->vcpus[started]);
    if (error != 0)
        stop_all(vmm, SIGTERM);
    wait_for_all(vmm, signal_fd, started);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (vmm->vcpus[i].status > worst)
            worst = vmm->vcpus[i].status;
    }
    if (error != 0)
        return fail(STATUS_NO_KVM, "can't create vcpu%d's thread: %s", started, strerror(error));
    return worst;
    /* end 3.2 */
}

int vcpus_run(struct vmm *vmm)
{
    int signal_fd = signals_open();

    ended_fd = eventfd(0, EFD_CLOEXEC);
    assign_vms(vmm);
    int status = create_all(vmm);
    if (status == 0 && stage.devices_start)
        status = stage.devices_start(vmm);
    if (status == 0) {
        status = run_all(vmm, signal_fd);
        if (stage.devices_stop)
            stage.devices_stop();
    }
    for (int i = 0; i < vmm->guest_count; i++)
        vcpu_destroy(&vmm->vcpus[i]);
    for (int i = 0; i < vmm->vm_count; i++)
        vm_destroy(&vmm->vms[i]);
    close(ended_fd);
    close(signal_fd);
    return status;
}
