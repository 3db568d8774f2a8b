/* vcpus.c - lab 3's module function by function: windows, threads, the console, the kick. */
#define _GNU_SOURCE /* fopencookie, RTLD_NEXT */
#include "../../unit.h"
#include "lab3.h"

#include <dlfcn.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

MODULE(uint32_t, window_base, (int id), (id))
MODULE(int, window_prepare, (struct vcpu * vcpu), (vcpu))
MODULE(int, vcpus_run, (struct vmm * all), (all))
MODULE_VOID(console_write_lines, (struct vcpu * vcpu, const char *bytes, size_t count),
            (vcpu, bytes, count))
MODULE_VOID(console_finish, (struct vcpu * vcpu), (vcpu))
MODULE_VOID(vcpu_kick, (struct vcpu * vcpu), (vcpu))

/* ------------------------------------------------------------------ 3.1 windows */

START_TEST(bases)
{
    for (int id = 0; id < VCPUS_MAX; id++)
        ck_assert_msg(window_base(id) == (uint32_t)id * 0x40000,
                      "the window of vcpu%d is at 0x%x instead of 0x%x", id, window_base(id),
                      (uint32_t)id * 0x40000);
}
END_TEST

START_TEST(prepare)
{
    static PRIVATE uint8_t image[3000];
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_sregs sregs;

    for (size_t i = 0; i < sizeof image; i++)
        image[i] = (uint8_t)unit_random();
    for (int id = 0; id < VCPUS_MAX; id++) {
        const uint32_t base = (uint32_t)id * WINDOW_BYTES;
        start_created(&vm, &vcpu);
        vcpu.id = id;
        guest.image = image;
        guest.image_bytes = sizeof image;
        ck_assert_msg(window_prepare(&vcpu) == 0, "window_prepare of vcpu%d does not return 0", id);
        ck_assert_msg(memcmp(vm.ram + base, image, sizeof image) == 0,
                      "the image of vcpu%d is not in RAM at its window, 0x%x", id, base);
        kernel(vcpu.fd, KVM_GET_SREGS, &sregs);
        ck_assert_msg(sregs.cs.base == base, "vcpu%d starts with CS at 0x%llx instead of 0x%x", id,
                      sregs.cs.base, base);
        ck_assert_msg(sregs.ds.base == base && sregs.ss.base == base,
                      "vcpu%d: DS is at 0x%llx, SS at 0x%llx instead of 0x%x", id, sregs.ds.base,
                      sregs.ss.base, base);
    }
}
END_TEST

START_TEST(full_window)
{
    static PRIVATE uint8_t image[WINDOW_BYTES];
    struct vm vm;
    struct vcpu vcpu;

    for (int id = 0; id < VCPUS_MAX; id++) {
        start_created(&vm, &vcpu);
        vcpu.id = id;
        guest.image = image;
        guest.image_bytes = sizeof image;
        int status = window_prepare(&vcpu);
        ck_assert_msg(status == 0,
                      "an image of exactly WINDOW_BYTES fits into the window of vcpu%d, and "
                      "window_prepare returns %d",
                      id, status);
    }
}
END_TEST

START_TEST(too_large)
{
    static PRIVATE uint8_t image[WINDOW_BYTES + 1];
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    guest.image = image;
    guest.image_bytes = sizeof image;
    int status = window_prepare(&vcpu);
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "an image of WINDOW_BYTES and one more lies on its neighbour, and window_prepare "
                  "returns %d instead of STATUS_GUEST_FILE",
                  status);
}
END_TEST

START_TEST(prepare_fails)
{
    static PRIVATE uint8_t image[3000];
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    guest.image = image;
    guest.image_bytes = sizeof image;
    vm.ram_bytes = sizeof image - 1;
    ck_assert_msg(window_prepare(&vcpu) != 0,
                  "the image does not fit into RAM, and window_prepare returns 0: look at what "
                  "ram_write returns");
    vm.ram_bytes = 1 << 20;
    falsified.request = KVM_SET_REGS;
    falsified.error = EINVAL;
    ck_assert_msg(window_prepare(&vcpu) != 0,
                  "KVM refuses the start state, and window_prepare returns 0: return what "
                  "vcpu_set_real_mode returns");
}
END_TEST

/* ------------------------------------------------------------------ 3.2 threads */

static PRIVATE uint8_t endless[] = {0xeb, 0xfe}; /* jmp $ */
static PRIVATE uint8_t halt[] = {0xf4};

/* What vcpus_run is to run: so many guests of this code. */
static void start_guests(int count, uint8_t *code, size_t bytes)
{
    vmm.options.ram_bytes = 1 << 20;
    vmm.guest_count = count;
    for (int i = 0; i < count; i++)
        vmm.guests[i] = (struct guest){"guest", GUEST_REAL, code, bytes};
}

static enum vcpu_state state_in_run;
static bool own_thread_in_run;

static int look_at_state(struct kvm_run *run, unsigned turn)
{
    const struct vcpu *vcpu = &vmm.vcpus[0];

    state_in_run = vcpu->state;
    own_thread_in_run = pthread_equal(vcpu->thread, pthread_self());
    return kernel(vcpu->fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

START_TEST(state)
{
    start_guests(1, halt, sizeof halt);
    falsified.run = look_at_state;
    vcpus_run(&vmm);
    ck_assert_msg(state_in_run == VCPU_RUNNING && own_thread_in_run,
                  "in KVM_RUN the vCPU's state is not VCPU_RUNNING, or vcpu->thread is not its "
                  "thread: nobody can kick it. vcpu_set_state comes before vcpu_run");
    ck_assert_msg(
        vmm.vcpus[0].state == VCPU_ENDED,
        "the vCPU has ended and its state is not VCPU_ENDED: a kick would signal a thread "
        "that is gone. vcpu_set_state comes after vcpu_run, too");
}
END_TEST

/* What is so when the end of a vCPU is told: set by write, below. */
static bool watching_end, told, told_too_early, thread_left = true;

static void end_is_told(void)
{
    struct stat printed;

    fstat(listen_fd, &printed); /* vcpu_ended has printed --regs there */
    told = true;
    told_too_early = printed.st_size == 0 || vmm.vcpus[0].state != VCPU_ENDED;
}

START_TEST(told_last)
{
    start_guests(1, halt, sizeof halt);
    vmm.options.final_registers = true;
    listen_start();
    watching_end = true;
    vcpus_run(&vmm);
    watching_end = false;
    bool left = thread_left;
    listen_end();
    ck_assert_msg(
        !told || !told_too_early,
        "ended_fd is told before the vCPU's state is VCPU_ENDED, or before its thread has "
        "called vcpu_ended: write to it last of all");
    ck_assert_msg(!told || left, "vcpus_run returns while the thread of a vCPU still runs: run_all "
                                 "must pthread_join it");
}
END_TEST

static int threads_left = -1; /* so many can be created; -1: any number */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(
            RTLD_NEXT, "pthread_create");

    if (threads_left == 0)
        return EAGAIN;
    threads_left -= threads_left > 0;
    return real(thread, attributes, start, argument);
}

/* In a process of its own: a module may also end the program. */
THERE(int, status_of_run, (void), ())
{
    int status;
    pid_t process = fork();

    errno = 0;
    if (process == 0)
        _exit(vcpus_run(&vmm));
    waitpid(process, &status, 0);
    return status;
}

START_TEST(no_thread)
{
    start_guests(VCPUS_MAX, endless, sizeof endless);
    threads_left = 2;
    listen_start();
    int status = status_of_run();
    listen_end();
    ck_assert_msg(WIFEXITED(status), "pthread_create fails, and the VMM crashes: %s",
                  strsignal(WTERMSIG(status)));
    ck_assert_msg(WEXITSTATUS(status) == STATUS_NO_KVM,
                  "pthread_create fails, and the status is %d instead of STATUS_NO_KVM, %d",
                  WEXITSTATUS(status), STATUS_NO_KVM);
    ck_assert_msg(strstr(said, strerror(EAGAIN)) || strstr(said, "EAGAIN") || said_number(EAGAIN),
                  "pthread_create returned EAGAIN, and no message says so (\"%s\"): it returns the "
                  "error and does not set errno",
                  strerror(EAGAIN));
}
END_TEST

/* ------------------------------------------------------------------ 3.3 the console */

#define LINES 30

static bool capturing; /* write to standard output is what the two below say */
static char captured[65536];
static atomic_uint captured_bytes;

/*
 * A write may always write less than it was asked to. This one does, and lets the others go before
 * the rest: what is not guarded by a lock comes out mixed.
 */
ssize_t write(int fd, const void *bytes, size_t count)
{
    if (!capturing || fd != STDOUT_FILENO) {
        ssize_t written = syscall(SYS_write, fd, bytes, count);
        if (written < 0 && errno == EINVAL && count < sizeof(uint64_t))
            ck_abort_msg("an eventfd takes 8 bytes, a uint64_t: a write of %zu bytes fails, and "
                         "nobody learns that the vCPU has ended",
                         count);
        if (watching_end && written == sizeof(uint64_t) && fd > STDERR_FILENO) {
            thread_left = false;
            end_is_told();
            poll(NULL, 0, 300); /* a moment in which run_all could return */
            thread_left = true;
        }
        return written;
    }
    size_t part = count < 3 ? count : 3;
    unsigned place = atomic_fetch_add(&captured_bytes, (unsigned)part);
    if (place + part < sizeof captured)
        memcpy(captured + place, bytes, part);
    for (int i = 0; i < 20; i++)
        sched_yield();
    return (ssize_t)part;
}

/* What goes through stdio, a call at a time, comes out of the same write. */
static ssize_t write_stdio(void *cookie, const char *bytes, size_t count)
{
    for (size_t done = 0; done < count;)
        done += (size_t)write(STDOUT_FILENO, bytes + done, count - done);
    return (ssize_t)count;
}

static void capture_stdio(void)
{
    stdout = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_stdio});
    setvbuf(stdout, NULL, _IONBF, 0);
}

static struct vm console_vm;
static struct vcpu console_vcpus[VCPUS_MAX];
static PRIVATE char texts[VCPUS_MAX][32];

static void *print_lines(void *argument)
{
    struct vcpu *vcpu = argument;

    for (int line = 0; line < LINES; line++) {
        for (const char *text = texts[vcpu->id]; *text; text++)
            console_write_lines(vcpu, text, 1);
        if (line % 2 == 0)
            console_write_lines(vcpu, "\n", 1);
        console_finish(vcpu); /* of every second line the end */
        vcpu_init(vcpu, vcpu->id, vcpu->index, vcpu->vm, vcpu->guest); /* and a new vCPU */
    }
    return NULL;
}

THERE_VOID(print_at_once, (void), ())
{
    pthread_t threads[VCPUS_MAX];

    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_create(&threads[id], NULL, print_lines, &console_vcpus[id]);
    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_join(threads[id], NULL);
}

START_TEST(lines)
{
    int seen[VCPUS_MAX] = {0};

    vmm.guest_count = VCPUS_MAX;
    vm_init(&console_vm, &vmm);
    for (int id = 0; id < VCPUS_MAX; id++) {
        snprintf(texts[id], sizeof texts[id], "%c%u%u", 'a' + id, unit_random(), unit_random());
        vcpu_init(&console_vcpus[id], id, id, &console_vm, &guest);
    }
    capture_stdio();
    capturing = true;
    print_at_once();
    capturing = false;
    for (char *rest = captured, *line; (line = strsep(&rest, "\n")) && rest;) {
        bool whole = false;
        for (int id = 0; id < VCPUS_MAX; id++) {
            char expected[sizeof "vcpu0: " + sizeof texts];
            snprintf(expected, sizeof expected, "vcpu%d: %s", id, texts[id]);
            if (strcmp(line, expected) == 0) {
                whole = true;
                seen[id]++;
            }
        }
        ck_assert_msg(whole, "four vCPUs print at once, and a line comes out as \"%.100s\"", line);
    }
    for (int id = 0; id < VCPUS_MAX; id++)
        ck_assert_msg(seen[id] == LINES, "of %d lines of vcpu%d %d came out", LINES, id, seen[id]);
}
END_TEST

/* What came out since the last time, and what should have. */
static void ck_captured(const char *expected, size_t count, const char *what)
{
    size_t got = atomic_exchange(&captured_bytes, 0);

    ck_assert_msg(got == count && memcmp(captured, expected, count) == 0,
                  "%s: %zu bytes came out, and %zu should have, or not the same ones", what, got,
                  count);
}

#define CK_CAPTURED(expected, what) ck_captured(expected, sizeof(expected) - 1, what)

START_TEST(any_bytes)
{
    static PRIVATE char long_line[4000 + 1], expected[sizeof long_line + 7];
    struct vcpu *vcpu = &console_vcpus[1];

    vm_init(&console_vm, &vmm);
    vcpu_init(vcpu, 1, 1, &console_vm, &guest);
    memset(long_line, 'x', sizeof long_line - 1);
    long_line[sizeof long_line - 1] = '\n';
    memcpy(expected, "vcpu1: ", 7);
    memcpy(expected + 7, long_line, sizeof long_line);
    capture_stdio();
    capturing = true;
    vmm.guest_count = 1;
    console_write_lines(vcpu, "a\0b\n\xff", 5);
    CK_CAPTURED("a\0b\n\xff", "a lone guest prints five bytes, one of them 0");
    vmm.guest_count = 2;
    console_write_lines(vcpu, "one\ntwo\nthr", 11);
    CK_CAPTURED("vcpu1: one\nvcpu1: two\n", "\"one\\ntwo\\nthr\" in one call");
    console_write_lines(vcpu, "ee\n", 3);
    CK_CAPTURED("vcpu1: three\n", "the rest of a line, \"ee\\n\", after its \"thr\"");
    console_write_lines(vcpu, "\n\n", 2);
    CK_CAPTURED("vcpu1: \nvcpu1: \n", "two empty lines");
    console_write_lines(vcpu, "a\0b\n", 4);
    CK_CAPTURED("vcpu1: a\0b\n", "a line with a byte 0 in it");
    console_write_lines(vcpu, long_line, sizeof long_line);
    ck_captured(expected, sizeof expected, "a line of 4000 characters, which vcpu->line can hold");
    console_write_lines(vcpu, "end", 3);
    console_finish(vcpu);
    CK_CAPTURED("vcpu1: end\n", "console_finish after \"end\"");
    console_finish(vcpu);
    CK_CAPTURED("", "console_finish called again");
}
END_TEST

/* ------------------------------------------------------------------ 3.4 the kick */

/* What comes of a kick's signal. */
static enum {
    SIGNAL_SENT,
    SIGNAL_SLOW,       /* a moment in which the vCPU can look at what was set */
    SIGNAL_THEN_ENTRY, /* the vCPU's own thread enters the guest before the kick goes on */
    SIGNAL_COUNTED,    /* nothing */
} kick_signal;
static unsigned kick_signals;

int pthread_kill(pthread_t thread, int signal)
{
    int (*real)(pthread_t, int) = (int (*)(pthread_t, int))dlsym(RTLD_NEXT, "pthread_kill");

    kick_signals++;
    if (kick_signal == SIGNAL_COUNTED)
        return 0;
    int result = real(thread, signal);
    if (kick_signal == SIGNAL_SLOW)
        poll(NULL, 0, 300);
    else if (kick_signal == SIGNAL_THEN_ENTRY)
        kernel(vmm.vcpus[0].fd, KVM_RUN, NULL);
    return result;
}

/* All vCPUs shall stop, and it is said just when this one is about to enter the guest. */
static int kick_before_run(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = &vmm.vcpus[0];

    if (turn == 0) {
        atomic_store(&vmm.stop_signal, SIGTERM);
        vcpu_kick(vcpu);
    }
    return kernel(vcpu->fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

START_TEST(kick)
{
    start_guests(1, endless, sizeof endless);
    falsified.run = kick_before_run;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM,
                  "a vCPU stopped by SIGTERM gives status %d instead of %d", status,
                  STATUS_SIGNAL + SIGTERM);
}
END_TEST

START_TEST(kick_order)
{
    start_guests(1, endless, sizeof endless);
    falsified.run = kick_before_run;
    kick_signal = SIGNAL_THEN_ENTRY;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM,
                  "a vCPU stopped by SIGTERM gives status %d instead of %d", status,
                  STATUS_SIGNAL + SIGTERM);
}
END_TEST

START_TEST(kick_state)
{
    static const struct {
        enum vcpu_state state;
        const char *name;
    } states[] = {{VCPU_CREATED, "VCPU_CREATED"}, {VCPU_ENDED, "VCPU_ENDED"}};
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    vcpu.thread = pthread_self();
    kick_signal = SIGNAL_COUNTED;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        vcpu.state = states[i].state;
        vcpu_kick(&vcpu);
        ck_assert_msg(kick_signals == 0,
                      "a vCPU whose state is %s was kicked, and vcpu_kick signalled its thread: "
                      "there is none, or it is gone",
                      states[i].name);
    }
}
END_TEST

/* A lock whose taking is noticed, and whether a signal to a sleeper came after that. */
static pthread_mutex_t *watched_lock;
static bool lock_taken, woken_without_lock;

int pthread_mutex_lock(pthread_mutex_t *lock)
{
    int (*real)(pthread_mutex_t *) =
        (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");

    lock_taken |= lock == watched_lock;
    return real(lock);
}

static int wake(const char *function, pthread_cond_t *condition)
{
    int (*real)(pthread_cond_t *) = (int (*)(pthread_cond_t *))dlsym(RTLD_NEXT, function);

    woken_without_lock |= watched_lock && !lock_taken;
    return real(condition);
}

int pthread_cond_signal(pthread_cond_t *condition)
{
    return wake("pthread_cond_signal", condition);
}

int pthread_cond_broadcast(pthread_cond_t *condition)
{
    return wake("pthread_cond_broadcast", condition);
}

static bool asleep, awake; /* guarded by the vCPU's lock */

static void *sleep_on_wake(void *argument)
{
    struct vcpu *sleeper = argument;

    pthread_mutex_lock(&sleeper->lock);
    for (asleep = true; !awake;)
        pthread_cond_wait(&sleeper->wake, &sleeper->lock);
    pthread_mutex_unlock(&sleeper->lock);
    return NULL;
}

THERE_VOID(kick_sleeper, (void), ())
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    vcpu.state = VCPU_RUNNING;
    kick_signal = SIGNAL_COUNTED;
    pthread_create(&vcpu.thread, NULL, sleep_on_wake, &vcpu);
    while (!awake) {
        pthread_mutex_lock(&vcpu.lock);
        awake = asleep;
        pthread_mutex_unlock(&vcpu.lock);
        sched_yield();
    }
    watched_lock = &vcpu.lock;
    vcpu_kick(&vcpu);
    watched_lock = NULL;
    pthread_join(vcpu.thread, NULL);
}

START_TEST(kick_wakes)
{
    kick_sleeper();
    ck_assert_msg(!woken_without_lock,
                  "vcpu_kick signals vcpu->wake and has not taken vcpu->lock: a vCPU that has "
                  "looked for work and does not sleep yet, which it does under that lock, misses "
                  "it");
}
END_TEST

static struct kvm_run *watched; /* a page that can't be written */

/* The module is about to clear immediate_exit; just before that comes a stop, and its kick. */
static void stop_before_store(int signal, siginfo_t *info, void *context)
{
    if ((uintptr_t)info->si_addr - (uintptr_t)watched >= PAGE_BYTES)
        return; /* and crash: a mistake of another kind */
    mprotect(watched, PAGE_BYTES, PROT_READ | PROT_WRITE);
    atomic_store(&vmm.stop_signal, SIGTERM);
    watched->immediate_exit = 1;
}

THERE(bool, stop_is_lost, (void), ())
{
    struct sigaction fault = {.sa_sigaction = stop_before_store,
                              .sa_flags = SA_SIGINFO | (int)SA_RESETHAND};
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    watched = (struct kvm_run *)syscall(SYS_mmap, NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1L, 0L);
    watched->immediate_exit = 1; /* an earlier kick, for another reason */
    mprotect(watched, PAGE_BYTES, PROT_READ);
    sigaction(SIGSEGV, &fault, NULL);
    vcpu.run = watched;
    enum step step = vcpu_check_stop(&vcpu);
    bool stopped = atomic_load(&vmm.stop_signal) != 0;
    return stopped && step != STEP_END && !watched->immediate_exit;
}

START_TEST(check_order)
{
    ck_assert_msg(!stop_is_lost(),
                  "a stop came just before vcpu_check_stop cleared run->immediate_exit, and it was "
                  "lost: clear first, and only then look at stop_signal");
}
END_TEST

#define TURNS_MAX 50 /* of a vCPU that a kick made leave once */

/* A kick without a reason to stop; then the guest runs to its HLT. */
static int kick_for_nothing(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = &vmm.vcpus[0];

    if (turn == 0)
        vcpu_kick(vcpu);
    if (turn < TURNS_MAX)
        return kernel(vcpu->fd, KVM_RUN, NULL) < 0 ? errno : 0;
    vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
    return 0;
}

START_TEST(kick_taken_back)
{
    start_guests(1, halt, sizeof halt);
    falsified.run = kick_for_nothing;
    int status = vcpus_run(&vmm);
    ck_assert_msg(
        run_turns < TURNS_MAX,
        "one kick, and from then on KVM_RUN returns at once for ever: vcpu_check_stop must "
        "clear run->immediate_exit");
    ck_assert_msg(status == 0, "a vCPU that was kicked and then halted gives status %d", status);
}
END_TEST

/* A person ends the VMM while the guest runs. */
static int stopped_by_signal(struct kvm_run *run, unsigned turn)
{
    if (turn == 0)
        kill(getpid(), SIGTERM);
    return kernel(vmm.vcpus[0].fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

START_TEST(stop_order)
{
    start_guests(1, endless, sizeof endless);
    falsified.run = stopped_by_signal;
    kick_signal = SIGNAL_SLOW;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM, "SIGTERM gives status %d instead of %d",
                  status, STATUS_SIGNAL + SIGTERM);
}
END_TEST

/* A person ends the VMM while the guest of the second VM runs, and goes on running until it is
 * kicked: it has looked for a stop already. */
static int second_stopped_by_signal(struct kvm_run *run, unsigned turn)
{
    static atomic_bool sent;

    if (run_fd == vmm.vcpus[1].fd && !atomic_exchange(&sent, true))
        kill(getpid(), SIGTERM);
    return kernel(run_fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

START_TEST(stop_isolated)
{
    start_guests(2, endless, sizeof endless);
    vmm.options.isolate = true;
    falsified.run = second_stopped_by_signal;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM, "SIGTERM gives status %d instead of %d",
                  status, STATUS_SIGNAL + SIGTERM);
}
END_TEST

/* ------------------------------------------------------------------ 3.5 isolation */

START_TEST(own_vms)
{
    start_guests(3, halt, sizeof halt);
    vmm.options.isolate = true;
    vcpus_run(&vmm);
    ck_assert_msg(vmm.vm_count == 3, "with --isolate three guests need three VMs: vm_count is %d",
                  vmm.vm_count);
    for (int i = 0; i < 3; i++) {
        const struct vcpu *vcpu = &vmm.vcpus[i];
        ck_assert_msg(vcpu->vm == &vmm.vms[i], "with --isolate guest %d does not run in vms[%d]", i,
                      i);
        ck_assert_msg(vcpu->id == i && vcpu->index == 0,
                      "with --isolate guest %d has id %d and index %d: it is vCPU 0 of its VM, and "
                      "keeps its place on the command line",
                      i, vcpu->id, vcpu->index);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpus");

    unit_add(suite, "bases", bases);
    unit_add(suite, "prepare", prepare);
    unit_add(suite, "prepare_fails", prepare_fails);
    unit_add(suite, "full_window", full_window);
    unit_add(suite, "too_large", too_large);
    unit_add(suite, "state", state);
    unit_add(suite, "told_last", told_last);
    unit_add(suite, "no_thread", no_thread);
    unit_add(suite, "lines", lines);
    unit_add(suite, "any_bytes", any_bytes);
    unit_add(suite, "kick", kick);
    unit_add(suite, "kick_order", kick_order);
    unit_add(suite, "kick_state", kick_state);
    unit_add(suite, "kick_wakes", kick_wakes);
    unit_add(suite, "check_order", check_order);
    unit_add(suite, "kick_taken_back", kick_taken_back);
    unit_add(suite, "stop_order", stop_order);
    unit_add(suite, "stop_isolated", stop_isolated);
    unit_add(suite, "own_vms", own_vms);
    return unit_main(suite);
}
