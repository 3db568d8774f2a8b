/* lab1_output.c - what guests print arrives: in order, soon, and however the VMM ends. */
#define _GNU_SOURCE
#include "core/core.h"
#include "given.h"
#include "support.h"
#undef fail

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

static const int signals[] = {SIGHUP,  SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGXCPU,
                              SIGABRT, SIGBUS, SIGFPE,  SIGILL,  SIGSEGV, SIGSYS};

#define BYTES   100000
#define WAIT_MS 20000 /* generous: it must arrive without a flush, but not at a certain time */

/* The other end of standard output and error: it returns each write separately. */
static int reader;

/* A process that buffers; what it writes arrives at `reader`. */
static pid_t start(void (*child)(int argument), int argument)
{
    const struct rlimit no_core = {0, 0};
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    reader = ends[0];
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[1]);
        setrlimit(RLIMIT_CORE, &no_core);
        for (size_t i = 0; i < COUNT(signals); i++)
            signal(signals[i], SIG_DFL); /* Check has handlers of its own */
        output_start();
        child(argument);
        _exit(0);
    }
    close(ends[1]);
    return pid;
}

static int end_of(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

/* All that is written to `reader`; how many writes it took. */
static int read_all(char *text, size_t size)
{
    size_t used = 0;
    ssize_t got;
    int writes = 0;

    for (; used + 1 < size && (got = recv(reader, text + used, size - used - 1, 0)) > 0; writes++)
        used += (size_t)got;
    text[used] = '\0';
    return writes;
}

static void print_much(int argument)
{
    for (int i = 0; i < BYTES; i++) {
        const char byte = (char)('a' + i % 26);
        stdout_write(&byte, 1);
    }
    output_flush();
}

START_TEST(all_arrives_in_order_and_in_few_writes)
{
    static char text[BYTES + 2];
    const pid_t pid = start(print_much, 0);
    const int writes = read_all(text, sizeof text);

    ck_assert_int_eq(end_of(pid), 0);
    ck_assert_uint_eq(strlen(text), BYTES);
    for (int i = 0; i < BYTES; i++)
        ck_assert_int_eq(text[i], 'a' + i % 26);
    ck_assert_int_lt(writes, BYTES / 10);
}
END_TEST

static void print_and_compute(int argument)
{
    stdout_write("soon", 4);
    for (;;)
        __asm__ volatile("");
}

START_TEST(arrives_while_the_guest_computes)
{
    const pid_t pid = start(print_and_compute, 0);
    struct pollfd ready = {.fd = reader, .events = POLLIN};
    char text[16];

    ck_assert_int_eq(poll(&ready, 1, WAIT_MS), 1);
    ck_assert_int_eq(recv(reader, text, sizeof text, 0), 4);
    kill(pid, SIGKILL);
    ck_assert_int_eq(WTERMSIG(end_of(pid)), SIGKILL);
}
END_TEST

static void print_and_raise(int number)
{
    stdout_write("last words", 10);
    raise(number);
}

START_TEST(a_signal_that_ends_the_program_loses_nothing)
{
    const pid_t pid = start(print_and_raise, signals[_i]);
    char text[32];

    read_all(text, sizeof text);
    ck_assert_str_eq(text, "last words");
    ck_assert_int_eq(WTERMSIG(end_of(pid)), signals[_i]);
}
END_TEST

static void print_and_exit(int status)
{
    stdout_write("last words", 10);
    exit(status);
}

START_TEST(an_exit_anywhere_loses_nothing)
{
    const pid_t pid = start(print_and_exit, 3);
    char text[32];

    read_all(text, sizeof text);
    ck_assert_str_eq(text, "last words");
    ck_assert_int_eq(WEXITSTATUS(end_of(pid)), 3);
}
END_TEST

static void print_and_fail(int argument)
{
    stdout_write("first\n", 6);
    fail(0, "then");
    stdout_write("last\n", 5);
    output_flush();
}

START_TEST(messages_come_after_what_was_printed_before)
{
    const pid_t pid = start(print_and_fail, 0);
    char text[64];

    read_all(text, sizeof text);
    ck_assert_str_eq(text, "first\nvmm: then\nlast\n");
    ck_assert_int_eq(end_of(pid), 0);
}
END_TEST

static void print_for_ever(int argument)
{
    static const char text[4096];

    for (;;)
        stdout_write(text, sizeof text);
}

/* The state of a process, as in /proc: 'S' sleeps. */
static char process_state(pid_t pid)
{
    char path[64], state = '?';

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state;
}

START_TEST(a_signal_ends_it_although_the_reader_has_stopped)
{
    const pid_t pid = start(print_for_ever, 0);
    struct pollfd full = {.fd = reader, .events = POLLIN};

    ck_assert_int_eq(poll(&full, 1, WAIT_MS), 1);
    while (process_state(pid) != 'S') /* its first thread waits for room */
        sched_yield();
    kill(pid, SIGTERM);
    ck_assert_int_eq(WTERMSIG(end_of(pid)), SIGTERM);
}
END_TEST

static void print_to_full_device(int flush)
{
    dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    stdout_write("x", 1);
    if (flush)
        output_flush();
    poll(NULL, 0, WAIT_MS); /* else the thread does */
}

START_TEST(an_output_that_cant_be_written_ends_the_program)
{
    const pid_t pid = start(print_to_full_device, _i);
    char text[256];

    read_all(text, sizeof text);
    ck_assert_str_eq(text, "vmm: can't write to standard output: No space left on device\n");
    ck_assert_int_eq(WEXITSTATUS(end_of(pid)), STATUS_OUTPUT);
}
END_TEST

static int thread_count(void)
{
    DIR *threads = opendir("/proc/self/task");
    int count = 0;

    ck_assert_ptr_nonnull(threads);
    for (struct dirent *entry; (entry = readdir(threads));)
        count += entry->d_name[0] != '.';
    closedir(threads);
    return count;
}

START_TEST(a_terminal_gets_it_at_once)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);

    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    ck_assert_int_eq(dup2(open(ptsname(master), O_RDWR | O_NOCTTY), STDOUT_FILENO), STDOUT_FILENO);
    const int before = thread_count();
    output_start();
    ck_assert_int_eq(thread_count(), before); /* none that writes later */
    ck_assert_int_eq(dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO), STDOUT_FILENO);
    output_start();
    ck_assert_int_gt(thread_count(), before);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("output");

    tcase_add_test(tests, all_arrives_in_order_and_in_few_writes);
    tcase_add_test(tests, arrives_while_the_guest_computes);
    tcase_add_loop_test(tests, a_signal_that_ends_the_program_loses_nothing, 0, COUNT(signals));
    tcase_add_test(tests, an_exit_anywhere_loses_nothing);
    tcase_add_test(tests, messages_come_after_what_was_printed_before);
    tcase_add_test(tests, a_signal_ends_it_although_the_reader_has_stopped);
    tcase_add_loop_test(tests, an_output_that_cant_be_written_ends_the_program, 0, 2);
    tcase_add_test(tests, a_terminal_gets_it_at_once);
    return run_case(tests, "output");
}
