/*
 * support.h - what the unit programs share: standard output or error kept in a file, and main.
 * Check runs each test in a process of its own, so a test may redirect what it likes.
 */
#pragma once

#include "given.h" /* before check.h, which has a macro called fail */

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* From now on what is written to `fd` goes to a file, which is returned. */
static inline FILE *capture(int fd)
{
    FILE *file = tmpfile();

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(dup2(fileno(file), fd), fd);
    return file;
}

/* All that a captured file holds, as a string to free; sets its length too unless NULL. */
static inline char *captured(FILE *file, size_t *length)
{
    size_t used, room = 1 << 20;
    char *text = malloc(room + 1);

    ck_assert_ptr_nonnull(text);
    fflush(NULL);
    rewind(file);
    used = fread(text, 1, room, file);
    ck_assert_msg(used < room, "more than a megabyte was written");
    text[used] = '\0';
    if (length)
        *length = used;
    return text;
}

/* Runs one test case; the program's exit status. */
static inline int run_case(TCase *tests, const char *name)
{
    Suite *suite = suite_create(name);
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
