/* vcpus.c - lab 3's module function by function: windows, the console, the kick. */
#define _GNU_SOURCE /* fopencookie */
#include "unit.h"

#include <dlfcn.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>

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
    static uint8_t image[3000];
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
    if (!capturing || fd != STDOUT_FILENO)
        return syscall(SYS_write, fd, bytes, count);
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
static char texts[VCPUS_MAX][32];

static void *print_lines(void *argument)
{
    struct vcpu *vcpu = argument;

    for (int line = 0; line < LINES; line++) {
        for (const char *text = texts[vcpu->id]; *text; text++)
            console_write_lines(vcpu, text, 1);
        console_write_lines(vcpu, "\n", 1);
    }
    console_finish(vcpu);
    return NULL;
}

START_TEST(lines)
{
    pthread_t threads[VCPUS_MAX];
    int seen[VCPUS_MAX] = {0};

    vmm.guest_count = VCPUS_MAX;
    vm_init(&console_vm, &vmm);
    for (int id = 0; id < VCPUS_MAX; id++) {
        snprintf(texts[id], sizeof texts[id], "%c%u%u", 'a' + id, unit_random(), unit_random());
        vcpu_init(&console_vcpus[id], id, id, &console_vm, &guest);
    }
    capture_stdio();
    capturing = true;
    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_create(&threads[id], NULL, print_lines, &console_vcpus[id]);
    for (int id = 0; id < VCPUS_MAX; id++)
        pthread_join(threads[id], NULL);
    capturing = false;
    for (char *rest = captured, *line; (line = strsep(&rest, "\n")) != NULL && rest != NULL;) {
        bool whole = false;
        for (int id = 0; id < VCPUS_MAX; id++) {
            char expected[64];
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

/* ------------------------------------------------------------------ 3.4 the kick */

static uint8_t endless[] = {0xeb, 0xfe}; /* jmp $ */

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
    vmm.options.ram_bytes = 1 << 20;
    vmm.guest_count = 1;
    vmm.guests[0] = (struct guest){"endless", GUEST_REAL, endless, sizeof endless};
    falsified.run = kick_before_run;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM,
                  "a vCPU stopped by SIGTERM gives status %d instead of %d", status,
                  STATUS_SIGNAL + SIGTERM);
}
END_TEST

static uint8_t halt[] = {0xf4};

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
    vmm.options.ram_bytes = 1 << 20;
    vmm.guest_count = 1;
    vmm.guests[0] = (struct guest){"halt", GUEST_REAL, halt, sizeof halt};
    falsified.run = kick_for_nothing;
    int status = vcpus_run(&vmm);
    ck_assert_msg(
        run_turns < TURNS_MAX,
        "one kick, and from then on KVM_RUN returns at once for ever: vcpu_check_stop must "
        "clear run->immediate_exit");
    ck_assert_msg(status == 0, "a vCPU that was kicked and then halted gives status %d", status);
}
END_TEST

static bool slow_kick;

/* The kick's signal; then, if asked for, a moment in which the vCPU can look at what was set. */
int pthread_kill(pthread_t thread, int signal)
{
    int (*real)(pthread_t, int) = (int (*)(pthread_t, int))dlsym(RTLD_NEXT, "pthread_kill");
    int result = real(thread, signal);

    if (slow_kick)
        poll(NULL, 0, 300);
    return result;
}

/* A person ends the VMM while the guest runs. */
static int stopped_by_signal(struct kvm_run *run, unsigned turn)
{
    if (turn == 0)
        kill(getpid(), SIGTERM);
    return kernel(vmm.vcpus[0].fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

START_TEST(stop_order)
{
    vmm.options.ram_bytes = 1 << 20;
    vmm.guest_count = 1;
    vmm.guests[0] = (struct guest){"endless", GUEST_REAL, endless, sizeof endless};
    falsified.run = stopped_by_signal;
    slow_kick = true;
    int status = vcpus_run(&vmm);
    ck_assert_msg(status == STATUS_SIGNAL + SIGTERM, "SIGTERM gives status %d instead of %d",
                  status, STATUS_SIGNAL + SIGTERM);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpus");

    unit_add(suite, "bases", bases);
    unit_add(suite, "prepare", prepare);
    unit_add(suite, "lines", lines);
    unit_add(suite, "kick", kick);
    unit_add(suite, "kick_taken_back", kick_taken_back);
    unit_add(suite, "stop_order", stop_order);
    return unit_main(suite);
}
