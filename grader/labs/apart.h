/*
 * apart.h - a unit test in two processes, so that its verdict is reached where the module never
 * runs.
 *
 * Both are forked from one and go through the same test, one after the other, but only the module's
 * process calls the module. The judge waits for it there and is told what came of the call: the
 * result, what the call's pointers lead to, and the unit program's static variables, which both
 * share. What these are compared with, local variables and constants, is the judge's own.
 *
 *     MODULE(int, kvm_open, (struct vm *vm), (vm), see_vm(vm))  a function of the module
 *     THERE(bool, is_open, (int fd), (fd)) { ... }               a function of the test that looks
 * at, or acts on, the module's process
 *
 * Between two such calls the judge goes first and the module's process follows: what a test does by
 * itself happens twice. So static variables that a test changes are PRIVATE, each process has its
 * own, unless it must see there what the module does; and what is asked of the kernel about
 * descriptors or mappings belongs into a function that is THERE. Memory other than static
 * variables, for both, comes from memory_for_both. A function of the module that is not declared
 * so ends the judge by a signal: it can't execute the module's code.
 */
#pragma once

#include <check.h>
#undef fail /* the kit has a function of this name */
#include <fcntl.h>
#include <linux/mman.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "given.h"

/* A static variable of which each process has its own. */
#define PRIVATE __attribute__((section("unit_private")))

#define MAILBOX_BYTES (64 * 1024)
#define BOTH_BYTES    (256ul << 20) /* of addresses: a page is taken when it is used */
#define FD_MAX        256           /* of those that a test's process has from Check */

static PRIVATE bool is_module;        /* this is the module's process */
static PRIVATE int side_channel;      /* to the other one */
static PRIVATE pid_t module_process;  /* of the judge */
static PRIVATE const char *call_name; /* the function to which the judge has come */
static PRIVATE uint8_t *mailbox, *arena, *arena_next;
static PRIVATE size_t mailbox_used; /* by this call */
/* This thread is in the test itself; inside a call, and in threads, calls are made as they are. */
static _Thread_local bool testing;

/* The test has failed. */
__attribute__((format(printf, 1, 2))) static inline void test_fail(const char *format, ...)
{
    char text[4096];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    ck_abort_msg("%s", text);
}

/*
 * Both processes evaluate the condition, which may call the module. But the judge alone judges:
 * what the module's process sees, the judge may have prepared for its next call.
 */
#undef ck_abort_msg
#undef ck_assert_msg
#undef ck_assert
#define ck_abort_msg(...)             (is_module ? (void)0 : test_fail(__VA_ARGS__))
#define ck_assert_msg(condition, ...) ((condition) ? (void)0 : ck_abort_msg(__VA_ARGS__))
#define ck_assert(condition)          ck_assert_msg(condition, "%s", #condition)

/* The ends of what unit.ld puts together: the unit program's variables, and the module's code. */
extern uint8_t unit_data_start[], unit_data_end[], unit_bss_start[], unit_bss_end[];
extern uint8_t module_code_start[], module_code_end[];

/* Zeros, at the same address in both processes. */
static inline void *memory_for_both(size_t bytes)
{
    uint8_t *memory = arena_next;

    arena_next += (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (arena_next > arena + BOTH_BYTES)
        ck_abort_msg("the unit program's processes have no more memory for both");
    return memory;
}

/* The module's process is gone: the judge ends as it did. */
_Noreturn static inline void module_ended(void)
{
    int status = 0;

    waitpid(module_process, &status, 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    if (WEXITSTATUS(status) == 0)
        test_fail("the module ended the program, with status 0");
    _exit(WEXITSTATUS(status));
}

/* The module's process: until the judge has come to its next call. */
static inline void judge_wait(void)
{
    if (syscall(SYS_read, side_channel, &call_name, sizeof call_name) != sizeof call_name)
        _exit(EXIT_FAILURE);
}

/*
 * What the module leaves unset on its stack is never by chance the zero that would be right.
 */
__attribute__((noinline)) static void stack_paint(void)
{
    volatile uint8_t stack[16 * 1024];

    for (size_t i = 0; i < sizeof stack; i++)
        stack[i] = 0xa5;
}

/* True in the module's process, which now calls; in the judge's it has called. */
static inline bool call_begin(const char *name)
{
    uint8_t done;

    testing = false;
    mailbox_used = 0;
    if (is_module) {
        if (call_name == name) {
            stack_paint();
            return true;
        }
        dprintf(STDERR_FILENO, "unit: the judge is at %s, the module's process at %s\n", call_name,
                name);
        _exit(EXIT_FAILURE);
    }
    if (syscall(SYS_write, side_channel, &name, sizeof name) < 0 ||
        syscall(SYS_read, side_channel, &done, sizeof done) != sizeof done)
        module_ended();
    return false;
}

/* Tells the judge what is there. */
static inline void call_see(void *object, size_t bytes)
{
    if (mailbox_used + bytes > MAILBOX_BYTES)
        ck_abort_msg("the unit program's mailbox is too small");
    if (is_module)
        memcpy(mailbox + mailbox_used, object, bytes);
    else
        memcpy(object, mailbox + mailbox_used, bytes);
    mailbox_used += bytes;
}

#define SEE(object) call_see(&(object), sizeof(object))

static inline void call_end(void)
{
    if (is_module) {
        if (syscall(SYS_write, side_channel, "", 1L) != 1)
            _exit(EXIT_FAILURE);
        judge_wait();
    }
    testing = true;
}

/* All of a VM but where it belongs. */
static inline void see_vm(struct vm *vm)
{
    struct vmm *before = vm->vmm;

    SEE(*vm);
    vm->vmm = before;
}

/* All of a vCPU but its pointers: the judge follows none that the module may have written. */
static inline void see_vcpu(struct vcpu *vcpu)
{
    const struct vcpu before = *vcpu;

    SEE(*vcpu);
    vcpu->vm = before.vm;
    vcpu->guest = before.guest;
    vcpu->run = before.run;
}

#define TEXT_BYTES 256
#define TEXTS      16 /* that the judge has at a time */

/* What a pointer to the module's words leads to, or that it is NULL. */
static inline void see_text(const char **text)
{
    static PRIVATE char texts[TEXTS][TEXT_BYTES];
    static PRIVATE unsigned next;
    char *copy = texts[next++ % TEXTS];
    bool given = *text;

    if (is_module && given)
        memcpy(copy, *text, strnlen(*text, TEXT_BYTES - 1) + 1);
    SEE(given);
    call_see(copy, TEXT_BYTES);
    copy[TEXT_BYTES - 1] = '\0';
    if (!is_module)
        *text = given ? copy : NULL;
}

#define CALL(type, call, name, ...)                                                                \
    type result = {0};                                                                             \
    if (!testing)                                                                                  \
        return call;                                                                               \
    if (call_begin(name))                                                                          \
        result = call;                                                                             \
    SEE(result);                                                                                   \
    __VA_ARGS__;                                                                                   \
    call_end();                                                                                    \
    return result;

#define CALL_VOID(call, name, ...)                                                                 \
    if (!testing) {                                                                                \
        call;                                                                                      \
        return;                                                                                    \
    }                                                                                              \
    if (call_begin(name))                                                                          \
        call;                                                                                      \
    __VA_ARGS__;                                                                                   \
    call_end();

/* The linker leads the unit program's calls of NAME to __wrap_NAME: grader/core/building.py. */
#define MODULE(type, name, parameters, arguments, ...)                                             \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        CALL(type, __real_##name arguments, #name, __VA_ARGS__)                                    \
    }

#define MODULE_VOID(name, parameters, arguments, ...)                                              \
    void __real_##name parameters;                                                                 \
    void __wrap_##name parameters;                                                                 \
    void __wrap_##name parameters                                                                  \
    {                                                                                              \
        CALL_VOID(__real_##name arguments, #name, __VA_ARGS__)                                     \
    }

#define THERE(type, name, parameters, arguments, ...)                                              \
    static inline type name##_there parameters;                                                    \
    static inline type name parameters                                                             \
    {                                                                                              \
        CALL(type, name##_there arguments, #name, __VA_ARGS__)                                     \
    }                                                                                              \
    static inline type name##_there parameters

#define THERE_VOID(name, parameters, arguments, ...)                                               \
    static inline void name##_there parameters;                                                    \
    static inline void name parameters                                                             \
    {                                                                                              \
        CALL_VOID(name##_there arguments, #name, __VA_ARGS__)                                      \
    }                                                                                              \
    static inline void name##_there parameters

/* ------------------------------------------------------------------ the start and the end */

static inline void *map_shared(size_t bytes)
{
    return (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1L, 0L);
}

/*
 * What is there stays, but is shared with processes that are forked off. Word by word: between the
 * variables may be what the address sanitizer forbids to read.
 */
__attribute__((no_sanitize("address"))) static inline void memory_share(uint8_t *start,
                                                                        const uint8_t *end)
{
    const size_t bytes = (size_t)(end - start);
    const uint64_t *words = (const uint64_t *)(uintptr_t)start;
    uint64_t *copy = bytes ? map_shared(bytes) : NULL;

    if (!copy)
        return;
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        if (words[i] != 0) /* pages of zeros stay untouched */
            copy[i] = words[i];
    if (syscall(SYS_mremap, copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, start) < 0)
        ck_abort_msg("the unit program can't share its variables");
}

static inline void memory_forbid(uint8_t *start, const uint8_t *end)
{
    if (end > start && syscall(SYS_mprotect, start, end - start, (long)PROT_NONE) != 0)
        ck_abort_msg("the unit program's judge can't give up the module's code");
}

static inline void module_begin(const int *kept, int count)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 1); /* for its own /proc/self */
    for (int fd = STDERR_FILENO + 1; fd < FD_MAX; fd++) {
        bool keep = fd == side_channel;
        for (int i = 0; i < count; i++)
            keep |= fd == kept[i];
        if (!keep)
            syscall(SYS_close, fd);
    }
    int nowhere = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY);
    syscall(SYS_dup2, nowhere, STDOUT_FILENO); /* the verdict goes there */
    syscall(SYS_close, nowhere);
    judge_wait();
}

/* Here one process becomes two. The module's keeps standard error and these descriptors. */
static inline void apart_begin(const int *kept, int count)
{
    int ends[2];

    memory_share(unit_data_start, unit_data_end);
    memory_share(unit_bss_start, unit_bss_end);
    mailbox = map_shared(MAILBOX_BYTES);
    arena = arena_next = map_shared(BOTH_BYTES);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        ck_abort_msg("the unit program can't make a second process");
    testing = true;
    module_process = fork();
    is_module = module_process == 0;
    side_channel = ends[is_module];
    syscall(SYS_close, ends[!is_module]);
    if (is_module)
        module_begin(kept, count);
    else
        memory_forbid(module_code_start, module_code_end);
}

static inline void apart_end(void)
{
    kill(module_process, SIGKILL);
    waitpid(module_process, NULL, 0);
}
