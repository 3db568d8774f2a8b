/* lab1_endings.c - two threads end the VMM at once: one report, and the program ends. */
#define _GNU_SOURCE /* gettid */
#include "given.h"
#include "support.h"

#include <sys/wait.h>

static void reach_todo(void)
{
    TODO("1.1");
}

static void write_to_closed_output(void)
{
    close(STDOUT_FILENO);
    stdout_write("x", 1);
}

static const struct {
    void (*end)(void);
    int status;
    const char *report;
} endings[] = {
    {reach_todo, STATUS_TODO, "exercise 1.1 is not written yet"},
    {write_to_closed_output, STATUS_OUTPUT, "can't write to standard output"},
};

static void (*end_again)(void);
static atomic_int second_id;

static void *second(void *argument)
{
    atomic_store(&second_id, gettid());
    end_again();
    return argument;
}

/* The state of a thread of this process, as in /proc: 'S' sleeps. */
static char thread_state(int id)
{
    char path[64], state = '?';

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", id);
    FILE *file = fopen(path, "r");
    if (file) {
        ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        fclose(file);
    }
    return state;
}

/* An exit handler: while the first thread ends the program, a second one tries to. */
static void start_second(void)
{
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, second, NULL), 0);
    while (atomic_load(&second_id) == 0 || thread_state(second_id) != 'S')
        sched_yield();
}

START_TEST(two_at_once_make_one_report)
{
    FILE *said = capture(STDERR_FILENO);
    pid_t child = fork();
    int status;

    if (child == 0) {
        end_again = endings[_i].end;
        atexit(start_second);
        endings[_i].end();
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), endings[_i].status);
    char *text = captured(said, NULL), *report = strstr(text, endings[_i].report);
    ck_assert_msg(report, "no report: %s", text);
    ck_assert_msg(!strstr(report + 1, "vmm: "), "a second report: %s", text);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("endings");

    tcase_add_loop_test(tests, two_at_once_make_one_report, 0, COUNT(endings));
    return run_case(tests, "endings");
}
