/* lab1_lines.c - each line on standard error is one write: a guest's output can't tear it. */
#include "debug/debug.h"
#include "given.h"
#include "support.h"
#undef fail

#include <sys/socket.h>

static int written; /* the other end of standard error: it returns each write separately */

static struct vmm vmm = {.guest_count = 1};
static struct guest guest = {.path = "100% a guest"};
static struct kvm_run run;
static struct vm vm;
static struct vcpu vcpu;

static void setup(void)
{
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    ck_assert_int_eq(dup2(ends[0], STDERR_FILENO), STDERR_FILENO);
    written = ends[1];
    vm_init(&vm, &vmm);
    vcpu_init(&vcpu, 0, 0, &vm, &guest);
    vcpu.run = &run;
    vmm.options.trace = stderr;
}

/* The next write, without its last byte, which is the only newline. */
static char *line_written(void)
{
    static char line[4096];
    const ssize_t count = recv(written, line, sizeof line - 1, 0);

    ck_assert_msg(count > 0, "nothing was written");
    line[count] = '\0';
    ck_assert_msg(strchr(line, '\n') == line + count - 1, "one write has \"%s\"", line);
    line[count - 1] = '\0';
    return line;
}

static void check_end(void)
{
    char byte;

    ck_assert_msg(recv(written, &byte, 1, 0) < 0, "there is more: \"%c...\"", byte);
}

START_TEST(failure)
{
    ck_assert_int_eq(fail(STATUS_USAGE, "%s has %d", "it", 3), STATUS_USAGE);
    ck_assert_str_eq(line_written(), "vmm: it has 3");
    check_end();
}
END_TEST

START_TEST(trace)
{
    long long seconds;
    long part;
    int end = 0;

    trace_event(&vcpu, "inject vector 0x%x", TIMER_VECTOR);
    const char *line = line_written();
    ck_assert_int_eq(sscanf(line, "%lld.%6ld vcpu0 %n", &seconds, &part, &end), 2);
    ck_assert_str_eq(line + end, "inject vector 0x20");
    run.exit_reason = KVM_EXIT_HLT;
    exit_note(&vcpu);
    ck_assert_ptr_nonnull(strstr(line_written(), " vcpu0 KVM_EXIT_HLT"));
    check_end();
}
END_TEST

START_TEST(crash)
{
    ck_assert_int_eq(vcpu_crash(&vcpu, "it used port 0x%x", 0x10), STEP_END);
    ck_assert_str_eq(line_written(), "vmm: vcpu0 (100% a guest) crashed: it used port 0x10");
    check_end();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("lines");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, failure);
    tcase_add_test(tests, trace);
    tcase_add_test(tests, crash);
    return run_case(tests, "lines");
}
