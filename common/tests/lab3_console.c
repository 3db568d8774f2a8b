/* lab3_console.c - lines of several vCPUs stay whole, whatever their threads do. */
#include "lab3.h"
#include "support.h"

#define LINES 500

static struct vmm vmm;
static FILE *output;

static void begin(void)
{
    vmm.guest_count = VCPUS_MAX;
    vm_init(&vmm.vms[0], &vmm);
    for (int i = 0; i < VCPUS_MAX; i++)
        vcpu_init(&vmm.vcpus[i], i, i, &vmm.vms[0], &vmm.guests[i]);
    output = capture(STDOUT_FILENO);
}

static void console(int id, const char *text)
{
    console_write_lines(&vmm.vcpus[id], text, strlen(text));
}

static void expect_output(const char *expected)
{
    char *text = captured(output, NULL);

    ck_assert_str_eq(text, expected);
    free(text);
}

/* Writes numbered lines in pieces of changing length. */
static void *talk(void *argument)
{
    struct vcpu *vcpu = argument;
    char line[64];

    for (int i = 0; i < LINES; i++) {
        int length = snprintf(line, sizeof line, "line %d of %d, and some more\n", i, vcpu->id);
        for (int at = 0; at < length;) {
            int piece = 1 + (i + at) % 7;
            piece = piece > length - at ? length - at : piece;
            console_write_lines(vcpu, line + at, (size_t)piece);
            at += piece;
        }
    }
    return NULL;
}

START_TEST(four_threads_never_mix_their_lines)
{
    pthread_t threads[VCPUS_MAX];
    int next[VCPUS_MAX] = {0};

    for (int i = 0; i < VCPUS_MAX; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, talk, &vmm.vcpus[i]), 0);
    for (int i = 0; i < VCPUS_MAX; i++)
        pthread_join(threads[i], NULL);
    char *text = captured(output, NULL), *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && rest;) {
        int name = -1, number = -1, id = -1, end = 0;
        sscanf(line, "vcpu%d: line %d of %d, and some more%n", &name, &number, &id, &end);
        ck_assert_msg(end > 0 && line[end] == '\0' && name == id, "a mixed line: %s", line);
        ck_assert_int_ge(id, 0);
        ck_assert_int_lt(id, VCPUS_MAX);
        ck_assert_msg(number == next[id], "vcpu%d: line %d comes where %d is due", id, number,
                      next[id]);
        next[id]++;
    }
    for (int i = 0; i < VCPUS_MAX; i++)
        ck_assert_int_eq(next[i], LINES);
    free(text);
}
END_TEST

START_TEST(a_line_goes_out_with_its_newline)
{
    console(0, "first ");
    console(1, "second\n");
    console(0, "half\n\n");
    expect_output("vcpu1: second\nvcpu0: first half\nvcpu0: \n");
}
END_TEST

START_TEST(the_last_unfinished_line_is_kept)
{
    console(2, "no newline");
    console_finish(&vmm.vcpus[2]);
    console_finish(&vmm.vcpus[2]);
    console_finish(&vmm.vcpus[3]);
    expect_output("vcpu2: no newline\n");
}
END_TEST

START_TEST(a_single_guest_has_the_console_for_itself)
{
    vmm.guest_count = 1;
    console(0, "prompt> ");
    expect_output("prompt> ");
    console(0, "a\nb");
    console_finish(&vmm.vcpus[0]);
    expect_output("prompt> a\nb");
}
END_TEST

START_TEST(names_are_coloured_on_demand)
{
    vmm.options.color = true;
    console(0, "x\n");
    console(3, "y\n");
    char *text = captured(output, NULL);
    char *second = strchr(text, '\n') + 1;
    ck_assert_int_eq(text[0], '\033');
    ck_assert_int_eq(second[0], '\033');
    ck_assert_msg(strncmp(text, second, 5) != 0, "two vCPUs have the same colour");
    ck_assert_ptr_nonnull(strstr(text, "\033[0m x\n"));
    free(text);
}
END_TEST

START_TEST(a_line_longer_than_its_buffer_loses_nothing)
{
    size_t length, letters = 0;

    for (int i = 0; i < 3 * CONSOLE_LINE_MAX + 5; i++)
        console(1, "z");
    console(1, "\n");
    char *text = captured(output, &length);
    for (size_t i = 0; i < length; i++)
        letters += text[i] == 'z';
    ck_assert_uint_eq(letters, 3 * CONSOLE_LINE_MAX + 5);
    ck_assert_int_eq(text[length - 1], '\n');
    free(text);
}
END_TEST

START_TEST(every_byte_passes)
{
    static const char name[] = "vcpu0: ";
    char bytes[256];
    size_t length;

    for (int i = 0; i < 256; i++)
        bytes[i] = (char)i;
    bytes['\n'] = 'N';
    console_write_lines(&vmm.vcpus[0], bytes, sizeof bytes);
    console_finish(&vmm.vcpus[0]);
    char *text = captured(output, &length);
    ck_assert_uint_eq(length, strlen(name) + sizeof bytes + 1);
    ck_assert_mem_eq(text + strlen(name), bytes, sizeof bytes);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("console");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, four_threads_never_mix_their_lines);
    tcase_add_test(tests, a_line_goes_out_with_its_newline);
    tcase_add_test(tests, the_last_unfinished_line_is_kept);
    tcase_add_test(tests, a_single_guest_has_the_console_for_itself);
    tcase_add_test(tests, names_are_coloured_on_demand);
    tcase_add_test(tests, a_line_longer_than_its_buffer_loses_nothing);
    tcase_add_test(tests, every_byte_passes);
    return run_case(tests, "lab3_console");
}
