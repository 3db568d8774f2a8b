/* lab3_options.c - the command line. */
#include "core/core.h"
#include "debug/debug.h"
#include "support.h"

#include <getopt.h>

static struct vmm vmm;
static FILE *said;

static void begin(void)
{
    said = capture(STDERR_FILENO);
}

/* Parses a command line of words separated by blanks, as often as you like in a test. */
static int parse(const char *line)
{
    static char copy[4096], name[] = "vmm";
    char *words[64] = {name};
    int count = 1;

    memset(&vmm, 0, sizeof vmm);
    optind = 0; /* getopt_long starts afresh */
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        words[count++] = word;
    return options_parse(&vmm, count, words);
}

START_TEST(numbers)
{
    static const struct {
        const char *text;
        uint64_t max, number;
        bool right;
    } cases[] = {
        {"0", 10, 0, true},
        {"4096", UINT64_MAX, 4096, true},
        {"0x1000", UINT64_MAX, 4096, true},
        {"64K", UINT64_MAX, 65536, true},
        {"16M", UINT64_MAX, 16u << 20, true},
        {"1G", UINT64_MAX, 1u << 30, true},
        {"10", 10, 10, true},
        {"11", 10, 0, false},
        {"1K", 1023, 0, false},
        {"18446744073709551615", UINT64_MAX, UINT64_MAX, true},
        {"18446744073709551616", UINT64_MAX, 0, false},
        {"18014398509481984K", UINT64_MAX, 0, false},
        {"", UINT64_MAX, 0, false},
        {"x", UINT64_MAX, 0, false},
        {"-1", UINT64_MAX, 0, false},
        {" 1", UINT64_MAX, 0, false},
        {"1 ", UINT64_MAX, 0, false},
        {"1KB", UINT64_MAX, 0, false},
        {"1T", UINT64_MAX, 0, false},
        {"0x", UINT64_MAX, 0, false},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t number = 0;
        bool right = parse_number(cases[i].text, cases[i].max, &number);
        ck_assert_msg(right == cases[i].right, "\"%s\" is %s", cases[i].text,
                      right ? "taken" : "refused");
        if (right)
            ck_assert_uint_eq(number, cases[i].number);
    }
}
END_TEST

START_TEST(defaults)
{
    ck_assert_int_eq(parse("guest.bin"), 0);
    ck_assert_uint_eq(vmm.options.ram_bytes, 16u << 20);
    ck_assert_uint_eq(vmm.options.tick_ms, 10);
    ck_assert_uint_eq(vmm.options.load, LOAD_DEFAULT);
    ck_assert_uint_eq(vmm.options.entry, HIGHER_HALF + LOAD_DEFAULT);
    ck_assert(!vmm.options.isolate);
    ck_assert(!vmm.options.final_registers);
    ck_assert_int_eq(vmm.options.stats, STATS_NONE);
    ck_assert_ptr_null(observers[0]);
    ck_assert_ptr_null(vmm.options.trace);
    ck_assert_int_eq(vmm.guest_count, 1);
    ck_assert_str_eq(vmm.guests[0].path, "guest.bin");
}
END_TEST

START_TEST(each_option_is_taken)
{
    ck_assert_int_eq(parse("--mem=32M --isolate --regs --mode=paging --load=0x200000 --tick-ms=1 "
                           "--stats=json --color=always --initrd=a.tar a b c d"),
                     0);
    ck_assert_uint_eq(vmm.options.ram_bytes, 32u << 20);
    ck_assert(vmm.options.isolate);
    ck_assert(vmm.options.final_registers);
    ck_assert_int_eq(vmm.options.flat, GUEST_PAGING);
    ck_assert_uint_eq(vmm.options.load, 0x200000);
    ck_assert_uint_eq(vmm.options.entry, 0x80200000);
    ck_assert_uint_eq(vmm.options.tick_ms, 1);
    ck_assert_int_eq(vmm.options.stats, STATS_JSON);
    ck_assert_ptr_eq(observers[0], &meter);
    ck_assert(vmm.options.color);
    ck_assert_str_eq(vmm.options.initrd, "a.tar");
    ck_assert_int_eq(vmm.guest_count, 4);
    ck_assert_str_eq(vmm.guests[3].path, "d");
}
END_TEST

START_TEST(mappings)
{
    ck_assert_int_eq(parse("--map=0x400000:0x5000:wu --unmap=0x7000 "
                           "--map=0xffffffff80000000:0x6000:n guest"),
                     0);
    ck_assert_uint_eq(vmm.options.mapping_count, 3);
    ck_assert_uint_eq(vmm.options.mappings[0].virt, 0x400000);
    ck_assert_uint_eq(vmm.options.mappings[0].phys, 0x5000);
    ck_assert_uint_eq(vmm.options.mappings[0].flags, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER);
    ck_assert_uint_eq(vmm.options.mappings[1].virt, 0x7000);
    ck_assert_uint_eq(vmm.options.mappings[1].flags, 0);
    ck_assert_uint_eq(vmm.options.mappings[2].virt, HIGHER_HALF_64);
    ck_assert_uint_eq(vmm.options.mappings[2].flags, PAGE_PRESENT | PAGE_NX);
}
END_TEST

static const char *const wrong_lines[] = {
    "",
    "--isolate",
    "a b c d e",
    "--mem=0 guest",
    "--mem=1 guest",
    "--mem=1023K guest",
    "--mem=1048577 guest",
    "--mem=3G guest",
    "--mem=x guest",
    "--mem= guest",
    "--mem=-16M guest",
    "--mode=long guest",
    "--cmdline=quiet guest",
    "--tick-ms=0 guest",
    "--tick-ms=1001 guest",
    "--load=here --mode=paging guest",
    "--load=0x200000 guest",
    "--entry=0x80000000 --mode=real guest",
    "--entry=0x100000000 --mode=paging guest",
    "--stats=xml guest",
    "--color=blue guest",
    "--map=0x1000 guest",
    "--map=0x1001:0x1000 guest",
    "--map=0x1000:0x2000:q guest",
    "--unmap=0x1000:0x2000 guest",
    "--trace=/no/such/folder/file guest",
    "--record=/no/such/folder/file guest",
    "--record=/dev/null guest",
    "--no-such-option guest",
    "--initrd",
};

START_TEST(wrong_usage_is_told)
{
    const char *line = wrong_lines[_i];

    ck_assert_msg(parse(line) == STATUS_USAGE, "not refused: vmm %s", line);
    char *text = captured(said, NULL);
    ck_assert_msg(strstr(text, "vmm: "), "nothing said about: vmm %s", line);
    ck_assert_msg(text[strlen(text) - 1] == '\n', "no whole line: %s", text);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("command line");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, numbers);
    tcase_add_test(tests, defaults);
    tcase_add_test(tests, each_option_is_taken);
    tcase_add_test(tests, mappings);
    tcase_add_loop_test(tests, wrong_usage_is_told, 0, COUNT(wrong_lines));
    return run_case(tests, "lab3_options");
}
