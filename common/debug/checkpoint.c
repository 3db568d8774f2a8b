/*
 * checkpoint.c - a vCPU's state and RAM at its last entry, to return to after a crash. KVM's dirty
 * log says which pages to copy (api.rst 4.8 KVM_GET_DIRTY_LOG).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "debug/replay.h"
#include "given.h"

#define NEAR_NS    30000                    /* from the last checkpoint to the crash */
#define ADVANCE_NS (5 * (int64_t)SECOND_NS) /* to get that near */
#define DIRTY_BITS 64                       /* pages per word of KVM's dirty log */

#define PAGEMAP_STATE 62 /* the highest two bits: the page is present, or swapped */

struct watched watched[VCPUS_MAX];

static size_t dirty_words(const struct vm *vm)
{
    size_t pages = vm->ram_bytes / PAGE_BYTES;

    return (pages + DIRTY_BITS - 1) / DIRTY_BITS;
}

/* A learner's region may differ from this one: then it can't be changed. */
static void log_dirty_pages(const struct vm *vm)
{
    struct kvm_userspace_memory_region region = {
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .memory_size = vm->ram_bytes,
        .userspace_addr = (uintptr_t)vm->ram,
    };

    ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/*
 * Adds the pages that were written since the last call to those of each vCPU of the VM; without a
 * log, all pages.
 */
static void dirty_collect(const struct vm *vm)
{
    size_t words = dirty_words(vm);
    uint64_t *bitmap = calloc(words, sizeof *bitmap);
    struct kvm_dirty_log log = {.dirty_bitmap = bitmap};

    if (!bitmap)
        exit(fail(STATUS_NO_KVM, "--explain: %s", strerror(errno)));
    if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0)
        memset(bitmap, 0xff, words * sizeof *bitmap);
    for (size_t id = 0; id < VCPUS_MAX; id++)
        for (size_t i = 0; watched[id].vcpu && watched[id].vcpu->vm == vm && i < words; i++) {
            watched[id].checkpoint.dirty[i] |= bitmap[i];
            watched[id].checkpoint.written[i] |= bitmap[i];
        }
    free(bitmap);
}

bool page_is_in(const uint64_t *bitmap, size_t page)
{
    return bitmap[page / DIRTY_BITS] >> page % DIRTY_BITS & 1;
}

/* The pages of RAM that this process has: Documentation/admin-guide/mm/pagemap.rst. */
static void present_collect(const struct vm *vm, uint64_t *bitmap)
{
    const size_t pages = vm->ram_bytes / PAGE_BYTES;
    const uintptr_t first = (uintptr_t)vm->ram / PAGE_BYTES;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry[DIRTY_BITS];

    for (size_t i = 0; i < dirty_words(vm); i++) {
        if (pread(fd, entry, sizeof entry, (off_t)((first + i * DIRTY_BITS) * sizeof entry[0])) !=
            (ssize_t)sizeof entry)
            memset(entry, 0xff, sizeof entry);
        for (size_t bit = 0; bit < DIRTY_BITS && i * DIRTY_BITS + bit < pages; bit++)
            bitmap[i] |= (uint64_t)(entry[bit] >> PAGEMAP_STATE != 0) << bit;
    }
    close(fd);
}

/*
 * A page, while the thread of another vCPU may still load its guest into it. What is copied of that
 * is not used: this vCPU's guest has pages of its own, and ram_return gives the other its own back.
 */
__attribute__((no_sanitize("thread"))) static void page_copy(void *to, const void *from)
{
    const volatile uint64_t *words = from;
    uint64_t *copy = to;

    for (size_t i = 0; i < PAGE_BYTES / sizeof *words; i++)
        copy[i] = words[i];
}

/* Copies the pages that may differ, from the VM's RAM to the checkpoint or back. */
static void ram_copy(const struct vm *vm, struct checkpoint *checkpoint, bool back)
{
    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES; page++) {
        uint64_t *word = &checkpoint->dirty[page / DIRTY_BITS];
        uint8_t *ram = vm->ram + page * PAGE_BYTES, *copy = checkpoint->ram + page * PAGE_BYTES;
        if (page_is_in(checkpoint->dirty, page))
            page_copy(back ? ram : copy, back ? copy : ram);
        else if (*word == 0)
            page |= DIRTY_BITS - 1;
    }
    memset(checkpoint->dirty, 0, dirty_words(vm) * sizeof checkpoint->dirty[0]);
}

void checkpoint_take(struct vcpu *vcpu)
{
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;

    checkpoint->taken = ioctl(vcpu->fd, KVM_GET_REGS, &checkpoint->regs) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_SREGS, &checkpoint->sregs) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_FPU, &checkpoint->fpu) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &checkpoint->events) == 0;
    dirty_collect(vcpu->vm);
    ram_copy(vcpu->vm, checkpoint, false);
}

void immediate_exit_set(struct vcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

void exit_finish(struct vcpu *vcpu)
{
    immediate_exit_set(vcpu, 1);
    ioctl(vcpu->fd, KVM_RUN, 0);
    immediate_exit_set(vcpu, 0);
}

bool checkpoint_restore(struct vcpu *vcpu)
{
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    struct kvm_sregs other = checkpoint->sregs;

    /* On AMD's processors a shutdown clears where KVM's own page tables are, and without paging KVM
     * does not set it again: the guest never gets past its first instruction. A change of CR3 sets
     * it. */
    other.cr3 ^= PAGE_BYTES;
    exit_finish(vcpu); /* it would change the registers */
    dirty_collect(vcpu->vm);
    ram_copy(vcpu->vm, checkpoint, true);
    return sregs_restore(vcpu, &other) && sregs_restore(vcpu, &checkpoint->sregs) &&
           ioctl(vcpu->fd, KVM_SET_REGS, &checkpoint->regs) == 0 &&
           ioctl(vcpu->fd, KVM_SET_FPU, &checkpoint->fpu) == 0 &&
           ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &checkpoint->events) == 0;
}

/* Copies all pages of RAM that this process has. */
static void present_copy(const struct vm *vm, uint8_t *to, const uint8_t *from)
{
    uint64_t *present = calloc(dirty_words(vm), sizeof *present);

    if (!present)
        exit(fail(STATUS_NO_KVM, "--explain: %s", strerror(errno)));
    present_collect(vm, present);
    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES; page++)
        if (page_is_in(present, page))
            page_copy(to + page * PAGE_BYTES, from + page * PAGE_BYTES);
    free(present);
}

uint8_t *ram_keep(const struct vm *vm)
{
    uint8_t *kept = calloc(1, vm->ram_bytes);

    if (!kept)
        exit(fail(STATUS_NO_KVM, "--explain: %s", strerror(errno)));
    present_copy(vm, kept, vm->ram);
    return kept;
}

void ram_return(const struct vm *vm, uint8_t *kept)
{
    present_copy(vm, vm->ram, kept);
    free(kept);
}

int64_t clock_ns(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return time.tv_sec * (int64_t)SECOND_NS + time.tv_nsec;
}

_Thread_local volatile sig_atomic_t tick_over;

/* The signal also interrupts KVM_RUN. */
static void tick_handler(int signal)
{
    tick_over = 1;
}

void tick_arm(const struct watched *watch, long nanoseconds)
{
    const struct itimerspec time = {.it_value = {nanoseconds / SECOND_NS, nanoseconds % SECOND_NS}};

    tick_over = 0;
    timer_settime(watch->timer, 0, &time, NULL);
}

void watch_start(struct watched *watch, struct vcpu *vcpu)
{
    const struct vm *vm = vcpu->vm;
    struct sigaction action = {.sa_handler = tick_handler};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct checkpoint *checkpoint = &watch->checkpoint;

    sigaction(SIGRTMIN, &action, NULL);
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    checkpoint->ram = calloc(1, vm->ram_bytes);
    checkpoint->dirty = calloc(dirty_words(vm), sizeof checkpoint->dirty[0]);
    checkpoint->written = calloc(dirty_words(vm), sizeof checkpoint->written[0]);
    log_dirty_pages(vm);
    if (!checkpoint->ram || !checkpoint->dirty || !checkpoint->written ||
        timer_create(CLOCK_MONOTONIC, &event, &watch->timer) < 0)
        exit(fail(STATUS_NO_KVM, "--explain: %s", strerror(errno)));
    present_collect(vm, checkpoint->dirty);
    memcpy(checkpoint->written, checkpoint->dirty, dirty_words(vm) * sizeof checkpoint->dirty[0]);
    watch->waited = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    watch->thread = pthread_self();
    watch->vcpu = vcpu;
}

/*
 * Too long a time ends in the crash, too short a one before the guest has executed anything. An
 * emulated processor is interrupted late, but each time at another place.
 */
bool checkpoint_advance(struct vcpu *vcpu, int64_t deadline)
{
    const struct kvm_guest_debug debug = {.control = 0};
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    const int64_t first = clock_ns(CLOCK_MONOTONIC);
    int64_t start = first;
    bool near = false;

    if (ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug) < 0)
        return false;
    for (long wait = TICK_NS; !near && start - first < ADVANCE_NS;) {
        if (start > deadline || !checkpoint_restore(vcpu))
            return false;
        struct kvm_regs before = checkpoint->regs;
        immediate_exit_set(vcpu, 0);
        start = clock_ns(CLOCK_MONOTONIC);
        tick_arm(&watched[vcpu->id], wait);
        int result = ioctl(vcpu->fd, KVM_RUN, 0);
        tick_arm(&watched[vcpu->id], 0);
        if (result < 0 && errno != EINTR)
            return false;
        if (result == 0) {
            near = clock_ns(CLOCK_MONOTONIC) - start < NEAR_NS;
            wait -= wait / 4;
            continue;
        }
        checkpoint_take(vcpu);
        if (memcmp(&before, &checkpoint->regs, sizeof before) == 0 && wait < TICK_NS)
            wait += wait / 4 + 1;
    }
    return true;
}
