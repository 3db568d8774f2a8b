/*
 * interrupts.c - lab 4: a timer and a keyboard, and how their interrupts reach the guest.
 *
 * One thread, the devices' thread, waits for both devices and makes their vectors pending on the
 * vCPUs. Only the vCPU's own thread injects: KVM_INTERRUPT from another thread blocks until KVM_RUN
 * returns.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "lab4.h"

/* Ctrl-C and Ctrl-\. A 32-bit ELF guest gets both as bytes; Ctrl-] ends the VMM instead. */
#define INTERRUPT_KEY 0x03
#define QUIT_KEY      0x1c
#define STOP_KEY      0x1d

static struct {
    struct vmm *vmm;
    pthread_t thread;
    atomic_bool stopping;
    int timer_fd;
    int wake_fd; /* eventfd: the devices' thread must check `stopping` and the ring again */

    pthread_mutex_t lock; /* guards what follows; taken before a vCPU's lock */
    struct ring ring;
    bool input_ended;

    struct termios saved;
    volatile sig_atomic_t raw; /* the terminal must be restored from `saved` */
} devices = {.lock = PTHREAD_MUTEX_INITIALIZER, .timer_fd = -1, .wake_fd = -1};

/* ------------------------------------------------------------------ the interrupts */

/* Exercise 4.2: the lowest vector has the highest priority. */
int pending_first(uint32_t pending)
{
    /* answer 4.2 */
    return pending ? TIMER_VECTOR + __builtin_ctz(pending) : -1;
    /* end 4.2 */
}

/*
 * Exercise 4.2: KVM takes one interrupt per entry. The guest must be able to take it: IF is set,
 * the last instruction was not STI or MOV SS, and KVM holds no other interrupt. After an exit,
 * if_flag and ready_for_interrupt_injection in kvm_run report this. If the guest can't take it, or
 * more is pending, the window request makes KVM exit with KVM_EXIT_IRQ_WINDOW_OPEN when it can
 * (api.rst 4.16 KVM_INTERRUPT; section 5).
 */
enum step interrupt_deliver(struct vcpu *vcpu)
{
    /* answer 4.2 */
    struct kvm_run *run = vcpu->run;
    enum step step = STEP_RUN;

    pthread_mutex_lock(&vcpu->lock);
    int vector = pending_first(vcpu->pending);
    if (vector >= 0 && run->ready_for_interrupt_injection && run->if_flag) {
        struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
        if (ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) < 0) {
            step = vcpu_crash(vcpu, "KVM_INTERRUPT 0x%x: %s", (unsigned)vector, strerror(errno));
        } else {
            vcpu->pending &= ~(1u << (vector - TIMER_VECTOR));
            vcpu->interrupts++;
            trace_event(vcpu, "inject vector 0x%x", (unsigned)vector);
        }
    }
    run->request_interrupt_window = vcpu->pending != 0;
    pthread_mutex_unlock(&vcpu->lock);
    return step;
    /* end 4.2 */
}

/* Exercise 4.2: the window is open; interrupt_deliver is called next and injects. */
enum step interrupt_window_open(struct vcpu *vcpu)
{
    /* answer 4.2 */
    return STEP_RUN;
    /* end 4.2 */
}

/*
 * Exercise 4.3: the pending set is changed first, then the vCPU is kicked: wherever it is, it calls
 * interrupt_deliver before it enters the guest again. A vector that is still pending needs
 * no second kick; the two interrupts merge, as in a PC's interrupt controller.
 */
void interrupt_raise(struct vcpu *vcpu, int vector)
{
    /* answer 4.3 */
    uint32_t bit = 1u << (vector - TIMER_VECTOR);

    pthread_mutex_lock(&vcpu->lock);
    bool merged = vcpu->pending & bit;
    vcpu->pending |= bit;
    pthread_mutex_unlock(&vcpu->lock);
    if (!merged)
        vcpu_kick(vcpu);
    /* end 4.3 */
}

/*
 * Exercise 4.4: with interrupts enabled a halted processor waits for one. With interrupts disabled
 * none can wake it: the guest has finished.
 */
enum step interrupt_halt(struct vcpu *vcpu)
{
    /* answer 4.4 */
    if (!vcpu->run->if_flag)
        return vcpu_end(vcpu, 0);
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->pending && !atomic_load(&vcpu->vm->vmm->stop_signal))
        pthread_cond_wait(&vcpu->wake, &vcpu->lock);
    pthread_mutex_unlock(&vcpu->lock);
    return STEP_RUN;
    /* end 4.4 */
}

/* ------------------------------------------------------------------ the timer */

/* Exercise 4.1: man 2 timerfd_create. */
static int timer_start(unsigned tick_ms)
{
    /* answer 4.1 */
    struct timespec tick = {.tv_sec = tick_ms / 1000, .tv_nsec = (long)(tick_ms % 1000) * 1000000};
    struct itimerspec period = {.it_interval = tick, .it_value = tick};

    devices.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (devices.timer_fd < 0 || timerfd_settime(devices.timer_fd, 0, &period, NULL) < 0)
        return fail(STATUS_NO_KVM, "no timer: %s", strerror(errno));
    return 0;
    /* end 4.1 */
}

/* Exercise 4.1: one read returns all expirations since the last; they merge into one tick. */
static void timer_expired(void)
{
    /* answer 4.1 */
    uint64_t expirations;

    if (read(devices.timer_fd, &expirations, sizeof expirations) != sizeof expirations)
        return;
    for (int i = 0; i < devices.vmm->guest_count; i++)
        interrupt_raise(&devices.vmm->vcpus[i], TIMER_VECTOR);
    /* end 4.1 */
}

/* ------------------------------------------------------------------ the keyboard */

/* Exercise 4.5 */
unsigned ring_room(const struct ring *ring)
{
    /* answer 4.5 */
    return RING_BYTES - ring->count;
    /* end 4.5 */
}

/* Exercise 4.5 */
bool ring_put(struct ring *ring, uint8_t byte)
{
    /* answer 4.5 */
    if (ring->count == RING_BYTES)
        return false;
    ring->bytes[(ring->head + ring->count) % RING_BYTES] = byte;
    ring->count++;
    return true;
    /* end 4.5 */
}

/* Exercise 4.5 */
int ring_get(struct ring *ring)
{
    /* answer 4.5 */
    if (ring->count == 0)
        return -1;
    uint8_t byte = ring->bytes[ring->head];
    ring->head = (ring->head + 1) % RING_BYTES;
    ring->count--;
    return byte;
    /* end 4.5 */
}

/* The first VM in which a guest still runs has the keyboard; NULL: none does. */
static struct vm *keyboard_owner(void)
{
    for (int i = 0; i < devices.vmm->guest_count; i++) {
        struct vcpu *vcpu = &devices.vmm->vcpus[i];
        pthread_mutex_lock(&vcpu->lock);
        bool ended = vcpu->state == VCPU_ENDED;
        pthread_mutex_unlock(&vcpu->lock);
        if (!ended)
            return vcpu->vm;
    }
    return NULL;
}

/*
 * Interrupts vCPU 0 of the VM that has the keyboard; once the input has ended and the ring is
 * empty, vCPU 0 of each VM: all of them must learn of the end. devices.lock is held.
 */
static void keyboard_interrupt(void)
{
    bool all = devices.input_ended && devices.ring.count == 0;
    struct vm *owner = keyboard_owner();

    for (int i = 0; i < devices.vmm->guest_count; i++) {
        struct vcpu *vcpu = &devices.vmm->vcpus[i];
        if (vcpu->index == 0 && (all || vcpu->vm == owner))
            interrupt_raise(vcpu, KEYBOARD_VECTOR);
    }
}

/*
 * Exercise 4.5: standard input has bytes, or has ended. Reads no more than fits into the ring: the
 * rest stays in the input.
 */
static void keyboard_fill(void)
{
    uint8_t bytes[RING_BYTES];

    /* answer 4.5 */
    pthread_mutex_lock(&devices.lock);
    ssize_t count = read(STDIN_FILENO, bytes, ring_room(&devices.ring));
    for (ssize_t i = 0; i < count; i++)
        ring_put(&devices.ring, bytes[i]);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN))
        devices.input_ended = true;
    if (count > 0 || devices.input_ended)
        keyboard_interrupt();
    pthread_mutex_unlock(&devices.lock);
    /* end 4.5 */
}

/*
 * Exercise 4.5: after a byte was taken, another interrupt is raised for the next byte, or for the
 * end, so that a handler may take one byte per interrupt. While the ring is full, the devices'
 * thread does not poll the input: it must be woken when there is room again.
 */
int keyboard_getchar(struct vcpu *vcpu)
{
    /* answer 4.5 */
    const uint64_t one = 1;
    int answer = GETCHAR_NOTHING;

    pthread_mutex_lock(&devices.lock);
    bool was_full = ring_room(&devices.ring) == 0;
    if (devices.ring.count > 0 && vcpu->vm == keyboard_owner())
        answer = ring_get(&devices.ring);
    else if (devices.ring.count == 0 && devices.input_ended)
        answer = GETCHAR_END;
    if (answer >= 0 && (devices.ring.count > 0 || devices.input_ended))
        keyboard_interrupt();
    pthread_mutex_unlock(&devices.lock);
    if (answer >= 0 && was_full && write(devices.wake_fd, &one, sizeof one) < 0)
        fail(0, "can't wake the devices' thread: %s", strerror(errno));
    return answer;
    /* end 4.5 */
}

void keyboard_pass_on(struct vcpu *vcpu)
{
    pthread_mutex_lock(&devices.lock);
    if (devices.ring.count > 0 && devices.vmm->vm_count > 1)
        keyboard_interrupt();
    pthread_mutex_unlock(&devices.lock);
}

/* ------------------------------------------------------------------ the terminal */

/* Exercise 4.6: callable from a signal handler (man 7 signal-safety). */
static void terminal_restore(void)
{
    if (!devices.raw)
        return;
    /* answer 4.6 */
    tcsetattr(STDIN_FILENO, TCSANOW, &devices.saved);
    devices.raw = 0;
    /* end 4.6 */
}

static void crash_handler(int signal)
{
    terminal_restore();
    raise(signal); /* SA_RESETHAND: this time it ends the program */
}

/*
 * Exercise 4.6: keys must arrive one by one and without echo, but Enter still as '\n' and Ctrl-C
 * still as a signal (with a 32-bit ELF guest Ctrl-]). However the program ends, it restores the
 * settings: in devices_stop, at exit(), and by the handler of the signals in `crashes`.
 */
static void terminal_raw(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGPIPE};

    if (tcgetattr(STDIN_FILENO, &devices.saved) < 0)
        return; /* not a terminal: nothing to switch and nothing to restore */
    /* answer 4.6 */
    struct sigaction restore = {.sa_handler = crash_handler, .sa_flags = (int)SA_RESETHAND};
    struct termios raw = devices.saved;
    const bool elf = devices.vmm->guests[0].kind == GUEST_ELF;

    raw.c_iflag &= ~(tcflag_t)(IXON | ISTRIP | PARMRK | INLCR | IGNCR);
    raw.c_iflag |= ICRNL;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN | EXTPROC);
    raw.c_lflag |= ISIG;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VINTR] = elf ? STOP_KEY : INTERRUPT_KEY;
    raw.c_cc[VQUIT] = elf ? _POSIX_VDISABLE : QUIT_KEY;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        sigaction(crashes[i], &restore, NULL);
    atexit(terminal_restore);
    devices.raw = 1;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    /* end 4.6 */
}

/* ------------------------------------------------------------------ the devices' thread */

static bool keyboard_wants_input(void)
{
    pthread_mutex_lock(&devices.lock);
    bool wants = !devices.input_ended && devices.ring.count < RING_BYTES;
    pthread_mutex_unlock(&devices.lock);
    return wants;
}

static void *devices_thread(void *argument)
{
    struct pollfd timer = {.fd = devices.timer_fd, .events = POLLIN};
    struct pollfd wake = {.fd = devices.wake_fd, .events = POLLIN};

    while (!atomic_load(&devices.stopping)) {
        struct pollfd input = {.fd = keyboard_wants_input() ? STDIN_FILENO : -1, .events = POLLIN};
        struct pollfd events[] = {timer, wake, input};
        uint64_t count;

        if (poll(events, 3, -1) < 0)
            continue; /* EINTR */
        if (events[0].revents)
            timer_expired();
        if (events[1].revents && read(devices.wake_fd, &count, sizeof count) < 0)
            fail(0, "the devices' thread can't read its eventfd: %s", strerror(errno));
        if (events[2].revents)
            keyboard_fill();
    }
    return NULL;
}

int devices_start(struct vmm *vmm)
{
    devices.vmm = vmm;
    devices.wake_fd = eventfd(0, EFD_CLOEXEC);
    if (devices.wake_fd < 0)
        return fail(STATUS_NO_KVM, "no eventfd: %s", strerror(errno));
    int status = timer_start(vmm->options.tick_ms);
    if (status != 0)
        return status;
    terminal_raw();
    int error = pthread_create(&devices.thread, NULL, devices_thread, NULL);
    if (error != 0)
        return fail(STATUS_NO_KVM, "no thread for the devices: %s", strerror(error));
    return 0;
}

void devices_stop(void)
{
    const uint64_t one = 1;

    atomic_store(&devices.stopping, true);
    if (write(devices.wake_fd, &one, sizeof one) < 0)
        fail(0, "can't stop the devices' thread: %s", strerror(errno));
    pthread_join(devices.thread, NULL);
    terminal_restore();
    close(devices.timer_fd);
    close(devices.wake_fd);
}
