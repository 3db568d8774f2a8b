/*
 * apart.h - a unit test in two processes, so that its verdict is reached where the module never
 * runs, and what it compares with is nowhere the module could read it.
 *
 * The judge goes through the test. The module's process runs nothing of it: it waits for the
 * judge's calls and makes them, on a stack that the test never used.
 *
 *     MODULE(int, kvm_open, (struct vm *vm), (vm), see_vm(vm))  a function of the module
 *     THERE(bool, is_open, (int fd), (fd)) { ... }               a function of the test that
 * reads or changes the state of the module's process
 *
 * What both processes have: the unit program's static variables, and memory_for_both. All else a
 * call names: GIVE(object) lends the module's process a copy of it, at the same address, and
 * SEE(object) takes over what became of it there. So what a test compares with is in a local
 * variable, or in a static one that is PRIVATE: the module's process may write all that both have.
 * Parameters are pointers, integers and enumerations, six at most. What is asked of the kernel
 * about descriptors or mappings belongs into a function that is THERE. A function of the module
 * that is not declared so ends the judge by a signal: it can't execute the module's code.
 */
#pragma once

#include <check.h>
#undef fail /* the kit has a function of this name */
#include <fcntl.h>
#include <linux/mman.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "given.h"

/* A static variable of the judge's own: in the module's process it stays as it began. */
#define PRIVATE __attribute__((section(".unit_private")))

/* The same, and nothing changes it once the test has its two processes. */
#define FIXED __attribute__((section(".unit_fixed")))

/*
 * A function that the module's process has as well; of the unit program's others it has none, so no
 * module can call what the judge computes its answers with. unit.ld has the linker refuse a
 * function for both that refers to one of the judge's own.
 */
#define BOTH __attribute__((section("unit_both")))

#include "said.h"

#define OBJECTS_MAX   16
#define OBJECTS_BYTES (1ul << 20)
#define RESULT_BYTES  256           /* of what a function returns, or of a text */
#define ARGUMENTS     6             /* that are in registers */
#define BOTH_BYTES    (256ul << 20) /* of addresses: a page is taken when it is used */
#define PAGE_USED     (3ull << 62)  /* in memory or swapped: admin-guide/mm/pagemap.rst */
#define HOLE_BYTES    (256 * 1024)  /* of the stack: more than a test's own objects take */
#define FD_MAX        256           /* of those that a test's process has from Check */

/* Makes a call in the module's process with these arguments, and stores the result. */
typedef void call_there(const uint64_t *arguments, void *result);

/* A call on its way to the module's process, and what came of it on the way back. */
struct mailbox {
    call_there *call;
    uint64_t arguments[ARGUMENTS];
    uint8_t result[RESULT_BYTES];
    size_t count;
    struct {
        void *place;
        size_t bytes;
    } objects[OBJECTS_MAX];
    uint8_t bytes[OBJECTS_BYTES]; /* of the objects, one after the other */
};

static FIXED bool is_module;           /* this is the module's process */
static FIXED int side_channel;         /* to the other one */
static PRIVATE pid_t module_process;   /* of the judge */
static FIXED int module_pidfd;         /* readable once the module's process has ended */
static PRIVATE uint32_t random_key[4]; /* of the judge's numbers */
static FIXED struct mailbox *mailbox;
static FIXED uint8_t *arena;
static PRIVATE uint8_t *arena_next;
static PRIVATE enum { CALL_BEGUN, CALL_GIVES, CALL_SEES } call_phase;
static PRIVATE size_t call_objects, call_bytes; /* that the call has named in this phase */
/* This thread is in the test itself; inside a call, and in threads, calls are made as they are. */
static _Thread_local bool testing;

static bool errors_made_up; /* the module has met errors that it did not cause */

/* For the grader, which has hints for the kernel's words (grader/core/judge.py). */
BOTH static inline void made_up_report(void)
{
    static const char words[] = "# errors were made up\n";

    if (errors_made_up)
        syscall(SYS_write, STDOUT_FILENO, words, sizeof words - 1);
}

static PRIVATE char crash_with[256]; /* what the module meets, should it crash now; may be empty */

/* Ends the module's process, if there is one: none outlives its test. */
BOTH static inline void apart_end(void)
{
    made_up_report();
    testing = false;
    if (module_process > 0)
        kill(module_process, SIGKILL);
    waitpid(module_process, NULL, 0);
    listen_end();
}

/* The test has failed. Check ends the judge here, without test_end. */
BOTH __attribute__((format(printf, 1, 2))) static inline void test_fail(const char *format, ...)
{
    char text[4096];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    apart_end();
    ck_abort_msg("%s", text);
}

/* Of the functions that are THERE nothing fails: the judge alone judges. */
#undef ck_abort_msg
#undef ck_assert_msg
#undef ck_assert
#define ck_abort_msg(...)             (is_module ? (void)0 : test_fail(__VA_ARGS__))
#define ck_assert_msg(condition, ...) ((condition) ? (void)0 : ck_abort_msg(__VA_ARGS__))
#define ck_assert(condition)          ck_assert_msg(condition, "%s", #condition)

/* The ends of what unit.ld puts together: the unit program's variables, and each side's code. */
extern uint8_t unit_data_start[], unit_data_end[], unit_bss_start[], unit_bss_end[];
extern uint8_t unit_fixed_start[], unit_fixed_end[];
extern uint8_t module_code_start[], module_code_end[];
extern uint8_t judge_code_start[], judge_code_end[];
extern uint8_t __executable_start[], __data_start[]; /* the linker's: between them are constants */

/* Zeros, at the same address in both processes. */
BOTH static inline void *memory_for_both(size_t bytes)
{
    uint8_t *memory = arena_next;

    arena_next += (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (arena_next > arena + BOTH_BYTES / 2)
        ck_abort_msg("the unit program's processes have no more memory for both");
    return memory;
}

/* A copy for both that ends where memory does: a read past its end is caught. */
static inline void *copy_at_end(const void *bytes, size_t count)
{
    return memcpy(arena + BOTH_BYTES - count, bytes, count);
}

/* The module's process is gone: the judge ends as it did. */
BOTH _Noreturn static inline void module_ended(void)
{
    int status = 0;

    made_up_report();
    waitpid(module_process, &status, 0);
    module_process = 0;
    listen_end();
    if (WIFSIGNALED(status)) {
        if (crash_with[0])
            dprintf(STDOUT_FILENO, "# crashed with %s\n", crash_with);
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    if (WEXITSTATUS(status) == 0)
        test_fail("the module ended the program, with status 0");
    _exit(WEXITSTATUS(status));
}

/*
 * Waits for the end of the module's call, or of its process, and hears what is said meanwhile. The
 * channel alone would not do: a process that the module has started keeps it open.
 */
BOTH static inline void call_wait(void)
{
    struct pollfd ends[] = {{.fd = side_channel, .events = POLLIN},
                            {.fd = said_pipe, .events = POLLIN},
                            {.fd = module_pidfd, .events = POLLIN}};

    while (!ends[0].revents && !ends[2].revents) {
        ends[0].revents = ends[1].revents = 0;
        syscall(SYS_poll, ends, 3L, -1L);
        if (ends[1].revents & POLLIN)
            said_hear();
        else if (ends[1].revents)
            ends[1].fd = -1; /* the module has closed its standard error */
    }
    said_hear();
    if (!ends[0].revents)
        module_ended();
}

BOTH static inline void call_send(call_there *call, const uint64_t *arguments)
{
    uint8_t done;

    mailbox->call = call;
    memcpy(mailbox->arguments, arguments, sizeof mailbox->arguments);
    if (syscall(SYS_write, side_channel, "", 1L) != 1)
        module_ended();
    call_wait();
    if (syscall(SYS_read, side_channel, &done, sizeof done) != sizeof done)
        module_ended();
}

/*
 * Has the module's process make a call; all else about it is in the mailbox. By a pointer, because
 * syscall is declared as one that never comes back here: the compiler would keep in registers what
 * the call changes in static variables.
 */
BOTH static inline void call_make(call_there *call, const uint64_t *arguments)
{
    void (*send)(call_there *, const uint64_t *) = call_send;

    __asm__("" : "+r"(send));
    send(call, arguments);
}

BOTH static inline bool is_for_both(const void *object)
{
    const uint8_t *place = object;

    return (place >= __executable_start && place < __data_start) ||
           (place >= unit_data_start && place < unit_data_end) ||
           (place >= unit_bss_start && place < unit_bss_end) ||
           (place >= arena && place < arena + BOTH_BYTES);
}

/* Names an object to this call; the place of its copy in the mailbox, or NULL: both have it. */
BOTH static inline uint8_t *call_name(const void *object, size_t bytes)
{
    uint8_t *copy = mailbox->bytes + call_bytes;

    if (!object || bytes == 0 || is_for_both(object))
        return NULL;
    if (call_objects == OBJECTS_MAX || bytes > OBJECTS_BYTES - call_bytes)
        ck_abort_msg("the unit program's mailbox is too small");
    if (call_phase == CALL_GIVES) {
        mailbox->objects[call_objects].place = (void *)(uintptr_t)object;
        mailbox->objects[call_objects].bytes = bytes;
        memcpy(copy, object, bytes);
    }
    call_objects++;
    call_bytes += bytes;
    return copy;
}

BOTH static inline void call_give(const void *object, size_t bytes)
{
    call_name(object, bytes);
}

BOTH static inline void call_see(void *object, size_t bytes)
{
    const uint8_t *copy = call_name(object, bytes);

    if (copy && call_phase == CALL_SEES)
        memcpy(object, copy, bytes);
}

/* Also gives it; what the module's process has must then be the same. */
BOTH static inline void call_keep(const void *object, size_t bytes, const char *what)
{
    const uint8_t *copy = call_name(object, bytes);

    ck_assert_msg(!copy || call_phase != CALL_SEES || memcmp(object, copy, bytes) == 0,
                  "%s has changed, and it is not this function's to change", what);
}

#define GIVE(object) call_give(&(object), sizeof(object))
#define SEE(object)  call_see(&(object), sizeof(object))
#define KEEP(object) call_keep(&(object), sizeof(object), #object)

/* The loop over a call's phases: its objects are named twice, before the call and after it. */
BOTH static inline void call_begin(void)
{
    testing = false;
    call_phase = CALL_BEGUN;
}

BOTH static inline bool call_goes_on(call_there *call, const uint64_t *arguments, void *result,
                                     size_t bytes)
{
    testing = call_phase == CALL_SEES;
    if (call_phase == CALL_GIVES) {
        mailbox->count = call_objects;
        call_make(call, arguments);
        if (result)
            memcpy(result, mailbox->result, bytes);
    }
    call_objects = call_bytes = 0;
    return call_phase++ != CALL_SEES;
}

/* All of a VM but where it belongs. */
BOTH static inline void see_vm(struct vm *vm)
{
    struct vmm *before = vm->vmm;

    SEE(*vm);
    ck_assert_msg(vm->vmm == before, "vm->vmm has changed: vm_init has set it for good");
}

/* All of a vCPU but its pointers: the judge follows none that the module may have written. */
BOTH static inline void see_vcpu(struct vcpu *vcpu)
{
    const struct vcpu before = *vcpu;

    if (is_for_both(vcpu))
        return;
    KEEP(*vcpu->vm);
    KEEP(*vcpu->guest);
    call_give(vcpu->guest->image, vcpu->guest->image_bytes);
    SEE(*vcpu);
    ck_assert_msg(vcpu->vm == before.vm && vcpu->guest == before.guest,
                  "vcpu->vm or vcpu->guest has changed: vcpu_init has set both for good");
    vcpu->run = before.run;
}

/* Where an address space is, the judge knows; what of it is used, the module says. */
#define SEE_SPACE(space)                                                                           \
    (call_keep((space), offsetof(struct address_space, next_table),                                \
               "space->memory, base or bytes"),                                                    \
     SEE((space)->next_table))

#define TEXTS 16 /* that the judge has at a time */

BOTH static inline void text_there(const uint64_t *arguments, void *result)
{
    snprintf(result, RESULT_BYTES, "%s", (const char *)(uintptr_t)arguments[0]);
}

/* What a pointer to the module's words leads to, or that it is NULL. */
BOTH static inline void see_text(const char **text)
{
    static PRIVATE char texts[TEXTS][RESULT_BYTES];
    static PRIVATE unsigned next;
    char *copy = texts[next++ % TEXTS];

    if (call_phase != CALL_SEES || !*text)
        return;
    mailbox->count = 0;
    call_make(text_there, (uint64_t[ARGUMENTS]){(uintptr_t)*text});
    memcpy(copy, mailbox->result, RESULT_BYTES - 1);
    *text = copy;
}

/* clang-format's versions break braces in macros differently. */
/* clang-format off */
#define WORDS(...)                                                                                 \
    {                                                                                              \
        __VA_OPT__(WORDS_OF(__VA_ARGS__, 0, 0, 0, 0, 0))                                           \
    }
/* clang-format on */
#define WORDS_OF(a, b, c, d, e, f, ...)                                                            \
    (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f)

typedef void any_function(void);

/* The compiler is not to know which function is called with words. */
BOTH static inline any_function *any(any_function *function)
{
    __asm__("" : "+r"(function));
    return function;
}

/* The words are in the registers where the function's own parameters would be. */
/* clang-format off */
#define CALL_WORDS(type, function, words)                                                          \
    ((type(*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))any(                     \
        (any_function *)function))(words[0], words[1], words[2], words[3], words[4], words[5])
/* clang-format on */
#define UNCHECKED __attribute__((no_sanitize("undefined"))) /* for that */

#define CALL(type, function, name, parameters, arguments, ...)                                     \
    BOTH UNCHECKED static void name##_call(const uint64_t *words, void *to)                        \
    {                                                                                              \
        type result = CALL_WORDS(type, function, words);                                           \
        _Static_assert(sizeof result <= RESULT_BYTES, "room for the result");                      \
        memcpy(to, &result, sizeof result);                                                        \
    }                                                                                              \
    BOTH static inline type name##_apart parameters                                                \
    {                                                                                              \
        type result = {0};                                                                         \
        if (!testing)                                                                              \
            return function arguments;                                                             \
        const uint64_t words[ARGUMENTS] = WORDS arguments;                                         \
        for (call_begin(); call_goes_on(name##_call, words, &result, sizeof result);) {            \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
        return result;                                                                             \
    }

#define CALL_VOID(function, name, parameters, arguments, ...)                                      \
    BOTH UNCHECKED static void name##_call(const uint64_t *words, void *to)                        \
    {                                                                                              \
        CALL_WORDS(void, function, words);                                                         \
    }                                                                                              \
    BOTH static inline void name##_apart parameters                                                \
    {                                                                                              \
        if (!testing) {                                                                            \
            function arguments;                                                                    \
            return;                                                                                \
        }                                                                                          \
        const uint64_t words[ARGUMENTS] = WORDS arguments;                                         \
        for (call_begin(); call_goes_on(name##_call, words, NULL, 0);) {                           \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    }

/* The linker leads the unit program's calls of NAME to __wrap_NAME: grader/core/building.py. */
#define MODULE(type, name, parameters, arguments, ...)                                             \
    type __real_##name parameters;                                                                 \
    BOTH type __wrap_##name parameters;                                                            \
    CALL(type, __real_##name, name, parameters, arguments, __VA_ARGS__)                            \
    BOTH type __wrap_##name parameters                                                             \
    {                                                                                              \
        return name##_apart arguments;                                                             \
    }

#define MODULE_VOID(name, parameters, arguments, ...)                                              \
    void __real_##name parameters;                                                                 \
    BOTH void __wrap_##name parameters;                                                            \
    CALL_VOID(__real_##name, name, parameters, arguments, __VA_ARGS__)                             \
    BOTH void __wrap_##name parameters                                                             \
    {                                                                                              \
        name##_apart arguments;                                                                    \
    }

#define THERE(type, name, parameters, arguments, ...)                                              \
    BOTH static inline type name##_there parameters;                                               \
    CALL(type, name##_there, name, parameters, arguments, __VA_ARGS__)                             \
    BOTH static inline type name parameters                                                        \
    {                                                                                              \
        return name##_apart arguments;                                                             \
    }                                                                                              \
    BOTH static inline type name##_there parameters

#define THERE_VOID(name, parameters, arguments, ...)                                               \
    BOTH static inline void name##_there parameters;                                               \
    CALL_VOID(name##_there, name, parameters, arguments, __VA_ARGS__)                              \
    BOTH static inline void name parameters                                                        \
    {                                                                                              \
        name##_apart arguments;                                                                    \
    }                                                                                              \
    BOTH static inline void name##_there parameters

/* ------------------------------------------------------------------ the start and the end */

static inline void *map_shared(size_t bytes)
{
    return (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1L, 0L);
}

/* Whether each page of a program's .bss was used: one that was not is all zeros. */
static inline void pages_used(const uint8_t *start, uint64_t *pages, size_t count)
{
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY);
    const long offset = (long)((uintptr_t)start / PAGE_BYTES * sizeof pages[0]);

    if (syscall(SYS_pread64, fd, pages, count * sizeof pages[0], offset) !=
        (long)(count * sizeof pages[0]))
        memset(pages, 0xff, count * sizeof pages[0]); /* no /proc: all of them, perhaps */
    syscall(SYS_close, fd);
}

/*
 * What is there stays, but is shared with processes that are forked off. Word by word: between the
 * variables may be what the address sanitizer forbids to read.
 */
__attribute__((no_sanitize("address"))) static inline void
memory_share(uint8_t *start, const uint8_t *end, bool is_bss)
{
    const size_t words_each = PAGE_BYTES / sizeof(uint64_t);
    const size_t bytes = (size_t)(end - start), count = bytes / PAGE_BYTES;
    const uint64_t *words = (const uint64_t *)(uintptr_t)start;
    uint64_t *copy = bytes ? map_shared(bytes) : NULL;
    uint64_t *used = bytes ? map_shared(count * sizeof *used) : NULL;

    if (!copy)
        return;
    memset(used, 0xff, count * sizeof *used);
    if (is_bss)
        pages_used(start, used, count);
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        if (used[i / words_each] & PAGE_USED && words[i] != 0)
            copy[i] = words[i];
    if (syscall(SYS_mremap, copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, start) < 0)
        ck_abort_msg("the unit program can't share its variables");
    syscall(SYS_munmap, used, count * sizeof *used);
}

static inline void memory_protect(uint8_t *start, const uint8_t *end, long rights)
{
    if (end > start && syscall(SYS_mprotect, start, end - start, rights) != 0)
        ck_abort_msg("the unit program can't give up what its test must not touch");
}

/*
 * What the module leaves unset on its stack is never by chance the zero that would be right.
 */
BOTH __attribute__((noinline)) static void stack_paint(void)
{
    volatile uint64_t stack[2 * 1024];

    for (size_t i = 0; i < sizeof stack / sizeof stack[0]; i++)
        stack[i] = 0xa5a5a5a5a5a5a5a5;
}

/* Where the address sanitizer is built in: what is given may lie where it keeps functions apart. */
void __asan_unpoison_memory_region(const volatile void *memory, size_t bytes) __attribute__((weak));

/* The module's process: makes the judge's calls. */
BOTH __attribute__((noinline)) _Noreturn static void module_serve(volatile uint8_t *hole)
{
    uint8_t word;

    while (hole && syscall(SYS_read, side_channel, &word, sizeof word) == sizeof word) {
        uint8_t *copy = mailbox->bytes;
        for (size_t i = 0; i < mailbox->count; copy += mailbox->objects[i++].bytes) {
            if (__asan_unpoison_memory_region)
                __asan_unpoison_memory_region(mailbox->objects[i].place, mailbox->objects[i].bytes);
            memcpy(mailbox->objects[i].place, copy, mailbox->objects[i].bytes);
        }
        stack_paint();
        mailbox->call(mailbox->arguments, mailbox->result);
        fflush(stderr);
        copy = mailbox->bytes;
        for (size_t i = 0; i < mailbox->count; copy += mailbox->objects[i++].bytes)
            memcpy(copy, mailbox->objects[i].place, mailbox->objects[i].bytes);
        if (syscall(SYS_write, side_channel, "", 1L) != 1)
            break;
    }
    _exit(EXIT_FAILURE);
}

/* Descriptors of its own: standard error, these, and nowhere to write a verdict to. */
BOTH static inline void module_descriptors(const int *kept, int count)
{
    for (int fd = STDERR_FILENO + 1; fd < FD_MAX; fd++) {
        bool keep = fd == side_channel;
        for (int i = 0; i < count; i++)
            keep |= fd == kept[i];
        if (!keep)
            syscall(SYS_close, fd);
    }
    int nowhere = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY);
    syscall(SYS_dup2, nowhere, STDOUT_FILENO);
    syscall(SYS_close, nowhere);
}

/*
 * The start of the module's process. It gives up the judge's code, and leaves on the stack a hole
 * for copies of the test's local variables: they have the judge's addresses, and nothing of what
 * was there before.
 */
BOTH __attribute__((noinline, no_sanitize("address"))) _Noreturn static void
module_begin(const int *kept, int count)
{
    volatile uint8_t hole[HOLE_BYTES];

    memset(random_key, 0, sizeof random_key);
    if (syscall(SYS_munmap, judge_code_start, judge_code_end - judge_code_start) != 0)
        _exit(EXIT_FAILURE);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 1); /* for its own /proc/self */
    module_descriptors(kept, count);
    for (size_t i = 0; i < sizeof hole; i++)
        hole[i] = 0xa5;
    module_serve(hole);
}

/* Here one process becomes two. The module's keeps these descriptors. */
static inline void apart_begin(const int *kept, int count)
{
    int ends[2], errors[2];

    memory_share(unit_data_start, unit_data_end, false);
    memory_share(unit_bss_start, unit_bss_end, true);
    mailbox = map_shared(sizeof *mailbox);
    arena = arena_next = map_shared(BOTH_BYTES + PAGE_BYTES);
    memory_protect(arena + BOTH_BYTES, arena + BOTH_BYTES + PAGE_BYTES, PROT_NONE);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 || pipe(errors) != 0)
        ck_abort_msg("the unit program can't make a second process");
    module_process = fork();
    is_module = module_process == 0;
    side_channel = ends[is_module];
    syscall(SYS_close, ends[!is_module]);
    if (is_module) {
        syscall(SYS_dup2, errors[1], STDERR_FILENO);
        module_begin(kept, count);
    }
    syscall(SYS_close, errors[1]);
    said_pipe = errors[0];
    module_pidfd = (int)syscall(SYS_pidfd_open, module_process, 0L); /* poll ignores a -1 */
    testing = true;
    memory_protect(module_code_start, module_code_end, PROT_NONE);
    memory_protect(unit_fixed_start, unit_fixed_end, PROT_READ);
}
