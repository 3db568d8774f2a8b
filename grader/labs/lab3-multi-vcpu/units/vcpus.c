/* vcpus.c - lab 3's module function by function: windows, threads, the console, the kick. */
#define _GNU_SOURCE /* fopencookie, RTLD_NEXT */
#include "../../locks.h"
#include "lab3.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

MODULE(uint32_t, window_base, (int id), (id))
MODULE(int, window_prepare, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))
MODULE(int, vcpus_run, (struct vmm * all), (all))
MODULE_VOID(console_write_lines, (struct vcpu * vcpu, const char *bytes, size_t count),
            (vcpu, bytes, count), call_give(bytes, count))
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

/* A guest's image: random bytes. */
static PRIVATE uint8_t image[2 * WINDOW_BYTES];

static void start_image(size_t bytes)
{
    random_fill(image, bytes);
    guest.image = image;
    guest.image_bytes = bytes;
}

START_TEST(prepare)
{
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_sregs sregs;
    int order[VCPUS_MAX];

    shuffle(order, VCPUS_MAX);
    for (int id = 0; id < VCPUS_MAX; id++) {
        const uint32_t base = (uint32_t)id * WINDOW_BYTES, part = WINDOW_BYTES / VCPUS_MAX;
        const size_t bytes = (uint32_t)order[id] * part + 1 + unit_random() % part;
        start_created(&vm, &vcpu);
        vcpu.id = id;
        start_image(bytes);
        ck_assert_msg(window_prepare(&vcpu) == 0, "window_prepare of vcpu%d does not return 0", id);
        ck_assert_msg(memcmp(vm.ram + base, image, bytes) == 0,
                      "the image of vcpu%d, %zu bytes, is not in RAM at its window, 0x%x", id,
                      bytes, base);
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
    struct vm vm;
    struct vcpu vcpu;

    start_image(WINDOW_BYTES);
    for (int id = 0; id < VCPUS_MAX; id++) {
        start_created(&vm, &vcpu);
        vcpu.id = id;
        int status = window_prepare(&vcpu);
        ck_assert_msg(status == 0,
                      "an image of exactly WINDOW_BYTES fits into the window of vcpu%d, and "
                      "window_prepare returns %d",
                      id, status);
        ck_assert_msg(memcmp(vm.ram + (uint32_t)id * WINDOW_BYTES, image, WINDOW_BYTES) == 0,
                      "an image of exactly WINDOW_BYTES is not in RAM, all of it, at the window of "
                      "vcpu%d",
                      id);
    }
}
END_TEST

/* window_prepare of this vCPU with an image of so many bytes, which is too large for a window. */
static void check_too_large(struct vcpu *vcpu, size_t bytes)
{
    start_image(bytes);
    memset(vcpu->vm->ram, 0, vcpu->vm->ram_bytes);
    listen_start();
    int status = window_prepare(vcpu);
    listen_end();
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "an image of %zu bytes is larger than the window of vcpu%d, WINDOW_BYTES, and "
                  "window_prepare returns %d instead of STATUS_GUEST_FILE",
                  bytes, vcpu->id, status);
    ck_assert_msg(strstr(said, guest.path),
                  "an image of %zu bytes is larger than WINDOW_BYTES, and the message does not "
                  "name its file, guest->path",
                  bytes);
    for (uint64_t at = 0; at < vcpu->vm->ram_bytes; at++)
        ck_assert_msg(vcpu->vm->ram[at] == 0,
                      "an image of %zu bytes is larger than the window of vcpu%d, window_prepare "
                      "rejects it, and has written to RAM all the same, at 0x%llx: check its size "
                      "first",
                      bytes, vcpu->id, (unsigned long long)at);
    start_image(1 + unit_random() % WINDOW_BYTES);
    check_works("window_prepare", window_prepare(vcpu));
}

START_TEST(too_large)
{
    const size_t sizes[] = {WINDOW_BYTES + 1, WINDOW_BYTES + 1 + unit_random() % PAGE_BYTES,
                            WINDOW_BYTES + 1 + unit_random() % WINDOW_BYTES, 2 * WINDOW_BYTES};
    enum { CASES = VCPUS_MAX * sizeof sizes / sizeof sizes[0] };
    struct vm vm;
    struct vcpu vcpu;
    int order[CASES];

    guest.path = "larger.bin";
    start_created(&vm, &vcpu);
    vm.ram_bytes = (VCPUS_MAX + 2) * WINDOW_BYTES; /* past the last window there is RAM, too */
    vm.ram = memory_for_both(vm.ram_bytes);
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        vcpu.id = order[i] % VCPUS_MAX;
        check_too_large(&vcpu, sizes[order[i] / VCPUS_MAX]);
    }
}
END_TEST

START_TEST(prepare_fails)
{
    static const struct {
        unsigned long request; /* 0: the image does not fit into RAM */
        const char *what;
    } cases[] = {{0, "the image does not fit into RAM"},
                 {KVM_GET_SREGS, "KVM_GET_SREGS failed in vcpu_set_real_mode"},
                 {KVM_SET_SREGS, "KVM_SET_SREGS failed in vcpu_set_real_mode"},
                 {KVM_SET_REGS, "KVM_SET_REGS failed in vcpu_set_real_mode"}};
    enum { CASES = sizeof cases / sizeof cases[0] };
    struct vm vm;
    struct vcpu vcpu;
    int order[CASES];

    start_created(&vm, &vcpu);
    start_image(3000);
    check_works("window_prepare", window_prepare(&vcpu));
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const char *what = cases[order[i]].what;
        falsified.request = cases[order[i]].request;
        falsified.error = falsified.request ? unit_error() : 0;
        vm.ram_bytes = falsified.request ? 1 << 20 : unit_random() % guest.image_bytes;
        listen_start();
        int status = window_prepare(&vcpu);
        listen_end();
        ck_assert_msg(status != 0,
                      "%s, and window_prepare returns 0: look at what ram_write and "
                      "vcpu_set_real_mode return",
                      what);
        const int expected = falsified.request ? STATUS_NO_KVM : STATUS_GUEST_FILE;
        ck_assert_msg(status == expected,
                      "%s, and window_prepare returns %d, which is not the status for it (%s, %d)",
                      what, status, falsified.request ? "STATUS_NO_KVM" : "STATUS_GUEST_FILE",
                      expected);
        ck_assert_msg(said[0] != '\0', "%s, and nothing was said about it: fail() says it", what);
        if (falsified.request)
            check_met("window_prepare", what);
        falsified.error = 0;
        vm.ram_bytes = 1 << 20;
        check_works("window_prepare", window_prepare(&vcpu));
    }
}
END_TEST

/* ------------------------------------------------------------------ 3.2 threads */

static const uint8_t endless[] = {0xeb, 0xfe}; /* jmp $ */
static const uint8_t halt[] = {0xf4};

/* A guest's first instruction gives it a number: who finds that in its vCPU knows that it ran. */
#define NUMBER_BYTES 3 /* mov si, NUMBER */
#define CODE_MAX     16

static uint8_t codes[VCPUS_MAX][CODE_MAX];
static PRIVATE uint16_t numbers[VCPUS_MAX];

/* How a vCPU ends, and what it has met on the way. */
static struct end {
    enum { BY_HALT, BY_ITSELF, BY_CRASH, BY_FAILURE, ENDS } how;
    int status;        /* BY_ITSELF: its own */
    const char *words; /* that it prints before, or NULL */
    enum vcpu_state state_in_run;
    bool own_thread;
    atomic_uint told;  /* calls of vcpu_ended */
    bool told_early;   /* when its state was not VCPU_ENDED */
    bool locked[3];    /* the state was set to this while vcpu->lock was held */
    atomic_uint turns; /* KVM_RUN so far */
    bool entered;      /* KVM_RUN was called for a vCPU that KVM knows */
    uint16_t number;   /* that its guest had then */
    pid_t thread;      /* that called it; 0: that of vcpus_run */
    pthread_t to_join; /* the same */
} ends[VCPUS_MAX];

/* What vcpus_run is to run: so many guests of this code. */
static void start_guests(int count, const uint8_t *code, size_t bytes)
{
    vmm.options.ram_bytes = 1 << 20;
    vmm.guest_count = count;
    for (int i = 0; i < count; i++) {
        numbers[i] = (uint16_t)(1 + unit_random() % UINT16_MAX);
        ends[i].entered = false;
        ends[i].number = 0;
        ends[i].thread = 0;
        codes[i][0] = 0xbe;
        memcpy(codes[i] + 1, &numbers[i], sizeof numbers[i]);
        memcpy(codes[i] + NUMBER_BYTES, code, bytes);
        vmm.guests[i] = (struct guest){"guest", GUEST_REAL, codes[i], NUMBER_BYTES + bytes};
    }
}

static const char *const end_names[] = {"it executed HLT", "its guest gave a status",
                                        "its guest crashed", "KVM_RUN failed"};

BOTH static struct end *end_of(const struct vcpu *vcpu)
{
    return &ends[(vcpu - vmm.vcpus) % VCPUS_MAX];
}

BOTH static void note_end(struct vcpu *vcpu)
{
    end_of(vcpu)->told_early |= vcpu->state != VCPU_ENDED;
    end_of(vcpu)->told++;
}

BOTH static enum step end_by_itself(struct vcpu *vcpu)
{
    return vcpu_end(vcpu, end_of(vcpu)->status);
}

/* The hook that lab 4 has for its keyboard; and an exit at which the vCPU ends by itself. */
static void ends_watch(void)
{
    struct stage changed = stage;

    changed.on_end = note_end;
    changed.on_exit[KVM_EXIT_DEBUG] = end_by_itself;
    stage_set(&changed);
}

static void check_end(int id, const char *why)
{
    ck_assert_msg(ends[id].told != 0,
                  "vcpu%d has ended, because %s, and vcpu_ended was not called: however a vCPU "
                  "ends, its thread calls it",
                  id, why);
    ck_assert_msg(!ends[id].told_early,
                  "vcpu%d has ended, because %s, and its state was not VCPU_ENDED when vcpu_ended "
                  "was called: devices ask there who still runs",
                  id, why);
    ck_assert_msg(ends[id].told == 1,
                  "vcpu%d has ended, because %s, and vcpu_ended was called %u "
                  "times",
                  id, why, ends[id].told);
}

/* The vCPU whose KVM_RUN this is. */
BOTH static struct vcpu *vcpu_in_run(void)
{
    int id = 0;

    while (id < VCPUS_MAX - 1 && vmm.vcpus[id].fd != run_fd)
        id++;
    return &vmm.vcpus[id];
}

/* What KVM knows of this vCPU: it refuses any other descriptor. */
BOTH static void note_vcpu(struct vcpu *vcpu)
{
    struct kvm_regs regs = {0};

    if (kernel(vcpu->fd, KVM_GET_REGS, &regs) != 0)
        return;
    end_of(vcpu)->entered = true;
    end_of(vcpu)->number = (uint16_t)regs.rsi;
    end_of(vcpu)->thread = gettid() == getpid() ? 0 : gettid();
    end_of(vcpu)->to_join = pthread_self();
}

/* KVM_RUN as it is; its error. */
BOTH static int run_really(struct vcpu *vcpu)
{
    const int error = kernel(vcpu->fd, KVM_RUN, NULL) < 0 ? errno : 0;

    note_vcpu(vcpu);
    return error;
}

BOTH static int run_and_note(struct kvm_run *run, unsigned turn)
{
    return run_really(vcpu_in_run());
}

static void check_entered(int id)
{
    ck_assert_msg(ends[id].entered,
                  "vcpus_run returned, and KVM_RUN was never called on the descriptor of vcpu%d",
                  id);
}

static void check_ran(int id)
{
    check_entered(id);
    ck_assert_msg(ends[id].number == numbers[id],
                  "vcpus_run returned, and vcpu%d has not executed its guest's first instruction: "
                  "after it SI is 0x%x, and it is 0x%x",
                  id, numbers[id], ends[id].number);
}

/* Each of so many vCPUs ran on a thread of its own. */
static void check_threads(int count)
{
    for (int id = 0; id < count; id++) {
        check_entered(id);
        ck_assert_msg(ends[id].thread != 0,
                      "KVM_RUN of vcpu%d was called on the thread that called vcpus_run: each vCPU "
                      "needs a thread of its own",
                      id);
        for (int other = 0; other < id; other++)
            ck_assert_msg(ends[id].thread != ends[other].thread,
                          "vcpu%d and vcpu%d ran on the same thread: each vCPU needs a thread of "
                          "its own",
                          other, id);
    }
}

BOTH static int end_in_run(struct vcpu *vcpu, int how)
{
    static const uint32_t exits[ENDS] = {
        [BY_HALT] = KVM_EXIT_HLT, [BY_ITSELF] = KVM_EXIT_DEBUG, [BY_CRASH] = KVM_EXIT_SHUTDOWN};

    vcpu->run->exit_reason = exits[how];
    return how == BY_FAILURE ? EIO : 0;
}

#define WAIT_MS 10000 /* at most: what it waits for comes, unless the module is wrong */

static bool all_meet;            /* in KVM_RUN: each vCPU has a thread of its own */
static bool one_is_alone;        /* it met no others */
static atomic_uint vcpus_inside; /* of those that meet */

BOTH static void meet(struct vcpu *vcpu)
{
    atomic_fetch_add(&vcpus_inside, 1);
    for (int ms = 0; atomic_load(&vcpus_inside) < VCPUS_MAX && !one_is_alone; ms++) {
        one_is_alone |= ms == WAIT_MS;
        poll(NULL, 0, 1);
    }
}

BOTH static int end_as_told(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = vcpu_in_run();
    struct end *end = end_of(vcpu);

    end->state_in_run = vcpu->state;
    end->own_thread = pthread_equal(vcpu->thread, pthread_self());
    note_vcpu(vcpu);
    if (all_meet)
        meet(vcpu);
    if (end->words)
        console_write_lines(vcpu, end->words, strlen(end->words));
    return end_in_run(vcpu, (int)end->how);
}

/* vcpus_run of guests that end as `ends` says, whatever they print on standard error. */
static int run_to_ends(void)
{
    listen_hold();
    int status = vcpus_run(&vmm);
    listen_drop();
    return status;
}

static enum vcpu_state state_before[VCPUS_MAX]; /* when its lock was taken */

/* Called with a lock that has just been taken, or is about to be released. */
BOTH static void state_at_lock(const pthread_mutex_t *lock)
{
    for (int id = 0; id < VCPUS_MAX; id++)
        if (lock == &vmm.vcpus[id].lock)
            state_before[id] = vmm.vcpus[id].state;
}

BOTH static void state_at_unlock(const pthread_mutex_t *lock)
{
    for (int id = 0; id < VCPUS_MAX; id++) {
        const enum vcpu_state state = vmm.vcpus[id].state;
        if (lock == &vmm.vcpus[id].lock && state != state_before[id] && state <= VCPU_ENDED)
            ends[id].locked[state] = true;
    }
}

THERE_VOID(states_watch, (void), ())
{
    after_lock = state_at_lock;
    before_unlock = state_at_unlock;
}

static void check_state(int id, const char *why)
{
    check_entered(id);
    ck_assert_msg(ends[id].state_in_run == VCPU_RUNNING && ends[id].own_thread,
                  "in KVM_RUN the state of vcpu%d is not VCPU_RUNNING, or vcpu->thread is not its "
                  "thread: nobody can kick it. vcpu_set_state comes before vcpu_run",
                  id);
    ck_assert_msg(vmm.vcpus[id].state == VCPU_ENDED,
                  "vcpu%d has ended, because %s, and its state is not VCPU_ENDED: a kick would "
                  "signal a thread that is gone. vcpu_set_state comes after vcpu_run, too",
                  id, why);
    for (enum vcpu_state state = VCPU_RUNNING; state <= VCPU_ENDED; state++)
        ck_assert_msg(ends[id].locked[state],
                      "vcpu%d's state became %s while nobody held vcpu->lock: a kick reads the "
                      "state under that lock, and may signal a thread that ends meanwhile",
                      id, state == VCPU_RUNNING ? "VCPU_RUNNING" : "VCPU_ENDED");
    check_end(id, why);
}

START_TEST(state)
{
    int order[ENDS];

    ends_watch();
    states_watch();
    start_guests(VCPUS_MAX, halt, sizeof halt);
    falsified.run = end_as_told;
    all_meet = true;
    shuffle(order, ENDS);
    for (int turn = 0; turn < ENDS; turn++) { /* each vCPU ends in each way */
        for (int id = 0; id < VCPUS_MAX; id++)
            ends[id] = (struct end){.how = (__typeof__(ends[id].how))order[(id + turn) % ENDS],
                                    .status = 1 + (int)(unit_random() % STATUS_GUEST_MAX)};
        atomic_store(&vcpus_inside, 0);
        run_to_ends();
        ck_assert_msg(!one_is_alone,
                      "%d guests were to run, and were not in KVM_RUN at the same time: each vCPU "
                      "has its own thread",
                      VCPUS_MAX);
        for (int id = 0; id < VCPUS_MAX; id++)
            check_state(id, end_names[order[(id + turn) % ENDS]]);
    }
}
END_TEST

START_TEST(highest)
{
    enum { KINDS = 4 };

    ends_watch();
    start_guests(VCPUS_MAX, halt, sizeof halt);
    falsified.run = end_as_told;
    for (int turn = 0; turn < KINDS * VCPUS_MAX; turn++) {
        const int own = 1 + (int)(unit_random() % STATUS_GUEST_MAX);
        const int kinds[KINDS][VCPUS_MAX] = {
            {0, own, STATUS_CRASHED, STATUS_SIGNAL + 1 + (int)(unit_random() % 15)},
            {STATUS_CRASHED, 0, own, 0},
            {STATUS_SIGNAL + 2, STATUS_SIGNAL + 15, 0, STATUS_CRASHED},
            {0, 0, 0, unit_random() % 2 ? own : 0}};
        int worst = 0, statuses[VCPUS_MAX];
        for (int id = 0; id < VCPUS_MAX; id++) { /* each status at each place */
            statuses[id] = kinds[turn % KINDS][(id + turn / KINDS) % VCPUS_MAX];
            worst = statuses[id] > worst ? statuses[id] : worst;
            ends[id] = (struct end){.how = BY_ITSELF, .status = statuses[id]};
        }
        int status = run_to_ends();
        check_threads(VCPUS_MAX);
        ck_assert_msg(status == worst,
                      "four vCPUs end with the statuses %d, %d, %d and %d, and vcpus_run returns "
                      "%d instead of the highest",
                      statuses[0], statuses[1], statuses[2], statuses[3], status);
    }
}
END_TEST

/* The state when a vCPU's end is signalled: set by write, below. */
static atomic_bool watching_end;
static bool signalled, signalled_too_early;
static bool end_noticed;   /* its thread has signalled it, or was joined */
static atomic_int leaving; /* threads that signal their end, or have done so, and still run */

#define JOINS_MAX 16

static _Atomic pthread_t joined[JOINS_MAX]; /* pthread_join waits for them; 0: a free place */

BOTH int pthread_join(pthread_t thread, void **result)
{
    int place = 0;

    for (pthread_t none = 0; !atomic_compare_exchange_strong(&joined[place], &none, thread);
         none = 0)
        place = (place + 1) % JOINS_MAX;
    int error = REAL_OF_THREADS(pthread_join)(thread, result);
    end_noticed |= error == 0 && ends[0].entered && pthread_equal(thread, ends[0].to_join);
    atomic_store(&joined[place], 0); /* the next thread may have the same pthread_t */
    return error;
}

BOTH static bool is_joined(pthread_t thread)
{
    for (int i = 0; i < JOINS_MAX; i++)
        if (pthread_equal(atomic_load(&joined[i]), thread))
            return true;
    return false;
}

BOTH static void end_is_told(void)
{
    int unread = 0;

    syscall(SYS_ioctl, STDERR_FILENO, FIONREAD, &unread); /* vcpu_ended has printed --regs there */
    signalled = true;
    end_noticed |= run_fd > 0; /* of this thread */
    signalled_too_early = (unread == 0 && !atomic_load(&heard)) || vmm.vcpus[0].state != VCPU_ENDED;
}

START_TEST(end_signalled_last)
{
    start_guests(1, halt, sizeof halt);
    falsified.run = run_and_note;
    vmm.options.final_registers = true;
    listen_start();
    watching_end = true;
    int status = vcpus_run(&vmm);
    bool left = atomic_load(&leaving) == 0;
    watching_end = false;
    listen_end();
    check_works("vcpus_run", status);
    check_ran(0);
    check_threads(1);
    ck_assert_msg(end_noticed,
                  "vcpus_run returned, and the vCPU's thread had not signalled its end, nor was it "
                  "joined: its last step is a write to ended_fd, and run_all joins it");
    ck_assert_msg(said[0] != '\0', "vcpus_run returned, and --regs printed nothing: the guest did "
                                   "not run, or vcpu_ended was not called");
    ck_assert_msg(
        !signalled || !signalled_too_early,
        "ended_fd is signalled before the vCPU's state is VCPU_ENDED, or before its thread has "
        "called vcpu_ended: write to it last of all");
    ck_assert_msg(!signalled || left,
                  "vcpus_run returns while the thread of a vCPU still runs: run_all "
                  "must pthread_join it");
}
END_TEST

static int threads_left = -1; /* so many can be created; -1: any number */
static int threads_failing;   /* so many can't, from then on; after them any number can again */
static int thread_error;      /* of these */

BOTH int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                        void *argument)
{
    if (threads_left == 0 && threads_failing-- > 0)
        return thread_error;
    threads_left -= threads_left >= 0;
    return REAL_OF_THREADS(pthread_create)(thread, attributes, start, argument);
}

#define STATUS_UNJOINED 1 /* of the process below: a vCPU's thread still runs */

/* In a process of its own: a module may also end the program. */
THERE(int, status_of_run, (void), ())
{
    int status;
    pid_t process = fork();

    errno = 0;
    if (process == 0) {
        watching_end = true;
        int result = vcpus_run(&vmm);
        _exit(atomic_load(&leaving) == 0 ? result : STATUS_UNJOINED);
    }
    waitpid(process, &status, 0);
    return status;
}

START_TEST(no_thread)
{
    static const int errors[VCPUS_MAX] = {EAGAIN, ENOMEM, EINVAL, ENOSPC};
    int counts[VCPUS_MAX], order[VCPUS_MAX];

    shuffle(counts, VCPUS_MAX);
    shuffle(order, VCPUS_MAX);
    falsified.run = run_and_note;
    for (int i = 0; i < VCPUS_MAX; i++) {
        const int started = counts[i], error = errors[order[i]];
        start_guests(VCPUS_MAX, halt, sizeof halt);
        check_works("vcpus_run", vcpus_run(&vmm));
        for (int id = 0; id < VCPUS_MAX; id++)
            check_ran(id);
        check_threads(VCPUS_MAX);
        start_guests(VCPUS_MAX, endless, sizeof endless);
        threads_left = started;
        threads_failing = i == 0 ? VCPUS_MAX : 1;
        thread_error = error;
        listen_start();
        int status = status_of_run();
        listen_end();
        threads_left = -1;
        watching_end = false;
        atomic_store(&leaving, 0);
        const int stopped_by = atomic_exchange(&vmm.stop_signal, 0); /* 0: ended in another way */
        for (int place = 0; place < JOINS_MAX; place++)
            atomic_store(&joined[place], 0);
        ck_assert_msg(WIFEXITED(status), "pthread_create number %d fails, and the VMM crashes: %s",
                      started + 1, strsignal(WTERMSIG(status)));
        ck_assert_msg(WEXITSTATUS(status) != STATUS_UNJOINED,
                      "pthread_create number %d fails, and vcpus_run returns while threads that "
                      "were started still run: they use the vCPUs that it has destroyed",
                      started + 1);
        ck_assert_msg(WEXITSTATUS(status) == STATUS_NO_KVM,
                      "pthread_create number %d fails, and the status is %d instead of "
                      "STATUS_NO_KVM, %d",
                      started + 1, WEXITSTATUS(status), STATUS_NO_KVM);
        ck_assert_msg(stopped_by == 0 || stopped_by == SIGTERM,
                      "pthread_create number %d fails, and the vCPUs that run are stopped by "
                      "signal %d instead of SIGTERM, %d",
                      started + 1, stopped_by, SIGTERM);
        char what[128];
        snprintf(what, sizeof what, "pthread_create number %d returned %s (it does not set errno)",
                 started + 1, strerrorname_np(error));
        if (!said_number((uint64_t)error))
            check_reason(what, error);
    }
}
END_TEST

/* ------------------------------------------------------------------ 3.3 the console */

#define LINES 30

static unsigned yielding; /* if not 0, one in so many writes lets another thread run */
static bool capturing;    /* write to standard output is what the two below say */
static char captured[2 * 65536];
static atomic_uint captured_bytes;
static struct vcpu console_vcpus[VCPUS_MAX];
static bool printed_locked; /* the thread that printed held a vcpu->lock */

/*
 * A write may always write less than it was asked to. This one does, and lets the others go before
 * the rest: what no lock guards is mixed.
 */
BOTH ssize_t write(int fd, const void *bytes, size_t count)
{
    if (!capturing || fd != STDOUT_FILENO) {
        const bool told = watching_end && count == sizeof(uint64_t) && fd > STDERR_FILENO;
        atomic_fetch_add(&leaving, told);
        ssize_t written = syscall(SYS_write, fd, bytes, count);
        if (written < 0 && errno == EINVAL && count < sizeof(uint64_t))
            ck_abort_msg(
                "an eventfd takes 8 bytes, a uint64_t: a write of %zu bytes fails, and the "
                "vCPU's end goes unnoticed",
                count);
        if (told && written == sizeof(uint64_t)) {
            end_is_told();
            /* An unjoined thread stays: vcpus_run can return. The main thread is not joined. */
            while (watching_end && gettid() != getpid() && !is_joined(pthread_self()))
                poll(NULL, 0, 1);
        }
        atomic_fetch_sub(&leaving, told);
        return written;
    }
    for (int id = 0; id < VCPUS_MAX; id++)
        printed_locked |= lock_is_mine(&console_vcpus[id].lock);
    size_t part = count < 3 ? count : count > 64 ? count / 2 : 3;
    unsigned place = atomic_fetch_add(&captured_bytes, (unsigned)part);
    if (place + part < sizeof captured)
        memcpy(captured + place, bytes, part);
    static _Thread_local unsigned writes;
    if (yielding && writes++ % yielding == 0)
        sched_yield(); /* once: on a loaded machine each may take some milliseconds */
    return (ssize_t)part;
}

/* The C library's own would not go through that. */
BOTH int eventfd_write(int fd, eventfd_t value)
{
    return write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

/* What stdio writes, one call at a time, goes through the same write. */
BOTH static ssize_t write_stdio(void *cookie, const char *bytes, size_t count)
{
    for (size_t done = 0; done < count;)
        done += (size_t)write(STDOUT_FILENO, bytes + done, count - done);
    return (ssize_t)count;
}

THERE_VOID(capture_stdio, (void), ())
{
    stdout = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_stdio});
    setvbuf(stdout, NULL, _IONBF, 0);
}

static PRIVATE char texts[VCPUS_MAX][32];

BOTH static void *print_lines(void *argument)
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

#define LONG_LINES 2

static PRIVATE char long_texts[VCPUS_MAX][CONSOLE_LINE_MAX + 1000];

/* Lines that do not fit into vcpu->line. */
BOTH static void *print_long_lines(void *argument)
{
    struct vcpu *vcpu = argument;

    for (int line = 0; line < LONG_LINES; line++)
        console_write_lines(vcpu, long_texts[vcpu->id], sizeof long_texts[0]);
    return NULL;
}

THERE_VOID(print_at_once, (bool long_lines), (long_lines), GIVE(texts); GIVE(long_texts))
{
    pthread_t threads[VCPUS_MAX];

    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_create(&threads[id], NULL, long_lines ? print_long_lines : print_lines,
                       &console_vcpus[id]);
    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_join(threads[id], NULL);
}

/* Four lines in pieces at once: each vCPU has a digit of its own, and each piece one digit. */
static void check_pieces(void)
{
    size_t printed[VCPUS_MAX] = {0};

    for (int id = 0; id < VCPUS_MAX; id++) {
        memset(long_texts[id], '0' + id, sizeof long_texts[id]);
        long_texts[id][sizeof long_texts[id] - 1] = '\n';
    }
    atomic_store(&captured_bytes, 0);
    memset(captured, 0, sizeof captured);
    capturing = true;
    yielding = 4;
    print_at_once(true);
    capturing = false;
    for (char *rest = captured, *line; (line = strsep(&rest, "\n")) && rest;) {
        const int id = line[sizeof "vcpu" - 1] - '0';
        const char digit[] = {(char)('0' + (id & 7)), '\0'};
        char name[sizeof "vcpu0: "];
        snprintf(name, sizeof name, "vcpu%s: ", digit);
        const size_t bytes = strlen(line) - strlen(name);
        ck_assert_msg(id >= 0 && id < VCPUS_MAX && strncmp(line, name, strlen(name)) == 0 &&
                          strspn(line + strlen(name), digit) == bytes,
                      "four vCPUs print lines at once that do not fit into vcpu->line, and pieces "
                      "of two are mixed: \"%.60s\"...",
                      line);
        printed[id] += bytes;
    }
    for (int id = 0; id < VCPUS_MAX; id++)
        ck_assert_msg(printed[id] == LONG_LINES * (sizeof long_texts[id] - 1),
                      "four vCPUs print lines at once that do not fit into vcpu->line: of %zu "
                      "characters of vcpu%d %zu were printed",
                      LONG_LINES * (sizeof long_texts[id] - 1), id, printed[id]);
}

START_TEST(lines)
{
    int seen[VCPUS_MAX] = {0};

    vmm.guest_count = vmm.vm_count = VCPUS_MAX;
    for (int id = 0; id < VCPUS_MAX; id++) { /* each in a VM of its own: there is one output */
        snprintf(texts[id], sizeof texts[id], "%c%u%u", 'a' + id, unit_random(), unit_random());
        vm_init(&vmm.vms[id], &vmm);
        vcpu_init(&console_vcpus[id], id, 0, &vmm.vms[id], &guest);
    }
    capture_stdio();
    capturing = true;
    yielding = 1;
    print_at_once(false);
    capturing = false;
    yielding = 0;
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
        ck_assert_msg(whole, "four vCPUs print at once, and a line is printed as \"%.100s\"", line);
    }
    for (int id = 0; id < VCPUS_MAX; id++) {
        ck_assert_msg(seen[id] <= LINES,
                      "vcpu%d has %d lines, and %d were printed: text of an earlier line is "
                      "printed again",
                      id, LINES, seen[id]);
        ck_assert_msg(seen[id] == LINES, "of %d lines of vcpu%d %d were printed", LINES, id,
                      seen[id]);
    }
    check_pieces();
}
END_TEST

#define NAME_BYTES (sizeof "vcpu1: " - 1)
#define QUOTED_MAX 60 /* bytes of a longer text that a message shows */

/* The bytes as C would have them in a string. */
static char *quoted(const char *bytes, size_t count)
{
    char *text = calloc(1, QUOTED_MAX * sizeof "\\x00" + sizeof "\"\"..."), *end = text;

    *end++ = '"';
    for (size_t i = 0; i < count && i < QUOTED_MAX; i++) {
        const uint8_t byte = (uint8_t)bytes[i];
        if (byte == '\n')
            end = stpcpy(end, "\\n");
        else if (byte < ' ' || byte > '~')
            end += sprintf(end, "\\x%02x", byte);
        else
            *end++ = (char)byte;
    }
    strcpy(end, count > QUOTED_MAX ? "\"..." : "\"");
    return text;
}

#define TEXT_MIN  70000 /* more bytes than 16 bits count */
#define LINE_LONG 4000  /* at most so long are its lines */

/* A text of many lines, and the same with the names of vcpu1. */
static PRIVATE char long_text[TEXT_MIN + LINE_LONG], text_lines[sizeof captured];
static PRIVATE size_t text_bytes, text_lines_bytes;

static void start_text(void)
{
    for (text_bytes = text_lines_bytes = 0; text_bytes < TEXT_MIN;) {
        char *line = long_text + text_bytes;
        const size_t count = unit_random() % LINE_LONG;
        for (size_t i = 0; i < count; i++)
            line[i] = (char)('a' + unit_random() % 26);
        line[count] = '\n';
        memcpy(text_lines + text_lines_bytes, "vcpu1: ", NAME_BYTES);
        memcpy(text_lines + text_lines_bytes + NAME_BYTES, line, count + 1);
        text_bytes += count + 1;
        text_lines_bytes += NAME_BYTES + count + 1;
    }
}

/* What was printed since the last time, and what should have been. */
static void ck_captured(const char *expected, size_t count, const char *what)
{
    size_t got = atomic_exchange(&captured_bytes, 0);

    ck_assert_msg(got == count && memcmp(captured, expected, count) == 0,
                  "%s: printed %s (%zu bytes) instead of %s (%zu bytes)", what,
                  quoted(captured, got), got, quoted(expected, count), count);
}

/* All bytes but the newline in a random order, then the newline. */
static PRIVATE char all_bytes[256], all_bytes_line[NAME_BYTES + sizeof all_bytes];

static void start_all_bytes(void)
{
    int order[sizeof all_bytes - 1];

    shuffle(order, sizeof all_bytes - 1);
    for (size_t i = 0; i < sizeof all_bytes - 1; i++)
        all_bytes[i] = (char)(order[i] < '\n' ? order[i] : order[i] + 1);
    all_bytes[sizeof all_bytes - 1] = '\n';
    memcpy(all_bytes_line, "vcpu1: ", NAME_BYTES);
    memcpy(all_bytes_line + NAME_BYTES, all_bytes, sizeof all_bytes);
}

#define CK_CAPTURED(expected, what) ck_captured(expected, sizeof(expected) - 1, what)

START_TEST(any_bytes)
{
    static PRIVATE char long_line[4000 + 1], expected[sizeof long_line + 7];
    struct vcpu *vcpu = &console_vcpus[1];

    vm_init(&vmm.vms[0], &vmm);
    vcpu_init(vcpu, 1, 1, &vmm.vms[0], &guest);
    memset(long_line, 'x', sizeof long_line - 1);
    long_line[sizeof long_line - 1] = '\n';
    memcpy(expected, "vcpu1: ", 7);
    memcpy(expected + 7, long_line, sizeof long_line);
    start_all_bytes();
    capture_stdio();
    capturing = true;
    vmm.guest_count = 1;
    console_write_lines(vcpu, all_bytes, sizeof all_bytes);
    ck_captured(all_bytes, sizeof all_bytes, "a lone guest prints each byte once");
    start_text();
    console_write_lines(vcpu, long_text, text_bytes);
    ck_captured(long_text, text_bytes, "a lone guest prints many lines in one call");
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
    console_write_lines(vcpu, "a\rb\n", 4);
    CK_CAPTURED("vcpu1: a\rb\n", "a line with a carriage return in it");
    console_write_lines(vcpu, all_bytes, sizeof all_bytes);
    ck_captured(all_bytes_line, sizeof all_bytes_line, "a line with each byte in it once");
    console_write_lines(vcpu, long_line, sizeof long_line);
    ck_captured(expected, sizeof expected, "a line of 4000 characters, which vcpu->line can hold");
    console_write_lines(vcpu, "end", 3);
    console_finish(vcpu);
    CK_CAPTURED("vcpu1: end\n", "console_finish after \"end\"");
    console_write_lines(vcpu, long_text, text_bytes);
    ck_captured(text_lines, text_lines_bytes, "one of two guests prints many lines in one call");
    console_finish(vcpu);
    CK_CAPTURED("", "console_finish called again");
}
END_TEST

#define LONG_LINE_MAX (6 * CONSOLE_LINE_MAX)

/* A line of `count` characters and its newline, in one call or each character in one of its own. */
THERE_VOID(print_line, (struct vcpu * vcpu, const char *line, size_t count, bool in_one),
           (vcpu, line, count, in_one), see_vcpu(vcpu), call_give(line, count + 1))
{
    for (size_t i = 0; i <= count; i += in_one ? count + 1 : 1)
        console_write_lines(vcpu, line + i, in_one ? count + 1 : 1);
}

/* The characters of the piece of vcpu1's line that begins there, and where the next one begins. */
static size_t piece_bytes(char **piece)
{
    char *start = *piece, *end = strchr(start, '\n');

    ck_assert_msg(end && strncmp(start, "vcpu1: ", NAME_BYTES) == 0,
                  "a piece of a long line is not a line with the name of its vCPU: \"%.50s\"",
                  start);
    *piece = end + 1;
    return (size_t)(end - start) - NAME_BYTES;
}

START_TEST(full_line)
{
    static PRIVATE char line[LONG_LINE_MAX + 1];
    const size_t counts[] = {CONSOLE_LINE_MAX - 1, CONSOLE_LINE_MAX, CONSOLE_LINE_MAX + 1,
                             (2 + unit_random() % 2) * CONSOLE_LINE_MAX + unit_random() % 1000,
                             (4 + unit_random() % 2) * CONSOLE_LINE_MAX + unit_random() % 1000};
    enum { CASES = 2 * sizeof counts / sizeof counts[0] };
    struct vcpu *vcpu = &console_vcpus[1];
    int order[CASES];

    vm_init(&vmm.vms[0], &vmm);
    vcpu_init(vcpu, 1, 1, &vmm.vms[0], &guest);
    vmm.guest_count = 2;
    capture_stdio();
    capturing = true;
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const size_t count = counts[order[i] / 2];
        for (size_t place = 0; place < count; place++)
            line[place] = (char)('a' + unit_random() % 26);
        line[count] = '\n';
        print_line(vcpu, line, count, order[i] % 2);
        captured[atomic_exchange(&captured_bytes, 0) % sizeof captured] = '\0';
        char *piece = captured;
        size_t longest = 0, printed = 0, pieces = 0;
        bool same = true;
        do {
            const char *text = piece + NAME_BYTES;
            const size_t bytes = piece_bytes(&piece);
            same &= printed + bytes <= count && memcmp(text, line + printed, bytes) == 0;
            longest = bytes > longest ? bytes : longest;
            printed += bytes;
            pieces++;
        } while (*piece);
        ck_assert_msg(longest <= CONSOLE_LINE_MAX,
                      "a piece of %zu characters was printed: vcpu->line has room for %d, and the "
                      "rest was written past its end",
                      longest, CONSOLE_LINE_MAX);
        ck_assert_msg(printed == count, "of a line of %zu characters %zu were printed", count,
                      printed);
        ck_assert_msg(same, "of a line of %zu characters others than its own were printed", count);
        ck_assert_msg(count > CONSOLE_LINE_MAX || longest == count,
                      "a line of %zu characters fits into vcpu->line, which has room for %d, and "
                      "was printed in pieces of at most %zu",
                      count, CONSOLE_LINE_MAX, longest);
        ck_assert_msg(count >= CONSOLE_LINE_MAX || pieces == 1,
                      "an empty line follows a line of %zu characters, which does not fill "
                      "vcpu->line",
                      count);
    }
}
END_TEST

/* A vCPU that only collects characters takes the lock under which another prints. */
THERE(bool, collecting_waits, (const char *text, size_t count), (text, count),
      call_give(text, count))
{
    pthread_mutex_t *collecting = NULL, *printing = NULL;

    first_lock = &collecting;
    console_write_lines(&console_vcpus[0], text, count);
    first_lock = &printing;
    console_write_lines(&console_vcpus[1], "y\n", 2);
    first_lock = NULL;
    return collecting && collecting == printing;
}

/* At a newline, because the line is full, and at the end. */
THERE_VOID(print_all_ways, (struct vcpu * vcpu), (vcpu))
{
    for (int i = 0; i < CONSOLE_LINE_MAX + 2; i++)
        console_write_lines(vcpu, i == 0 ? "\n" : "x", 1);
    console_finish(vcpu);
}

START_TEST(collects)
{
    vmm.guest_count = 2;
    for (int id = 0; id < 2; id++) {
        vm_init(&vmm.vms[id], &vmm);
        vcpu_init(&console_vcpus[id], id, 0, &vmm.vms[id], &guest);
    }
    capture_stdio();
    capturing = true;
    for (int i = 0; i < 10; i++) {
        static const char text[] = "no newline is in this";
        const size_t count = i == 0 ? 1 : 1 + unit_random() % (sizeof text - 1);
        ck_assert_msg(!collecting_waits(text, count),
                      "a vCPU collects a character, or several in one call (%zu), prints nothing, "
                      "and takes the lock under which another one prints: it waits for as long as "
                      "that takes",
                      count);
    }
    for (vmm.guest_count = 1; vmm.guest_count <= 2; vmm.guest_count++) {
        print_all_ways(&console_vcpus[vmm.guest_count - 1]);
        ck_assert_msg(!printed_locked,
                      "a vCPU prints, as one of %d, and holds vcpu->lock meanwhile: for as long as "
                      "its output is not read it can't be kicked, and who kicks it waits",
                      vmm.guest_count);
    }
    capturing = false;
}
END_TEST

/* One vCPU of several ends in each of these ways, in the middle of a line. */
START_TEST(ends_unfinished)
{
    static const struct {
        int how, status;
        const char *why;
    } cases[] = {{BY_HALT, 0, "it executed HLT"},
                 {BY_ITSELF, 0, "its guest gave the status 0"},
                 {BY_ITSELF, 3, "its guest gave the status 3"},
                 {BY_ITSELF, STATUS_GUEST_MAX, "its guest gave the status 63"},
                 {BY_ITSELF, STATUS_SIGNAL + SIGTERM, "it was stopped"},
                 {BY_CRASH, 0, "its guest crashed"},
                 {BY_FAILURE, 0, "KVM_RUN failed"}};
    enum { CASES = sizeof cases / sizeof cases[0] };
    int order[CASES * VCPUS_MAX];
    char expected[100], what[200];

    ends_watch();
    start_guests(VCPUS_MAX, halt, sizeof halt);
    falsified.run = end_as_told;
    capture_stdio();
    capturing = true;
    shuffle(order, CASES * VCPUS_MAX);
    for (int i = 0; i < CASES * VCPUS_MAX; i++) {
        const int id = order[i] % VCPUS_MAX, of = order[i] / VCPUS_MAX;
        memset(ends, 0, sizeof ends);
        ends[id].how = (__typeof__(ends[id].how))cases[of].how;
        ends[id].status = cases[of].status;
        ends[id].words = "one\ntwo";
        run_to_ends();
        snprintf(expected, sizeof expected, "vcpu%d: one\nvcpu%d: two\n", id, id);
        snprintf(what, sizeof what, "\"one\\ntwo\", and then vcpu%d ends, because %s", id,
                 cases[of].why);
        ck_captured(expected, strlen(expected), what);
    }
}
END_TEST

/* ------------------------------------------------------------------ 3.4 the kick */

/* What comes of the signal that vcpu_kick sends; any other pthread_kill is the module's affair. */
static enum {
    SIGNAL_SENT,
    SIGNAL_THEN_ENTRY, /* the vCPU's own thread enters the guest before the kick goes on */
    SIGNAL_COUNTED,    /* nothing */
} kick_signal;
static unsigned kick_signals;             /* but for 0, which pthread_kill does not send */
static struct vcpu *kicked;               /* whose signal is meant; NULL: any vCPU's */
static unsigned signals_to_nobody;        /* to `kicked`, when its thread had ended */
static atomic_uint kicks_seen[VCPUS_MAX]; /* those signals of each of the VMM's vCPUs */
static atomic_bool kick_without_stop;     /* stop_signal was 0 at one of them */

/* The running vCPU of the VMM whose thread this is; -1: none. */
BOTH static int vcpu_of_thread(pthread_t thread)
{
    for (int id = 0; id < VCPUS_MAX; id++)
        if (vmm.vcpus[id].state == VCPU_RUNNING && pthread_equal(thread, vmm.vcpus[id].thread))
            return id;
    return -1;
}

BOTH static bool is_kick(pthread_t thread, int signal)
{
    if (kicked)
        return pthread_equal(thread, kicked->thread);
    const int id = vcpu_of_thread(thread);
    if (id >= 0 && signal != 0) {
        atomic_fetch_add(&kicks_seen[id], 1);
        if (atomic_load(&vmm.stop_signal) == 0)
            atomic_store(&kick_without_stop, true);
    }
    return id >= 0;
}

/* No such signal, no kick: then a test of what comes before it has nothing to judge. */
static void check_kick_seen(int id, const char *when)
{
    ck_assert_msg(atomic_load(&kicks_seen[id]) != 0,
                  "%s, and vcpu%d was not kicked: no signal was sent to its thread, so there is "
                  "no order to judge. vcpu_kick sends it by pthread_kill",
                  when, id);
}

BOTH int pthread_kill(pthread_t thread, int signal)
{
    const bool kick = is_kick(thread, signal);

    if (kick && kick_signal == SIGNAL_COUNTED) {
        kick_signals += signal != 0;
        signals_to_nobody += kicked->state != VCPU_RUNNING;
        return 0;
    }
    int result = REAL(pthread_kill)(thread, signal);
    if (kick && kick_signal == SIGNAL_THEN_ENTRY && pthread_equal(thread, pthread_self()))
        kernel(vmm.vcpus[0].fd, KVM_RUN, NULL);
    return result;
}

/* A stop of all vCPUs arrives just when this one is about to enter the guest. */
BOTH static int kick_before_run(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = &vmm.vcpus[0];

    if (turn == 0) {
        atomic_store(&vmm.stop_signal, SIGTERM);
        vcpu_kick(vcpu);
    }
    return run_really(vcpu);
}

static struct vm kicked_vm;
static struct vcpu kicked_vcpu;

/* A vCPU in this state, whose signals are counted. */
BOTH static void start_kicked(enum vcpu_state in_state)
{
    start_created(&kicked_vm, &kicked_vcpu);
    kicked_vcpu.state = in_state;
    kicked_vcpu.thread = pthread_self();
    kicked = &kicked_vcpu;
    kick_signal = SIGNAL_COUNTED;
    kick_signals = signals_to_nobody = 0;
}

/* The vCPU's thread ends, as vcpu_set_state notes it; from now on it may be joined. */
BOTH static void thread_ends(void)
{
    pthread_mutex_lock(&kicked_vcpu.lock);
    kicked_vcpu.state = VCPU_ENDED;
    pthread_mutex_unlock(&kicked_vcpu.lock);
}

/* A kick in whose gap of this number the thread ends; false: it has no such gap. */
THERE(bool, kick_with_end, (unsigned number), (number))
{
    gaps_begin(&kicked_vcpu.lock, number, thread_ends);
    vcpu_kick(&kicked_vcpu);
    return gaps_end();
}

THERE(bool, kick_flag, (void), ())
{
    return kicked_vcpu.run->immediate_exit != 0;
}

#define KICKS_MAX 600 /* more than a byte counts */

/* So many kicks after the first set immediate_exit, one cleared it; 0: none did. */
THERE(int, kick_that_clears, (void), ())
{
    bool set = false;

    for (int kicks = 1; kicks <= KICKS_MAX; kicks++) {
        vcpu_kick(&kicked_vcpu);
        if (set && !kick_flag())
            return kicks;
        set = kick_flag();
    }
    return 0;
}

#define TURNS_MAX 50 /* of a vCPU that a kick made leave once */

static bool flag_by_kick; /* immediate_exit was set after it */

/* A kick without a reason to stop; then the guest runs to its HLT. */
BOTH static int kick_for_nothing(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = &vmm.vcpus[0];

    if (turn == 0) {
        vcpu_kick(vcpu);
        flag_by_kick = vcpu->run->immediate_exit != 0;
    }
    if (turn < TURNS_MAX)
        return run_really(vcpu);
    vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
    return 0;
}

#define MARK_AT 0x100 /* in the guest's window; the next byte ends it */

static const uint8_t marks[] = {0xc6, 0x06, 0x00, 0x01, 0x01, /* mov byte [MARK_AT], 1 */
                                0x80, 0x3e, 0x01, 0x01, 0x00, /* cmp byte [MARK_AT + 1], 0 */
                                0x74, 0xf9,                   /* je to the cmp */
                                0xf4};                        /* hlt */

static atomic_bool left_guest; /* KVM_RUN has returned */

/* The mark of this vCPU's guest: once it is there, KVM_RUN has looked at immediate_exit. */
BOTH static uint8_t *mark_of(const struct vcpu *vcpu)
{
    return vcpu->vm->ram + (size_t)vcpu->id * WINDOW_BYTES + MARK_AT;
}

BOTH static void await_mark(const struct vcpu *vcpu)
{
    while (!__atomic_load_n(mark_of(vcpu), __ATOMIC_SEQ_CST) && !atomic_load(&left_guest))
        poll(NULL, 0, 1);
}

#define GUEST_MS 2000 /* of CPU time: a guest that still runs after them was not interrupted */

BOTH static long cpu_ms(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

/* Kicks vcpu0 once its guest runs. If that does nothing, the guest is ended. */
BOTH static void *kick_in_guest(void *argument)
{
    await_mark(&vmm.vcpus[0]);
    const long end = cpu_ms() + GUEST_MS;
    vcpu_kick(&vmm.vcpus[0]);
    for (int ms = 0; !atomic_load(&left_guest) && ms < WAIT_MS && cpu_ms() < end; ms++)
        poll(NULL, 0, 1);
    __atomic_store_n(mark_of(&vmm.vcpus[0]) + 1, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* A kick without a reason to stop while the guest runs. */
BOTH static int kicked_in_guest(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = vcpu_in_run();
    pthread_t kicker;

    if (turn > 0)
        return end_in_run(vcpu, BY_HALT);
    atomic_store(&left_guest, false);
    pthread_create(&kicker, NULL, kick_in_guest, NULL);
    const int error = run_really(vcpu);
    atomic_store(&left_guest, true);
    pthread_join(kicker, NULL);
    return error;
}

/* vcpus_run of one vCPU that is kicked just before KVM_RUN; its status. */
static int run_kicked_before(void)
{
    kicked = NULL;
    kick_signal = SIGNAL_SENT;
    run_turns = 0;
    start_guests(1, halt, sizeof halt);
    falsified.run = kick_for_nothing;
    const int status = vcpus_run(&vmm);
    check_threads(1);
    ck_assert_msg(run_turns > 1,
                  "a vCPU is kicked just before KVM_RUN, without a stop, and KVM_RUN runs the "
                  "guest: it must return at once, so that the vCPU checks what it has to do");
    return status;
}

/*
 * The same of one that is kicked while its guest runs. Before each test of an order: a module
 * without kicks, or without threads, has none.
 */
static void check_kick_in_guest(void)
{
    kicked = NULL;
    kick_signal = SIGNAL_SENT;
    run_turns = 0;
    start_guests(1, marks, sizeof marks);
    falsified.run = kicked_in_guest;
    vcpus_run(&vmm);
    check_ran(0);
    check_threads(1);
    ck_assert_msg(run_turns > 1,
                  "a vCPU was kicked while its guest ran, without a stop, and KVM_RUN did not "
                  "return: vcpu_kick must signal the vCPU's thread");
}

/* Not every kick is a stop: what is new may also be an interrupt. */
START_TEST(kick_alone)
{
    run_kicked_before();
    check_kick_in_guest();
}
END_TEST

/* vcpus_run of one vCPU that a stop kicks just before KVM_RUN. */
static void check_stop_before_run(void)
{
    start_guests(1, endless, sizeof endless);
    falsified.run = kick_before_run;
    int status = vcpus_run(&vmm);
    check_threads(1);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM,
                  "a vCPU stopped by SIGTERM gives status %d instead of %d", status,
                  STATUS_SIGNAL + SIGTERM);
}

START_TEST(kick_order)
{
    check_kick_in_guest();
    atomic_store(&kicks_seen[0], 0);
    kick_signal = SIGNAL_THEN_ENTRY;
    run_turns = 0;
    check_stop_before_run();
    check_kick_seen(0, "a stop came just before KVM_RUN");
}
END_TEST

START_TEST(kick)
{
    check_stop_before_run();
    start_kicked(VCPU_RUNNING);
    const int cleared_by = kick_that_clears();
    ck_assert_msg(cleared_by == 0,
                  "a vCPU is kicked %d times before it looks, and run->immediate_exit is 0 again: "
                  "no kick may take another one back",
                  cleared_by);
    const unsigned times = 2 + unit_random() % 8;
    start_kicked(VCPU_RUNNING);
    for (unsigned i = 0; i < times; i++)
        vcpu_kick(&kicked_vcpu);
    ck_assert_msg(kick_signals >= times,
                  "a vCPU is kicked %u times before it looks, and its thread gets %u signals: each "
                  "kick sends one",
                  times, kick_signals);
}
END_TEST

/* Before a test of what else a kick does, or of what takes it back. */
static void check_kick_acts(void)
{
    start_kicked(VCPU_RUNNING);
    vcpu_kick(&kicked_vcpu);
    ck_assert_msg(kick_signals != 0 || kick_flag(),
                  "a vCPU whose state is VCPU_RUNNING was kicked, and vcpu_kick neither set "
                  "immediate_exit nor sent a signal");
}

/* vcpu_check_stop clears nothing: right only if the kick is of another kind, which works. */
static void check_other_kick(void)
{
    ck_assert_msg(!kick_flag(),
                  "vcpu_check_stop of a vCPU that was kicked does not clear run->immediate_exit: "
                  "there is no order to judge");
    run_kicked_before();
    ck_assert_msg(!flag_by_kick && run_turns < TURNS_MAX,
                  "vcpu_check_stop of a vCPU that was kicked does not clear what makes KVM_RUN "
                  "return: there is no order to judge");
    check_kick_in_guest();
}

#define KICK_GAPS_MAX 8

START_TEST(kick_state)
{
    static const struct {
        enum vcpu_state state;
        const char *name;
    } states[] = {{VCPU_CREATED, "VCPU_CREATED"}, {VCPU_ENDED, "VCPU_ENDED"}};
    bool has_gap = true;

    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        start_kicked(states[i].state);
        vcpu_kick(&kicked_vcpu);
        check_unlocked("vcpu_kick");
        ck_assert_msg(signals_to_nobody == 0,
                      "a vCPU whose state is %s was kicked, and vcpu_kick signalled its thread: "
                      "there is none, or it is gone",
                      states[i].name);
        ck_assert_msg(!kick_flag(),
                      "a vCPU whose state is %s was kicked, and vcpu_kick set immediate_exit: "
                      "vcpu->run may not be mapped yet, or no longer",
                      states[i].name);
    }
    check_kick_acts();
    check_unlocked("vcpu_kick");
    check_kick_in_guest();
    for (unsigned number = 0; has_gap && number < KICK_GAPS_MAX; number++) {
        start_kicked(VCPU_RUNNING);
        has_gap = kick_with_end(number);
        check_unlocked("vcpu_kick");
        ck_assert_msg(signals_to_nobody == 0,
                      "the vCPU's thread ended while vcpu_kick ran and did not hold vcpu->lock, "
                      "and vcpu_kick signalled it after that: the lock must be held from the look "
                      "at vcpu->state until the signal is sent");
    }
}
END_TEST

static bool waking; /* vcpu_kick is called */
static bool woken_without_lock;

BOTH static void nothing_happens(void)
{
}

BOTH static void note_wake(void)
{
    woken_without_lock |= waking && gaps_seen == 0;
    end_noticed |= run_fd > 0 && vmm.vcpus[0].state == VCPU_ENDED;
}

BOTH int pthread_cond_signal(pthread_cond_t *condition)
{
    note_wake();
    return REAL(pthread_cond_signal)(condition);
}

BOTH int pthread_cond_broadcast(pthread_cond_t *condition)
{
    note_wake();
    return REAL(pthread_cond_broadcast)(condition);
}

static bool sleeper_asleep, awake; /* guarded by the vCPU's lock */
static bool sleeper_woken;

BOTH static void *sleep_on_wake(void *argument)
{
    struct vcpu *sleeper = argument;

    pthread_mutex_lock(&sleeper->lock);
    for (sleeper_asleep = true; !awake;)
        pthread_cond_wait(&sleeper->wake, &sleeper->lock);
    pthread_mutex_unlock(&sleeper->lock);
    sleeper_woken = true;
    return NULL;
}

/* `kicked_before`: by an earlier kick, which it has not seen yet. */
THERE_VOID(kick_sleeper, (bool kicked_before), (kicked_before))
{
    start_kicked(VCPU_RUNNING);
    if (kicked_before)
        vcpu_kick(&kicked_vcpu);
    sleeper_asleep = awake = sleeper_woken = false;
    pthread_create(&kicked_vcpu.thread, NULL, sleep_on_wake, &kicked_vcpu);
    while (!awake) {
        pthread_mutex_lock(&kicked_vcpu.lock);
        awake = sleeper_asleep;
        pthread_mutex_unlock(&kicked_vcpu.lock);
        sched_yield();
    }
    gaps_begin(&kicked_vcpu.lock, UINT_MAX, nothing_happens); /* they are only counted */
    waking = true;
    vcpu_kick(&kicked_vcpu);
    waking = false;
    gaps_end();
    pthread_join(kicked_vcpu.thread, NULL);
}

START_TEST(kick_wakes)
{
    for (int kicked_before = 0; kicked_before <= 1; kicked_before++) {
        kick_sleeper(kicked_before);
        ck_assert_msg(sleeper_woken,
                      "a vCPU that sleeps on vcpu->wake was kicked, and still sleeps");
        ck_assert_msg(!woken_without_lock,
                      "vcpu_kick signals vcpu->wake and has not taken vcpu->lock: a vCPU that has "
                      "looked for work and does not sleep yet, which it does under that lock, "
                      "misses it");
    }
}
END_TEST

static struct kvm_run *watched; /* a page that can't be written */
static bool cleared, fenced;    /* immediate_exit; and no later read can come before that */

BOTH static bool is_fence(const uint8_t *code)
{
    return is_atomic(code) || memcmp(code, "\x0f\xae\xf0", 3) == 0; /* MFENCE */
}

BOTH UNWATCHED static void fence_step(int signal, siginfo_t *info, void *context)
{
    fenced |= is_fence(next_instruction(context));
}

/* The module is about to clear immediate_exit; just before that comes a stop, and its kick. */
BOTH UNWATCHED static void stop_before_store(int signal, siginfo_t *info, void *context)
{
    ucontext_t *user = context;

    if ((uintptr_t)info->si_addr - (uintptr_t)watched >= PAGE_BYTES)
        return; /* and crash: a mistake of another kind */
    mprotect(watched, PAGE_BYTES, PROT_READ | PROT_WRITE);
    atomic_store(&vmm.stop_signal, SIGTERM);
    watched->immediate_exit = 1;
    cleared = true;
    fenced = is_fence(next_instruction(user));
    user->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* `kicked_before`: by an earlier kick, for another reason. */
THERE(bool, stop_is_lost, (bool kicked_before), (kicked_before))
{
    struct sigaction fault = {.sa_sigaction = stop_before_store,
                              .sa_flags = SA_SIGINFO | (int)SA_RESETHAND};
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    atomic_store(&vmm.stop_signal, 0);
    watched = (struct kvm_run *)syscall(SYS_mmap, NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1L, 0L);
    watched->immediate_exit = kicked_before;
    mprotect(watched, PAGE_BYTES, PROT_READ);
    sigaction(SIGSEGV, &fault, NULL);
    step_handle(fence_step);
    vcpu.run = watched;
    enum step step = vcpu_check_stop(&vcpu);
    steps_end();
    bool stopped = atomic_load(&vmm.stop_signal) != 0;
    return stopped && step != STEP_END && !watched->immediate_exit;
}

#define FILLING 0xa5

static bool kick_left; /* it did not clear immediate_exit */

/* vcpu_check_stop of a kicked vCPU changes something else in kvm_run. */
THERE(bool, run_is_changed, (void), ())
{
    static uint8_t page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    struct kvm_run *run = (struct kvm_run *)page;
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    memset(page, FILLING, sizeof page);
    run->immediate_exit = 1;
    vcpu.run = run;
    if (vcpu_check_stop(&vcpu) != STEP_RUN)
        return true;
    kick_left = run->immediate_exit != 0;
    for (size_t i = 0; i < sizeof page; i++)
        if (page[i] != FILLING && &page[i] != &run->immediate_exit)
            return true;
    return false;
}

/* `was_kicked`: if not, the vCPU was not running yet when the stop came. */
THERE(bool, stop_is_seen, (bool was_kicked), (was_kicked))
{
    static struct kvm_run run;
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    atomic_store(&vmm.stop_signal, SIGTERM);
    run.immediate_exit = was_kicked;
    vcpu.run = &run;
    return vcpu_check_stop(&vcpu) == STEP_END;
}

START_TEST(check_order)
{
    check_kick_acts();
    ck_assert_msg(!run_is_changed(),
                  "vcpu_check_stop of a vCPU that was kicked, and must not stop, changes more of "
                  "kvm_run than immediate_exit, or ends the vCPU");
    const bool must_clear = !kick_left; /* another kind of kick has nothing there to clear */
    if (!must_clear)
        check_other_kick();
    ck_assert_msg(stop_is_seen(true),
                  "a stop and its kick came before vcpu_check_stop, and the vCPU was not ended");
    ck_assert_msg(stop_is_seen(false),
                  "a stop came before the vCPU was running, so that nothing kicked it, and "
                  "vcpu_check_stop did not end it: stop_signal counts, with or without a kick");
    for (int kicked_before = 1; kicked_before >= 0; kicked_before--) {
        ck_assert_msg(!stop_is_lost(kicked_before),
                      "a stop came just before vcpu_check_stop cleared run->immediate_exit, and it "
                      "was lost: clear first, and only then look at stop_signal");
        ck_assert_msg(!must_clear || cleared,
                      "vcpu_check_stop of a vCPU that was kicked did not store 0 in "
                      "run->immediate_exit: __atomic_store_n does");
    }
    ck_assert_msg(!cleared || fenced,
                  "vcpu_check_stop clears run->immediate_exit by a store without __ATOMIC_SEQ_CST "
                  "(a plain one, or __ATOMIC_RELEASE): the processor may read stop_signal before "
                  "others see that store, and a stop between the two is lost");
}
END_TEST

START_TEST(kick_taken_back)
{
    check_kick_in_guest();
    int status = run_kicked_before();
    ck_assert_msg(
        run_turns < TURNS_MAX,
        "one kick, and from then on KVM_RUN returns at once for ever: vcpu_check_stop must "
        "clear run->immediate_exit");
    ck_assert_msg(status == 0, "a vCPU that was kicked and then halted gives status %d", status);
    check_ran(0);
}
END_TEST

/* A person ends the VMM once all guests run. */
BOTH static void *stop_in_guests(void *argument)
{
    for (int id = 0; id < vmm.guest_count; id++)
        await_mark(&vmm.vcpus[id]);
    kill(getpid(), SIGTERM);
    return NULL;
}

/* The guests run until they are kicked: their vCPUs have looked for a stop already. */
BOTH static int stopped_in_guest(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = vcpu_in_run();
    const bool starts_person = end_of(vcpu)->turns++ == 0 && vcpu == &vmm.vcpus[0];
    pthread_t person;

    if (atomic_load(&kick_without_stop))
        return end_in_run(vcpu, BY_HALT); /* it has missed the stop, and would run forever */
    if (starts_person)
        pthread_create(&person, NULL, stop_in_guests, NULL);
    const int error = run_really(vcpu);
    atomic_store(&left_guest, true);
    if (starts_person)
        pthread_join(person, NULL);
    return error;
}

/* vcpus_run of so many guests, which SIGTERM stops by kicks. */
static void check_stop_in_guests(int count)
{
    start_guests(count, marks, sizeof marks);
    falsified.run = stopped_in_guest;
    int status = vcpus_run(&vmm);
    check_threads(count);
    for (int id = 0; id < count; id++) {
        check_ran(id);
        check_kick_seen(id, "SIGTERM came while the guest ran");
    }
    ck_assert_msg(!atomic_load(&kick_without_stop),
                  "SIGTERM came, and when a vCPU was kicked, vmm->stop_signal was still 0: set "
                  "stop_signal first, then kick");
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM, "SIGTERM gives status %d instead of %d",
                  status, STATUS_SIGNAL + SIGTERM);
}

START_TEST(stop_order)
{
    ends_watch();
    check_stop_in_guests(1);
    check_end(0, "the VMM stopped");
}
END_TEST

/* What a vCPU does around a stop. */
static enum role {
    ENDS_BEFORE, /* by itself */
    STOPS,       /* sends the signal, and ends by itself when the stop is under way */
    CRASHES,     /* at that time */
    IS_STOPPED,  /* leaves KVM_RUN then, as if it was kicked, and looks */
    ROLES
} roles[VCPUS_MAX];
static int ends_first; /* the vCPU that ENDS_BEFORE */

/* The first has ended, and each other one has called KVM_RUN: it found no stop before that. */
BOTH static bool stop_may_come(void)
{
    for (int id = 0; id < VCPUS_MAX; id++)
        if (ends[id].turns == 0)
            return false;
    return ends[ends_first].told != 0 ||
           __atomic_load_n(&vmm.vcpus[ends_first].state, __ATOMIC_SEQ_CST) == VCPU_ENDED;
}

BOTH static int act_around_stop(struct kvm_run *run, unsigned turn)
{
    struct vcpu *vcpu = vcpu_in_run();
    const enum role role = roles[vcpu - vmm.vcpus];
    const unsigned turns = end_of(vcpu)->turns++;

    note_vcpu(vcpu);
    if (role == ENDS_BEFORE)
        return end_in_run(vcpu, BY_ITSELF);
    for (int ms = 0; !stop_may_come() && ms < WAIT_MS; ms++)
        poll(NULL, 0, 1);
    if (role == STOPS)
        kill(getpid(), SIGTERM);
    for (int ms = 0; atomic_load(&vmm.stop_signal) == 0 && ms < WAIT_MS; ms++)
        poll(NULL, 0, 1);
    if (role == IS_STOPPED && turns < TURNS_MAX)
        return EINTR;
    return end_in_run(vcpu, role == STOPS ? BY_ITSELF : BY_CRASH);
}

BOTH static int end_in_guest(struct kvm_run *run, unsigned turn)
{
    return end_in_run(vcpu_in_run(), BY_ITSELF);
}

static atomic_bool late_stop;            /* SIGTERM was sent */
static atomic_bool late_seen[VCPUS_MAX]; /* the VMM stopped while this thread was about to run */

/* A vCPU's thread that is about to enter VCPU_RUNNING waits until the VMM stops: no kick comes. */
BOTH static void start_late(const pthread_mutex_t *lock)
{
    for (int id = 0; id < VCPUS_MAX; id++) {
        const struct vcpu *vcpu = &vmm.vcpus[id];
        if (lock != &vcpu->lock || vcpu->state != VCPU_CREATED || syscall(SYS_gettid) == getpid() ||
            atomic_load(&late_seen[id]))
            continue;
        if (!atomic_exchange(&late_stop, true))
            kill(getpid(), SIGTERM);
        for (int ms = 0; atomic_load(&vmm.stop_signal) == 0 && ms < WAIT_MS; ms++)
            poll(NULL, 0, 1);
        atomic_store(&late_seen[id], atomic_load(&vmm.stop_signal) != 0);
    }
}

THERE_VOID(late_watch, (bool on), (on))
{
    after_lock = on ? start_late : NULL;
}

static void check_late_threads(void)
{
    falsified.run = end_in_guest;
    atomic_store(&vmm.stop_signal, 0);
    for (int id = 0; id < VCPUS_MAX; id++)
        ends[id] = (struct end){.status = 1};
    late_watch(true);
    const int status = run_to_ends();
    late_watch(false);
    for (int id = 0; id < VCPUS_MAX; id++)
        ck_assert_msg(!atomic_load(&late_seen[id]) ||
                          vmm.vcpus[id].status == STATUS_SIGNAL + SIGTERM,
                      "vcpu%d's thread starts when SIGTERM has stopped the VMM, and its status is "
                      "%d instead of %d: vcpu_run begins with a look at stop_signal, and it alone "
                      "gives the status",
                      id, vmm.vcpus[id].status, STATUS_SIGNAL + SIGTERM);
    ck_assert_msg(!atomic_load(&late_stop) || status == STATUS_SIGNAL + SIGTERM,
                  "SIGTERM stops the VMM before its guests run, and vcpus_run returns %d", status);
}

START_TEST(own_status)
{
    static const char *const names[] = {
        "ended by itself before the VMM stopped",
        "ended by itself when the VMM stopped, and had not seen it yet",
        "crashed when the VMM stopped, and had not seen it yet", "was stopped by SIGTERM"};
    int order[ROLES];

    ends_watch();
    start_guests(VCPUS_MAX, endless, sizeof endless);
    falsified.run = act_around_stop;
    shuffle(order, ROLES);
    for (int turn = 0; turn <= ROLES; turn++) { /* in the last one no vCPU sees the stop */
        const int own = 1 + (int)(unit_random() % STATUS_GUEST_MAX);
        const int expected[] = {own, own, STATUS_CRASHED, STATUS_SIGNAL + SIGTERM};
        const int worst = expected[turn < ROLES ? IS_STOPPED : CRASHES];
        int now[VCPUS_MAX]; /* the judge's own copy */
        atomic_store(&vmm.stop_signal, 0);
        for (int id = 0; id < VCPUS_MAX; id++) {
            now[id] = order[(id + turn) % ROLES];
            now[id] = now[id] == IS_STOPPED && turn == ROLES ? CRASHES : now[id];
            ends[id] = (struct end){.status = own};
            roles[id] = (enum role)now[id];
            ends_first = now[id] == ENDS_BEFORE ? id : ends_first;
        }
        const int status = run_to_ends();
        check_threads(VCPUS_MAX);
        ck_assert_msg(status == worst,
                      "SIGTERM stops the VMM while its guests end, and vcpus_run returns %d "
                      "instead of %d, the highest of their statuses",
                      status, worst);
        for (int id = 0; id < VCPUS_MAX; id++) {
            const int role = now[id];
            ck_assert_msg(vmm.vcpus[id].status == expected[role],
                          "vcpu%d %s, and its status is %d instead of %d", id, names[role],
                          vmm.vcpus[id].status, expected[role]);
        }
    }
    check_late_threads();
}
END_TEST

/* ------------------------------------------------------------------ 3.5 isolation */

START_TEST(own_vms)
{
    int order[VCPUS_MAX];

    shuffle(order, VCPUS_MAX);
    for (int i = 0; i < VCPUS_MAX; i++) {
        const int count = 1 + order[i];
        start_guests(count, halt, sizeof halt);
        falsified.run = run_and_note;
        vmm.options.isolate = true;
        vcpus_run(&vmm);
        ck_assert_msg(vmm.vm_count == count,
                      "with --isolate %d guests need a VM each: vm_count is %d", count,
                      vmm.vm_count);
        for (int id = 0; id < count; id++) {
            const struct vcpu *vcpu = &vmm.vcpus[id];
            ck_assert_msg(vcpu->vm == &vmm.vms[id],
                          "with --isolate guest %d does not run in vms[%d]", id, id);
            ck_assert_msg(vcpu->id == id && vcpu->index == 0,
                          "with --isolate guest %d has id %d and index %d: it is vCPU 0 of its VM, "
                          "and keeps its place on the command line",
                          id, vcpu->id, vcpu->index);
            check_ran(id);
        }
    }
}
END_TEST

START_TEST(stop_isolated)
{
    vmm.options.isolate = true;
    check_stop_in_guests(2);
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
    unit_add(suite, "highest", highest);
    unit_add(suite, "end_signalled_last", end_signalled_last);
    unit_add(suite, "no_thread", no_thread);
    unit_add(suite, "lines", lines);
    unit_add(suite, "any_bytes", any_bytes);
    unit_add(suite, "full_line", full_line);
    unit_add(suite, "collects", collects);
    unit_add(suite, "ends_unfinished", ends_unfinished);
    unit_add(suite, "kick", kick);
    unit_add(suite, "kick_alone", kick_alone);
    unit_add(suite, "kick_order", kick_order);
    unit_add(suite, "kick_state", kick_state);
    unit_add(suite, "kick_wakes", kick_wakes);
    unit_add(suite, "check_order", check_order);
    unit_add(suite, "kick_taken_back", kick_taken_back);
    unit_add(suite, "stop_order", stop_order);
    unit_add(suite, "own_status", own_status);
    unit_add(suite, "stop_isolated", stop_isolated);
    unit_add(suite, "own_vms", own_vms);
    return unit_main(suite);
}
