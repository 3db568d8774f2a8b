/*
 * gdb_run.c - how the vCPUs stop and go on for gdb. A thread of its own serves gdb's packets. A
 * vCPU's thread that must not enter the guest waits in before_hooks; while none is between `entry`
 * and the next exit, the guests' state does not change and the server may read and write it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "debug/gdb.h"
#include "given.h"

#define KICK_SIGNAL SIGRTMIN
#define WAIT_NS     100000000 /* between two checks for what no one reports */
#define KICKS_MAX   50        /* then the module is at fault, and gdb gets its prompt */

struct world world = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .input = -1};

/* Waits for a change; returns without one after WAIT_NS, because a signal to stop is not one. */
static void world_wait(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&world.changed, &world.lock, &until);
}

/* A signal ends the VMM. */
static bool is_stopping(void)
{
    return atomic_load(&world.vmm->stop_signal) != 0;
}

static void set_inside(struct debugged *self, bool inside)
{
    self->inside = inside;
    pthread_cond_broadcast(&world.changed);
}

static void set_immediate_exit(const struct vcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

/*
 * KVM completes an exit, like the register that IN sets, at the next KVM_RUN; with immediate_exit
 * it does no more than that (api.rst section 5). An instruction may access watched memory twice.
 */
static void finish_exit(struct debugged *self)
{
    const struct vcpu *vcpu = self->vcpu;

    if (!self->unfinished)
        return;
    self->unfinished = false;
    do
        set_immediate_exit(vcpu, 1);
    while (ioctl(vcpu->fd, KVM_RUN, 0) == 0 && vcpu->run->exit_reason == KVM_EXIT_MMIO &&
           watch_memory_exit(self));
    set_immediate_exit(vcpu, 0);
}

/* ------------------------------------------------------------------ stop and resume */

void stop_send(const struct debugged *self, const struct stop *stop)
{
    char reason[64] = "";
    size_t length = strlen(stop->reason);

    if (length >= 5 && strcmp(stop->reason + length - 5, "watch") == 0)
        snprintf(reason, sizeof reason, "%s:%llx;", stop->reason,
                 (unsigned long long)stop->address);
    else if (length > 0)
        snprintf(reason, sizeof reason, "%s:;", stop->reason);
    world.selected = self->vcpu->id;
    packet_send("T%02xthread:%x;%s", (unsigned)stop->signal, self->vcpu->id + 1, reason);
}

/* Waits until no vCPU is inside the guest. */
static void others_stop(void)
{
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct debugged *other = &world.vcpus[id];
        for (int kicks = 0; other->inside && kicks < KICKS_MAX; kicks++) {
            set_immediate_exit(other->vcpu, 1);
            pthread_kill(other->thread, KICK_SIGNAL);
            world_wait();
        }
    }
}

/* Any vCPU that gdb has let go. */
static struct debugged *any_resumed(void)
{
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct debugged *self = &world.vcpus[id];
        if (self->vcpu && !self->ended && self->resume != HELD)
            return self;
    }
    return NULL;
}

void world_stop(struct debugged *self)
{
    struct stop stop = {GDB_SIGINT, "", 0, false};
    struct debugged *reported = self ? self : any_resumed();

    if (!world.attached || !world.running || !reported) {
        if (self && !self->stop.lasting)
            self->stop.signal = 0; /* the guest comes to a breakpoint again */
        return;
    }
    world.running = false;
    if (self) {
        stop = self->stop;
        self->stop.signal = 0;
    }
    others_stop();
    patches_remove();
    stop_send(reported, &stop);
}

void world_resume(void)
{
    watch_pages_apply();
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct debugged *self = &world.vcpus[id];
        if (!self->vcpu || self->ended)
            continue;
        if (self->resume != HELD && self->stop.signal != 0) {
            stop_send(self, &self->stop);
            self->stop.signal = 0;
            patches_remove();
            return;
        }
        breakpoints_set(self->vcpu, true);
        self->silent = self->trapped = false;
    }
    world.running = true;
    pthread_cond_broadcast(&world.changed);
}

void world_detach(void)
{
    const struct kvm_guest_debug off = {.control = 0};

    world.running = false;
    others_stop();
    patches_remove();
    breakpoints_remove();
    watches_remove();
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct debugged *self = &world.vcpus[id];
        self->resume = RUNNING;
        self->stop.signal = 0;
        if (self->vcpu && !self->ended)
            ioctl(self->vcpu->fd, KVM_SET_GUEST_DEBUG, &off);
    }
    world_resume();
    world.attached = false;
    if (world.input >= 0)
        close(world.input);
    world.input = -1;
}

/* ------------------------------------------------------------------ the server's thread */

static _Thread_local bool serves; /* this is the server's thread, and it holds the lock */

static void *server(void *argument)
{
    static char packet[PACKET_MAX + 1];
    enum received received = RECEIVED_END;
    bool attached = connection_accept();

    while (attached && (received = packet_receive(packet)) != RECEIVED_END) {
        pthread_mutex_lock(&world.lock);
        serves = true;
        if (received == RECEIVED_INTERRUPT)
            world_stop(NULL);
        else
            packet_serve(packet);
        attached = world.attached;
        serves = false;
        pthread_mutex_unlock(&world.lock);
    }
    pthread_mutex_lock(&world.lock);
    attached = world.attached && !world.ending;
    connection_close();
    pthread_mutex_unlock(&world.lock);
    if (attached)
        exit(fail(STATUS_SIGNAL + SIGKILL, "gdb has left"));
    return NULL;
}

/* The VMM exits with this status, wherever it does. What is held stays so. */
static void exited(int status, void *argument)
{
    pthread_mutex_lock(&world.lock);
    if (world.attached && world.running)
        packet_send("W%02x", (unsigned)status & 0xff);
    world.ending = true;
    pthread_mutex_unlock(&world.lock);
}

/* `monitor walk` may reach an exercise; to exit takes the lock. */
static void gdb_todo(const char *exercise)
{
    if (serves)
        pthread_mutex_unlock(&world.lock);
}

int gdb_start(const char *place)
{
    int ends[2];

    /* Without a terminal of its own the guest reads what `monitor type` writes. */
    if (!isatty(STDIN_FILENO)) {
        if (pipe(ends) < 0 || dup2(ends[0], STDIN_FILENO) < 0)
            return fail(STATUS_USAGE, "--gdb: no pipe for the guest's input: %s", strerror(errno));
        close(ends[0]);
        world.input = ends[1];
        world.console = true;
    }
    observer_add(&gdb_server);
    return connection_open(place);
}

static void kick_handler(int signal)
{
}

/* At the first entry of any vCPU: all of them exist, and none has been inside the guest. */
static void server_start(struct vmm *vmm)
{
    const struct sigaction kick = {.sa_handler = kick_handler};
    pthread_t thread;
    sigset_t all, before;

    world.vmm = vmm;
    world.attached = true;
    for (int id = 0; id < vmm->guest_count; id++)
        world.vcpus[id].vcpu = &vmm->vcpus[id];
    sigaction(KICK_SIGNAL, &kick, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, server, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        exit(fail(STATUS_NO_KVM, "--gdb: no thread: %s", strerror(error)));
    pthread_detach(thread);
    on_exit(exited, NULL);
}

/* ------------------------------------------------------------------ the observer */

/* Waits while gdb holds the vCPU. */
static void wait_while_held(struct debugged *self)
{
    while ((!world.running || self->resume == HELD || (self->trapped && world.stepper)) &&
           world.attached && !is_stopping())
        world_wait();
    self->trapped = false;
}

static void gdb_before_hooks(struct vcpu *vcpu)
{
    struct debugged *self = &world.vcpus[vcpu->id];

    pthread_mutex_lock(&world.lock);
    if (!world.vmm)
        server_start(vcpu->vm->vmm);
    self->thread = pthread_self();
    set_inside(self, false);
    /* A kick that this clears came before the hooks that look for its reason. */
    set_immediate_exit(vcpu, 0);
    if (self->stop.signal != 0 || !world.running || self->resume == HELD)
        finish_exit(self);
    if (self->stop.signal != 0)
        world_stop(self);
    wait_while_held(self);
    if (self->resume == STEPPING && world.attached) {
        /* The modules inject no interrupt into a step. */
        vcpu->run->if_flag = 0;
        vcpu->run->ready_for_interrupt_injection = 0;
    }
    pthread_mutex_unlock(&world.lock);
}

/* Prepares the vCPU's entry; false: KVM fails. */
static bool entry_prepare(struct debugged *self)
{
    const struct vcpu *vcpu = self->vcpu;
    struct kvm_guest_debug debug = {.control = 0};
    struct kvm_vcpu_events events;
    bool step = self->resume == STEPPING || self->silent;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &self->entered_regs) < 0 ||
        ioctl(vcpu->fd, KVM_GET_SREGS, &self->entered_sregs) < 0)
        return false;
    breakpoints_set(vcpu, false);
    if (self->silent)
        handlers_release();
    if (self->resume == STEPPING) {
        if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0 || !handlers_trap(self, &events))
            return false;
        /* The delivery of an interrupt is not stepped: its handler's trap ends it. */
        step = !events.interrupt.injected;
        vcpu->run->request_interrupt_window = 0;
    }
    watch_registers(&debug);
    if (step)
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    /* KVM steps from where the vCPU is when it is asked to. */
    return ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

static void gdb_entry(struct vcpu *vcpu)
{
    struct debugged *self = &world.vcpus[vcpu->id];

    pthread_mutex_lock(&world.lock);
    if (world.attached && (!world.running || self->resume == HELD)) {
        set_immediate_exit(vcpu, 1); /* back to before_hooks, where it waits */
    } else if (world.attached) {
        if (!entry_prepare(self))
            fail(0, "--gdb: KVM can't debug vcpu%d: %s", vcpu->id, strerror(errno));
        set_inside(self, true);
    }
    self->unfinished = false;
    pthread_mutex_unlock(&world.lock);
}

/* KVM_EXIT_DEBUG: a step has ended, or a debug register has hit. */
static void debug_exit(struct debugged *self)
{
    if (self->silent)
        self->silent = false;
    else if (self->resume == STEPPING)
        self->stop = (struct stop){GDB_SIGTRAP, "", 0, false};
    watch_debug_exit(self);
    if (self->resume == STEPPING)
        stepped_flags_clean(self);
}

static bool gdb_take_exit(struct vcpu *vcpu)
{
    struct debugged *self = &world.vcpus[vcpu->id];
    uint32_t reason = vcpu->run->exit_reason;
    bool taken = false;

    pthread_mutex_lock(&world.lock);
    set_inside(self, false);
    if (world.attached) {
        self->unfinished = reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO;
        if (reason == KVM_EXIT_DEBUG)
            debug_exit(self);
        taken = reason == KVM_EXIT_DEBUG || (reason == KVM_EXIT_HLT && halt_take(self)) ||
                (reason == KVM_EXIT_INTERNAL_ERROR && watch_fetch_exit(self));
        /* The modules answer it; then the instruction is over. */
        if (!taken && self->resume == STEPPING)
            self->stop = (struct stop){GDB_SIGTRAP, "", 0, false};
        if (!taken)
            self->silent = false;
    }
    /* Even after gdb has gone an access may be under way. */
    if (reason == KVM_EXIT_MMIO && world.vmm && watch_memory_exit(self))
        taken = true;
    pthread_mutex_unlock(&world.lock);
    return taken;
}

static void gdb_crash(struct vcpu *vcpu)
{
    struct debugged *self = &world.vcpus[vcpu->id];
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    pthread_mutex_lock(&world.lock);
    set_inside(self, false); /* KVM_RUN may have failed */
    bool reset = vcpu->exit.reason == KVM_EXIT_SHUTDOWN &&
                 ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 &&
                 ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0 && regs.rip == RESET_RIP &&
                 sregs.cs.base == RESET_CS_BASE;
    /* AMD's processors have reset themselves: gdb shows the state before. */
    if (reset && sregs_restore(vcpu, &self->entered_sregs))
        ioctl(vcpu->fd, KVM_SET_REGS, &self->entered_regs);
    self->stop = (struct stop){vcpu->exit.reason == KVM_EXIT_SHUTDOWN ? GDB_SIGSEGV : GDB_SIGABRT,
                               "", 0, true};
    world_stop(self);
    wait_while_held(self);
    self->stop.signal = 0;
    if (reset && ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) == 0)
        ioctl(vcpu->fd, KVM_SET_REGS, &regs);
    pthread_mutex_unlock(&world.lock);
}

static void gdb_ended(struct vcpu *vcpu)
{
    struct debugged *self = &world.vcpus[vcpu->id];
    bool others = false;

    pthread_mutex_lock(&world.lock);
    self->ended = true;
    set_inside(self, false);
    if (world.stepper == self)
        handlers_release();
    for (size_t id = 0; id < VCPUS_MAX; id++)
        others = others || (world.vcpus[id].vcpu && !world.vcpus[id].ended);
    if (world.attached && world.running && others && !any_resumed()) {
        world.running = false;
        patches_remove();
        packet_send("N"); /* no vCPU that may run is left */
    }
    pthread_mutex_unlock(&world.lock);
}

/* The guest's output: gdb prints it, unless the guest has a terminal. */
static bool gdb_print(const char *bytes, size_t count)
{
    pthread_mutex_lock(&world.lock);
    while (world.attached && !world.running && !is_stopping())
        world_wait();
    bool printed = world.attached && world.running && world.console;
    if (printed)
        packet_print(bytes, count);
    pthread_mutex_unlock(&world.lock);
    return printed;
}

const struct observer gdb_server = {
    .todo = gdb_todo,
    .before_hooks = gdb_before_hooks,
    .entry = gdb_entry,
    .take_exit = gdb_take_exit,
    .crash = gdb_crash,
    .ended = gdb_ended,
    .print = gdb_print,
};
