/*
 * unit.h - what the grader's unit programs have in common: a Check program for each lab, linked
 * with the learner's module. Each test case (TCase) is one graded test; its name is what the grader
 * asks for, its assertions' messages are what the learner reads.
 *
 * The functions below stand between the module and the kernel: they record what the module asks of
 * KVM, and let a test have a call fail or answer what a healthy KVM never answers. All else goes to
 * the real KVM. They take the place of the C library's functions because the linker finds them
 * first.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apart.h"
#include "given.h"

#define CALLS_MAX 4096

/* A call that the module made. */
struct call {
    int fd;
    unsigned long request;
    unsigned long argument;
    long result;
    struct kvm_userspace_memory_region region; /* of KVM_SET_USER_MEMORY_REGION */
    uint64_t address;                          /* of KVM_SET_IDENTITY_MAP_ADDR */
    uint32_t irq;                              /* of KVM_INTERRUPT */
};

/* What the module's next calls meet. Zero: the real kernel. */
struct falsified {
    unsigned long request;  /* this ioctl ... */
    unsigned long argument; /* ... with this argument, if not 0 ... */
    bool answered;          /* ... is answered `answer`, if true ... */
    int answer;
    int stale;      /* ... with this errno, of an earlier call, if not 0 */
    int error;      /* ... fails with this errno, if not 0 */
    int open_error; /* open of /dev/kvm fails with this errno */
    int mmap_error; /* mmap fails with this errno */
    /* Takes the place of KVM_RUN: fills *run and returns 0, or an errno. */
    int (*run)(struct kvm_run *run, unsigned turn);
    struct kvm_run *kvm_run;
};

static struct falsified falsified;
static atomic_uint falsified_calls; /* that have met it, but for `run` */
static struct call calls[CALLS_MAX];
static size_t call_count;
static atomic_uint run_turns;    /* KVM_RUN so far */
static _Thread_local int run_fd; /* the vCPU of the latest */
static unsigned bad_closes;      /* close and munmap of what was not there */
static bool opened_writable;     /* /dev/kvm, by its latest open; not created */
static unsigned cpuid_wanted;    /* with fewer entries KVM_GET_SUPPORTED_CPUID also returns E2BIG */
static bool cpuid_too_small;     /* KVM_GET_SUPPORTED_CPUID's table: KVM would write past its end */
static bool cpuid_varied; /* the two CPUID calls are of another machine each time: see cpuid_vary */
static bool cpuid_full;   /* of one with as many leaves as the table has entries: see cpuid_fill */

/* What KVM_GET_SUPPORTED_CPUID gave the module last, and what the module gave a vCPU. */
struct cpuid_entries {
    uint32_t count;
    struct kvm_cpuid_entry2 entries[256];
};
static struct cpuid_entries cpuid_supported, cpuid_set;

BOTH static inline void cpuid_keep(struct cpuid_entries *kept, const struct kvm_cpuid2 *table)
{
    kept->count = table->nent < 256 ? table->nent : 256;
    memcpy(kept->entries, table->entries, kept->count * sizeof kept->entries[0]);
}

/* The latest call of this request, or NULL. */
BOTH static inline const struct call *call_find(unsigned long request)
{
    for (size_t i = call_count; i > 0; i--)
        if (calls[i - 1].request == request)
            return &calls[i - 1];
    return NULL;
}

static _Thread_local bool in_meanwhile; /* this thread's calls are another vCPU's */

BOTH static void call_record(int fd, unsigned long request, void *argument, long result)
{
    if (call_count == CALLS_MAX || in_meanwhile)
        return;
    struct call *call = &calls[call_count++];
    *call = (struct call){fd, request, (unsigned long)argument, result, {0}, 0, 0};
    if (request == KVM_SET_USER_MEMORY_REGION)
        memcpy(&call->region, argument, sizeof call->region);
    else if (request == KVM_SET_IDENTITY_MAP_ADDR)
        memcpy(&call->address, argument, sizeof call->address);
    else if (request == KVM_GET_SUPPORTED_CPUID && result >= 0 && !cpuid_too_small)
        cpuid_keep(&cpuid_supported, argument);
    else if (request == KVM_SET_CPUID2 && result >= 0)
        cpuid_keep(&cpuid_set, argument);
    else if (request == KVM_INTERRUPT)
        call->irq = ((const struct kvm_interrupt *)argument)->irq;
}

/* A failure that the module did not cause. */
BOTH static long failed(int error)
{
    errors_made_up = true;
    errno = error;
    return -1;
}

/* The bytes that malloc gave; SIZE_MAX: unknown, because the memory is not from the heap. */
BOTH static size_t bytes_allocated(void *memory)
{
    extern char _end; /* of the program's data: the heap follows it */

    if ((uintptr_t)memory < (uintptr_t)&_end || (uintptr_t)memory >= (uintptr_t)sbrk(0))
        return SIZE_MAX;
    return malloc_usable_size(memory);
}

/* NULL where the address sanitizer, which has a heap of its own, is not built in. */
void *__asan_region_is_poisoned(void *memory, size_t bytes) __attribute__((weak));

/* Checked before KVM writes: once the heap is broken, nothing can be checked any more. */
BOTH static bool cpuid_fits(struct kvm_cpuid2 *table)
{
    const size_t bytes = sizeof *table + table->nent * sizeof table->entries[0];

    if (__asan_region_is_poisoned)
        return !__asan_region_is_poisoned(table, bytes);
    return bytes_allocated(table) >= bytes;
}

/*
 * What another thread does just before the module's next call of this request, or AFTER it
 * (AT_TRANSLATE: before vcpu_translate). A module that keeps in a static variable what belongs to
 * one vCPU mixes them up.
 */
#define AT_TRANSLATE   1ul
#define AFTER(request) ((request) | 1ul << 32)
static void (*meanwhile)(void);
static unsigned long meanwhile_at;

BOTH static void *meanwhile_thread(void *what)
{
    in_meanwhile = true;
    (*(void (**)(void))what)();
    return NULL;
}

BOTH static inline void meanwhile_run(unsigned long at)
{
    void (*what)(void) = meanwhile;
    pthread_t thread;

    if (!is_module || !what || at != meanwhile_at)
        return;
    meanwhile = NULL;
    if (pthread_create(&thread, NULL, meanwhile_thread, &what) != 0)
        ck_abort_msg("the unit program can't start a thread");
    pthread_join(thread, NULL);
}

/* What a call that failed leaves in the place of its result: random bytes, over and over. */
static PRIVATE uint8_t junk[512];

BOTH static void argument_spoil(unsigned long request, void *argument)
{
    uint8_t *bytes = argument;

    if (_IOC_DIR(request) != _IOC_READ)
        return;
    for (size_t i = 0; i < _IOC_SIZE(request); i++)
        bytes[i] = junk[i % sizeof junk];
}

/* Bits of each leaf that this machine's KVM does not set: all must be passed on, known or not. */
BOTH static void cpuid_vary(struct kvm_cpuid2 *table)
{
    static atomic_uint words;

    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        uint32_t *const registers[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};
        for (size_t k = 0; k < sizeof registers / sizeof registers[0]; k++) {
            const unsigned word = words++ % (sizeof junk / sizeof(uint32_t) - 1);
            uint32_t bits;
            memcpy(&bits, junk + word * sizeof bits + word % 3, sizeof bits);
            *registers[k] ^= bits;
        }
    }
}

#define CPUID_MAX 256u /* entries of a vCPU's table: KVM has room for no more */

/* KVM's table has so many entries, or all that a vCPU can have, and no hypervisor leaf. */
BOTH static void cpuid_fill(struct kvm_cpuid2 *table, uint32_t count)
{
    count = count < CPUID_MAX ? count : CPUID_MAX;
    for (uint32_t i = 0; i < count; i++)
        if (i >= table->nent || table->entries[i].function >> 28 == 4)
            table->entries[i] = (struct kvm_cpuid_entry2){.function = 0x80010000 + i};
    table->nent = count;
}

BOTH int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    long result;

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    meanwhile_run(request);
    bool meant = request == falsified.request &&
                 (!falsified.argument || falsified.argument == (unsigned long)argument);
    if (is_module && request == KVM_RUN && falsified.run) {
        run_fd = fd;
        int error = argument ? EINVAL : falsified.run(falsified.kvm_run, run_turns++);
        result = error ? failed(error) : 0;
    } else if (meant && falsified.error) {
        argument_spoil(request, argument);
        falsified_calls++;
        result = failed(falsified.error);
    } else if (meant && falsified.answered) {
        falsified_calls++;
        errors_made_up = true;
        errno = falsified.stale ? falsified.stale : errno;
        result = falsified.answer;
    } else if (request == KVM_GET_SUPPORTED_CPUID &&
               ((const struct kvm_cpuid2 *)argument)->nent < cpuid_wanted) {
        result = failed(E2BIG);
    } else if (request == KVM_GET_SUPPORTED_CPUID && !cpuid_fits(argument)) {
        cpuid_too_small = true;
        result = 0;
    } else if (request == KVM_SET_CPUID2 && (cpuid_varied || cpuid_full)) {
        result = ((const struct kvm_cpuid2 *)argument)->nent > CPUID_MAX ? failed(E2BIG) : 0;
    } else {
        const uint32_t room =
            request == KVM_GET_SUPPORTED_CPUID ? ((const struct kvm_cpuid2 *)argument)->nent : 0;
        result = syscall(SYS_ioctl, fd, request, argument);
        if (room > 0 && cpuid_full && result >= 0)
            cpuid_fill(argument, room);
        if (room > 0 && cpuid_varied && result >= 0)
            cpuid_vary(argument);
    }
    int error = errno;
    call_record(fd, request, argument, result);
    meanwhile_run(AFTER(request));
    errno = error;
    return (int)result;
}

BOTH static int kvm_or_file_open(int folder, const char *path, int flags, mode_t mode)
{
    if (strcmp(path, "/dev/kvm") == 0) {
        opened_writable = (flags & (O_ACCMODE | O_CREAT)) == O_RDWR;
        if (falsified.open_error) {
            falsified_calls++;
            return (int)failed(falsified.open_error);
        }
    }
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

/* The openats have a descriptor of the folder before the path. */
#define OPEN_LIKE(name, folder, ...)                                                               \
    BOTH int name(__VA_ARGS__ const char *path, int flags, ...)                                    \
    {                                                                                              \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = flags & O_CREAT ? (mode_t)va_arg(arguments, int) : 0;                        \
        va_end(arguments);                                                                         \
        return kvm_or_file_open(folder, path, flags, mode);                                        \
    }

#define COMMA ,
OPEN_LIKE(open, AT_FDCWD)
OPEN_LIKE(open64, AT_FDCWD)
OPEN_LIKE(openat, folder_fd, int folder_fd COMMA)
OPEN_LIKE(openat64, folder_fd, int folder_fd COMMA)

BOTH static void *memory_map(void *address, size_t bytes, int rights, int flags, int fd,
                             off_t offset)
{
    if (falsified.mmap_error) {
        falsified_calls++;
        failed(falsified.mmap_error);
        return MAP_FAILED;
    }
    if (flags & MAP_ANONYMOUS) /* as much RAM as a test asks for, on any machine */
        flags |= MAP_NORESERVE;
    return (void *)syscall(SYS_mmap, address, bytes, rights, flags, fd, offset);
}

BOTH void *mmap(void *address, size_t bytes, int rights, int flags, int fd, off_t offset)
{
    return memory_map(address, bytes, rights, flags, fd, offset);
}

BOTH void *mmap64(void *address, size_t bytes, int rights, int flags, int fd, off_t offset)
{
    return memory_map(address, bytes, rights, flags, fd, offset);
}

BOTH int munmap(void *address, size_t bytes)
{
    int result = (int)syscall(SYS_munmap, address, bytes);

    bad_closes += result < 0 || !address;
    return result;
}

BOTH int close(int fd)
{
    int result = (int)syscall(SYS_close, fd);

    bad_closes += result < 0;
    return result;
}

/* The linker leads calls of stage_before_entry here. */
enum step __real_stage_before_entry(struct vcpu *vcpu);
enum step __wrap_stage_before_entry(struct vcpu *vcpu);

static unsigned entries_asked;
static void (*at_entry)(struct vcpu *vcpu); /* called each time, if not NULL */
static unsigned last_entry;                 /* from this one on, if not 0, the vCPU has to end */

BOTH enum step __wrap_stage_before_entry(struct vcpu *vcpu)
{
    if (is_module && at_entry)
        at_entry(vcpu);
    if (++entries_asked == last_entry)
        return vcpu_end(vcpu, STATUS_GUEST_MAX);
    return __real_stage_before_entry(vcpu);
}

/*
 * And of vcpu_translate: with this set, neighbouring pages are swapped, as paging may map them,
 * and are also in the higher half. Code that translates once and continues from there prints the
 * wrong page.
 */
bool __real_vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out);
bool __wrap_vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out);

static bool pages_swapped;
static bool pages_missing; /* none is mapped */
static bool (*translate_instead)(uint64_t linear,
                                 uint64_t *phys); /* or a test's own, if not NULL */
static unsigned translations;

BOTH bool __wrap_vcpu_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *phys, FILE *out)
{
    meanwhile_run(AT_TRANSLATE);
    translations++;
    if (is_module && translate_instead)
        return translate_instead(linear, phys);
    if (!pages_swapped && !pages_missing)
        return __real_vcpu_translate(vcpu, linear, phys, out);
    *phys = (linear & ~(uint64_t)HIGHER_HALF) ^ PAGE_BYTES;
    return !pages_missing;
}

/* And of these of the C library: with this set, the host has no memory for the module. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

static bool no_memory;
static unsigned memory_refused; /* so many calls */

BOTH static inline bool memory_is_refused(void)
{
    const bool refused = is_module && no_memory;

    memory_refused += refused;
    if (refused)
        failed(ENOMEM);
    return refused;
}

BOTH void *__wrap_malloc(size_t bytes)
{
    return memory_is_refused() ? NULL : __real_malloc(bytes);
}

BOTH void *__wrap_calloc(size_t count, size_t bytes)
{
    return memory_is_refused() ? NULL : __real_calloc(count, bytes);
}

BOTH void *__wrap_realloc(void *memory, size_t bytes)
{
    return memory_is_refused() ? NULL : __real_realloc(memory, bytes);
}

/* Other functions in the stage's table, as later labs have them; it is constant for the module. */
THERE_VOID(stage_set, (const struct stage *changed), (changed), GIVE(*changed))
{
    uintptr_t table = (uintptr_t)&stage;

    __asm__("" : "+r"(table)); /* so that the compiler does not treat it as a constant */
    const uintptr_t start = table & ~(uintptr_t)(PAGE_BYTES - 1);
    ck_assert(mprotect((void *)start, table + sizeof stage - start, PROT_READ | PROT_WRITE) == 0);
    memcpy((void *)table, changed, sizeof *changed);
}

/* ------------------------------------------------------------------ what tests start from */

static struct vmm vmm;
static PRIVATE struct guest guest = {.path = "guest", .kind = GUEST_REAL};

/*
 * The judge's random numbers: XTEA (Needham and Wheeler, 1997) of a count. The module can't
 * compute others from those that it sees.
 */
static inline uint32_t unit_random(void)
{
    static PRIVATE uint32_t count;
    uint32_t left = count++, right = 0, sum = 0;

    for (int cycle = 0; cycle < 32; cycle++) {
        left += (((right << 4) ^ (right >> 5)) + right) ^ (sum + random_key[sum & 3]);
        sum += 0x9e3779b9;
        right += (((left << 4) ^ (left >> 5)) + left) ^ (sum + random_key[sum >> 11 & 3]);
    }
    return left;
}

/*
 * Random bytes: xorshift64 (Marsaglia, 2003), which begins with a random number. Who sees some of
 * these bytes can compute the others of the same place, and nothing else.
 */
static inline void random_fill(void *place, size_t bytes)
{
    uint64_t state = (uint64_t)unit_random() << 32 | unit_random() | 1;
    uint8_t *next = place;

    for (size_t done = 0; done < bytes; done += sizeof(uint32_t)) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const uint32_t four = (uint32_t)(state >> 16);
        memcpy(next + done, &four, bytes - done < sizeof four ? bytes - done : sizeof four);
    }
}

/* The numbers below `count` in a random order. */
static inline void shuffle(int *order, int count)
{
    for (int i = 0; i < count; i++) {
        int other = (int)(unit_random() % (uint32_t)(i + 1));
        order[i] = order[other];
        order[other] = i;
    }
}

/* No call is repeated after one of these, and none's text contains another's. */
static const int unit_errors[] = {EPERM, ENOENT, EIO,    ENXIO,  EBADF,  ENOMEM, EACCES, EFAULT,
                                  EBUSY, EEXIST, EINVAL, EMFILE, ENOTTY, ENOSPC, ENOSYS, EOVERFLOW};

enum { UNIT_ERRORS = sizeof unit_errors / sizeof unit_errors[0] };

/* The error of a call that is made to fail. */
static inline int unit_error(void)
{
    return unit_errors[unit_random() % UNIT_ERRORS];
}

/* A call that met `what` failed with this error: the message has it as the reason, and no other. */
static inline void check_reason(const char *what, int error)
{
    ck_assert_msg(strstr(said, strerror(error)),
                  "%s, and the message does not contain the reason, \"%s\": strerror", what,
                  strerror(error));
    for (int i = 0; i < UNIT_ERRORS; i++)
        ck_assert_msg(unit_errors[i] == error || !strstr(said, strerror(unit_errors[i])),
                      "%s, with \"%s\", and the message has \"%s\"", what, strerror(error),
                      strerror(unit_errors[i]));
}

/* What a function returns, and says, where malloc and calloc return NULL: it may do without them.
 */
static inline void check_memory_refused(const char *function, int status)
{
    ck_assert_msg(status == (memory_refused ? STATUS_NO_KVM : 0),
                  "malloc and calloc return NULL, which they did %u times, and %s returns %d",
                  memory_refused, function, status);
    ck_assert_msg(status == 0 || said[0] != '\0',
                  "calloc returned NULL, and %s said nothing: fail() says it", function);
}

/* Their seed comes from the grader. No process that is forked off finds it in its environment. */
static inline void unit_random_begin(void)
{
    char *seed = getenv("UNIT_SEED");

    if (seed) {
        sscanf(seed, "%8x%8x%8x%8x", random_key, random_key + 1, random_key + 2, random_key + 3);
        explicit_bzero(seed, strlen(seed));
    }
    random_fill(junk, sizeof junk);
}

/* A VM and its vCPU with nothing created yet. */
BOTH static inline void start_empty(struct vm *vm, struct vcpu *vcpu)
{
    vmm.guest_count = 1;
    vmm.vm_count = 1;
    vmm.options.ram_bytes = 1 << 20;
    vm_init(vm, &vmm);
    vcpu_init(vcpu, 0, 0, vm, &guest);
}

/* What `argument` leads to, if the request says so. */
BOTH static inline void see_argument(unsigned long request, void *argument)
{
    if (_IOC_DIR(request))
        call_see(argument, _IOC_SIZE(request));
}

/* The real calls that tests make for themselves: not recorded, never falsified. */
THERE(long, kernel, (int fd, unsigned long request, void *argument), (fd, request, argument),
      see_argument(request, argument))
{
    return syscall(SYS_ioctl, fd, request, argument);
}

THERE(int, kvm_device, (void), ())
{
    return (int)syscall(SYS_openat, AT_FDCWD, "/dev/kvm", O_RDWR | O_CLOEXEC);
}

/* kvm_run of this vCPU, in the place of what is at `address`. */
THERE(bool, run_map, (void *address, size_t bytes, int fd), (address, bytes, fd))
{
    return syscall(SYS_mmap, address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                   0L) == (long)address;
}

/*
 * A VM with 1 MB of RAM and no vCPU, made without the module. 0L: syscall takes longs, and of an
 * int on the stack the upper half may be anything.
 */
BOTH static inline void start_vm(struct vm *vm, struct vcpu *vcpu)
{
    start_empty(vm, vcpu);
    vm->kvm_fd = kvm_device();
    vm->fd = (int)kernel(vm->kvm_fd, KVM_CREATE_VM, NULL);
    kernel(vm->fd, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul);
    vm->ram_bytes = 1 << 20;
    vm->ram = memory_for_both(vm->ram_bytes);
    struct kvm_userspace_memory_region region = {.memory_size = vm->ram_bytes,
                                                 .userspace_addr = (uintptr_t)vm->ram};
    ck_assert_msg(kernel(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) == 0,
                  "the grader's own VM could not be created: see make doctor");
}

/* The same with its vCPU, for what comes after 1.3. */
BOTH static inline void start_created(struct vm *vm, struct vcpu *vcpu)
{
    start_vm(vm, vcpu);
    vcpu->fd = (int)kernel(vm->fd, KVM_CREATE_VCPU, NULL);
    vcpu->run_bytes = (size_t)kernel(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    vcpu->run = memory_for_both(vcpu->run_bytes);
    ck_assert_msg(vcpu->fd >= 0 && run_map(vcpu->run, vcpu->run_bytes, vcpu->fd),
                  "the grader's own vCPU could not be created: see make doctor");
    falsified.kvm_run = vcpu->run;
}

/*
 * Every test of what a function does when something fails begins so: one that always fails, and so
 * does nothing right, must not pass it.
 */
static inline void check_works(const char *function, int status)
{
    ck_assert_msg(status == 0,
                  "%s returns %d where nothing fails: it must return 0 there before its failures "
                  "can be tested",
                  function, status);
}

/* And every such case ends so: the module has made the call that was to fail. */
static inline void check_met(const char *function, const char *what)
{
    ck_assert_msg(atomic_exchange(&falsified_calls, 0) > 0,
                  "%s never made the call that this was about: %s", function, what);
}

#define OF_MMAP 0ul /* in the place of a request of KVM */
#define OF_OPEN 1ul

/* Words by which a message names a call. */
static const struct {
    unsigned long request;
    const char *word;
} call_words[] = {
    {OF_OPEN, "open"},
    {OF_OPEN, "/dev/kvm"},
    {OF_MMAP, "map"},
    {OF_MMAP, "memory"},
    {OF_MMAP, "RAM"},
    {OF_MMAP, "kvm_run"},
    {KVM_GET_API_VERSION, "version"},
    {KVM_GET_API_VERSION, "GET_API_VERSION"},
    {KVM_CHECK_EXTENSION, "KVM_CAP_"},
    {KVM_CHECK_EXTENSION, "CHECK_EXTENSION"},
    {KVM_CREATE_VM, "CREATE_VM"},
    {KVM_SET_TSS_ADDR, "SET_TSS_ADDR"},
    {KVM_SET_IDENTITY_MAP_ADDR, "SET_IDENTITY_MAP_ADDR"},
    {KVM_SET_USER_MEMORY_REGION, "SET_USER_MEMORY_REGION"},
    {KVM_CREATE_VCPU, "CREATE_VCPU"},
    {KVM_GET_VCPU_MMAP_SIZE, "GET_VCPU_MMAP_SIZE"},
    {KVM_GET_SUPPORTED_CPUID, "GET_SUPPORTED_CPUID"},
    {KVM_SET_CPUID2, "SET_CPUID"},
    {KVM_GET_SREGS, "GET_SREGS"},
    {KVM_SET_SREGS, "SET_SREGS"},
    {KVM_SET_REGS, "SET_REGS"},
};

/* The message has this word, and not only in the name of a capability: KVM_CAP_SET_TSS_ADDR. */
static inline bool names_call(const char *word)
{
    for (const char *at = said; (at = strstr(at, word)); at++)
        if (at - said < 4 || strncmp(at - 4, "CAP_", 4) != 0)
            return true;
    return false;
}

/*
 * A message may name a call in words; if it names requests of KVM, the failed one is among them,
 * with at most one that has to do with it.
 */
static inline void check_call_named(const char *what, unsigned long request)
{
    const char *other = NULL;
    bool named = false;
    int others = 0;

    for (size_t i = 0; i < sizeof call_words / sizeof call_words[0]; i++) {
        const char *word = call_words[i].word;
        if (!names_call(word))
            continue;
        named |= call_words[i].request == request;
        if (call_words[i].request == request || _IOC_TYPE(call_words[i].request) != KVMIO)
            continue;
        other = word;
        others += strchr(word, '_') && strncmp(word, "KVM_", 4) != 0;
    }
    ck_assert_msg(named || !other,
                  "%s, and the message names another call, %s%s: name the one that failed", what,
                  strncmp(other, "KVM_", 4) == 0 ? "" : "KVM_", other);
    ck_assert_msg(others <= 1,
                  "%s, and the message also names %d other calls, as KVM_%s: which of them failed?",
                  what, others, other);
}

/* ------------------------------------------------------------------ the program */

/* A file for what a test's module prints to standard output: lab 2's. */
static PRIVATE int print_fd = -1;

static inline void test_begin(void)
{
    apart_begin(&print_fd, 1);
}

static PRIVATE void (*before_end)(void); /* checks what holds for every test; or NULL */

static inline void test_end(void)
{
    if (before_end)
        before_end();
    apart_end();
}

/* One graded test: a test case with one function. */
static inline void unit_add(Suite *suite, const char *name, const TTest *test)
{
    TCase *tcase = tcase_create(name);

    tcase_set_timeout(tcase, 0); /* none: the grader finds what hangs, on a loaded machine too */
    tcase_add_checked_fixture(tcase, test_begin, test_end);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
}

/* The exit status means nothing: the grader reads the TAP. Each test has processes of its own. */
static inline int unit_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);

    prctl(PR_SET_DUMPABLE, 0);
    unit_random_begin();
    srunner_set_fork_status(runner, CK_FORK);
    print_fd = (int)syscall(SYS_memfd_create, "stdout", 0);
    srunner_run_all(runner, CK_ENV);
    srunner_free(runner);
    return 0;
}
