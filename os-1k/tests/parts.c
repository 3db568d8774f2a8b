/*
 * parts.c - Check tests of the kernel's parts that need no processor of their own: they run on the
 * host, under sanitizers. The Makefile gives their mem- and str- functions an os_ in front.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

void *os_memcpy(void *to, const void *from, size_t count);
void *os_memset(void *to, int byte, size_t count);
int os_memcmp(const void *a, const void *b, size_t count);
size_t os_strlen(const char *text);
int os_strcmp(const char *a, const char *b);

/* ------------------------------------------------------------------ formatted text */

static char written[1024];
static size_t written_bytes;

static void collect(const char *text, size_t count)
{
    ck_assert_uint_le(written_bytes + count, sizeof written - 1);
    memcpy(written + written_bytes, text, count);
    written_bytes += count;
    written[written_bytes] = '\0';
}

__attribute__((format(printf, 1, 2))) static const char *formatted(const char *format, ...)
{
    va_list arguments;

    written_bytes = 0;
    written[0] = '\0';
    va_start(arguments, format);
    text_format(collect, format, arguments);
    va_end(arguments);
    return written;
}

/* Both formats at once: what the C library writes is right. */
#define SAME(...)                                                                                  \
    do {                                                                                           \
        char expected[1024];                                                                       \
        snprintf(expected, sizeof expected, __VA_ARGS__);                                          \
        ck_assert_str_eq(formatted(__VA_ARGS__), expected);                                        \
    } while (0)

START_TEST(format_numbers)
{
    const int numbers[] = {0, 1, -1, 9, 10, 12345, -12345, INT32_MAX, INT32_MIN};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        SAME("%d|%u|%x", numbers[i], (unsigned)numbers[i], (unsigned)numbers[i]);
        SAME("%7d|%7u|%7x", numbers[i], (unsigned)numbers[i], (unsigned)numbers[i]);
        SAME("%07d|%012d|%08x", numbers[i], numbers[i], (unsigned)numbers[i]);
        SAME("%-7d|%-12d|%-2x|", numbers[i], numbers[i], (unsigned)numbers[i]);
    }
}
END_TEST

START_TEST(format_text)
{
    SAME("%s", "");
    SAME("[%s] [%8s] [%-8s] [%2s]", "abc", "abc", "abc", "abc");
    SAME("%c%c%5c%-5c|", 'a', 'b', 'c', 'd');
    SAME("100%% %d%%", 5);
    SAME("%p", (void *)0xdeadbeef);
    ck_assert_str_eq(formatted("%s", ""), "");
    const char *unknown = "%y";
    ck_assert_str_eq(formatted(unknown), "y");
    const char *cut = "cut %";
    ck_assert_str_eq(formatted(cut), "cut ");
    const char *zero = "%c";
    formatted(zero, '\0');
    ck_assert_uint_eq(written_bytes, 1);
}
END_TEST

START_TEST(format_long)
{
    char text[901];

    for (size_t length = 0; length < sizeof text; length += 50) {
        for (size_t i = 0; i < length; i++)
            text[i] = (char)('a' + i % 26);
        text[length] = '\0';
        SAME("<%s>", text);
    }
    SAME("%400d|", 7);
}
END_TEST

START_TEST(strings)
{
    char buffer[8] = "xxxxxxx";

    text_copy(buffer, "abc", sizeof buffer);
    ck_assert_str_eq(buffer, "abc");
    text_copy(buffer, "abcdefghijk", sizeof buffer);
    ck_assert_str_eq(buffer, "abcdefg");
    text_copy(buffer, "abc", 1);
    ck_assert_str_eq(buffer, "");
    ck_assert_uint_eq(os_strlen(""), 0);
    ck_assert_uint_eq(os_strlen("four"), 4);
    ck_assert_int_eq(os_strcmp("same", "same"), 0);
    ck_assert_int_lt(os_strcmp("a", "b"), 0);
    ck_assert_int_gt(os_strcmp("ab", "a"), 0);
    ck_assert_int_gt(os_strcmp("\xff", "a"), 0);
    ck_assert_int_eq(os_memcmp("a\0b", "a\0b", 3), 0);
    ck_assert_int_lt(os_memcmp("a\0b", "a\0c", 3), 0);
    ck_assert_int_eq(os_memcmp("a", "b", 0), 0);
    uint8_t bytes[6] = {1, 2, 3, 4, 5, 6};
    ck_assert_ptr_eq(os_memset(bytes + 1, 0x1ff, 3), bytes + 1);
    ck_assert_mem_eq(bytes, "\x01\xff\xff\xff\x05\x06", 6);
    ck_assert_ptr_eq(os_memcpy(bytes + 2, "abc", 3), bytes + 2);
    ck_assert_mem_eq(bytes,
                     "\x01\xff"
                     "abc\x06",
                     6);
}
END_TEST

/* ------------------------------------------------------------------ queue */

START_TEST(queue_order)
{
    static struct queue queue;
    uint8_t byte = 77, in = 0, out = 0;

    ck_assert(!queue_take(&queue, &byte));
    ck_assert_uint_eq(byte, 77);
    /* Filled and emptied at every position. */
    for (int turn = 0; turn < QUEUE_BYTES + 1; turn++) {
        for (int i = 0; i < QUEUE_BYTES; i++)
            ck_assert(queue_put(&queue, in++));
        ck_assert(!queue_put(&queue, 99));
        for (int i = 0; i < QUEUE_BYTES; i++) {
            ck_assert(queue_take(&queue, &byte));
            ck_assert_uint_eq(byte, out++);
        }
        ck_assert(!queue_take(&queue, &byte));
        ck_assert(queue_put(&queue, in++));
        ck_assert(queue_take(&queue, &byte));
        ck_assert_uint_eq(byte, out++);
    }
}
END_TEST

/* ------------------------------------------------------------------ pages */

#define TEST_PAGES 16

START_TEST(pages_all)
{
    uint8_t *memory = aligned_alloc(PAGE_BYTES, TEST_PAGES * PAGE_BYTES);
    void *pages[TEST_PAGES];

    os_memset(memory, 0xa5, TEST_PAGES * PAGE_BYTES);
    pages_start(memory, memory + TEST_PAGES * PAGE_BYTES);
    for (int round = 0; round < 3; round++) {
        ck_assert_uint_eq(free_pages, TEST_PAGES);
        for (int i = 0; i < TEST_PAGES; i++) {
            pages[i] = page_allocate();
            ck_assert_ptr_nonnull(pages[i]);
            ck_assert_uint_eq((uintptr_t)pages[i] % PAGE_BYTES, 0);
            ck_assert_uint_lt((size_t)((uint8_t *)pages[i] - memory), TEST_PAGES * PAGE_BYTES);
            for (int byte = 0; byte < PAGE_BYTES; byte++)
                ck_assert_uint_eq(((uint8_t *)pages[i])[byte], 0);
            os_memset(pages[i], i + 1, PAGE_BYTES);
        }
        ck_assert_ptr_null(page_allocate());
        ck_assert_uint_eq(free_pages, 0);
        for (int i = 0; i < TEST_PAGES; i++) /* no page was given out twice */
            ck_assert_uint_eq(((uint8_t *)pages[i])[PAGE_BYTES - 1], (unsigned)i + 1);
        page_free(NULL);
        ck_assert_uint_eq(free_pages, 0);
        for (int i = 0; i < TEST_PAGES; i++)
            page_free(pages[(i * 5 + round) % TEST_PAGES]);
    }
    free(memory);
}
END_TEST

/* ------------------------------------------------------------------ archive */

static uint8_t archive[64 * 1024];
static size_t archive_bytes;

static void checksum_set(uint8_t *header)
{
    unsigned sum = 0;

    os_memset(header + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
}

static uint8_t *file_add(const char *name, char type, const char *content)
{
    uint8_t *header = archive + archive_bytes;
    size_t length = os_strlen(content);

    os_memset(header, 0, 512);
    snprintf((char *)header, 100, "%s", name);
    snprintf((char *)header + 124, 12, "%011o", (unsigned)length);
    header[156] = (uint8_t)type;
    os_memcpy(header + 257, "ustar\00000", 8);
    checksum_set(header);
    os_memcpy(header + 512, content, length);
    archive_bytes += 512 + (length + 511) / 512 * 512;
    return header;
}

static void archive_end(void)
{
    os_memset(archive + archive_bytes, 0, 1024);
    archive_bytes += 1024;
}

static void archive_start(void)
{
    archive_bytes = 0;
    os_memset(archive, 0, sizeof archive);
}

/* Opens a copy whose end is the end of its memory, so that a sanitizer sees every step beyond. */
static const char *opened(size_t bytes)
{
    static uint8_t *copy;

    free(copy);
    copy = malloc(bytes > 0 ? bytes : 1);
    os_memcpy(copy, archive, bytes);
    return archive_open(copy, bytes);
}

START_TEST(archive_files)
{
    archive_start();
    file_add("first.txt", '0', "hello");
    file_add("folder/", '5', "");
    file_add("empty", '\0', "");
    file_add("link", '2', "");
    file_add("last", '0', "bye");
    archive_end();
    ck_assert_ptr_null(opened(archive_bytes));
    ck_assert_uint_eq(file_count, 3);
    ck_assert_str_eq(files[0].name, "first.txt");
    ck_assert_uint_eq(files[0].bytes, 5);
    ck_assert_mem_eq(files[0].data, "hello", 5);
    ck_assert_ptr_eq(file_find("empty"), &files[1]);
    ck_assert_uint_eq(files[1].bytes, 0);
    ck_assert_mem_eq(file_find("last")->data, "bye", 3);
    ck_assert_ptr_null(file_find("nothing"));
    ck_assert_ptr_null(file_find("firs"));
    ck_assert_ptr_null(file_find(""));
}
END_TEST

START_TEST(archive_truncated)
{
    archive_start();
    file_add("one", '0', "some text that is longer than nothing");
    file_add("two", '0', "more");
    archive_end();
    /* Only the second block of zeros at the end may be missing. */
    for (size_t bytes = 0; bytes < archive_bytes - 512; bytes++)
        ck_assert_ptr_nonnull(opened(bytes));
    ck_assert_ptr_null(opened(archive_bytes - 512));
}
END_TEST

START_TEST(archive_damaged)
{
    for (size_t at = 0; at < 512; at++) {
        archive_start();
        uint8_t *header = file_add("name", '0', "text");
        archive_end();
        header[at] ^= 0x10;
        /* A name that begins with 0 would be the end; bit 4 of 'n' is not all of it. */
        bool numbers_end = at == 154 || at == 155; /* after the checksum's digits */
        if (!numbers_end)
            ck_assert_msg(opened(archive_bytes), "byte %zu", at);
    }
}
END_TEST

START_TEST(archive_sizes)
{
    static const char *const wrong[] = {"77777777777",
                                        "37777777777",
                                        "40000000000",
                                        "0000001001x",
                                        "           ",
                                        "-0000000001",
                                        "\x80\0\0\0\0\0\0\0\0\0\1"};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        archive_start();
        uint8_t *header = file_add("name", '0', "text");
        archive_end();
        os_memcpy(header + 124, wrong[i], 11);
        checksum_set(header);
        ck_assert_msg(opened(archive_bytes), "size number %zu", i);
    }
}
END_TEST

START_TEST(archive_names)
{
    archive_start();
    uint8_t *header = file_add("name", '0', "text");
    archive_end();
    os_memset(header, 'n', 100);
    checksum_set(header);
    ck_assert_str_eq(opened(archive_bytes), "a file's name is too long");
    header[99] = '\0';
    checksum_set(header);
    ck_assert_ptr_null(opened(archive_bytes));
    ck_assert_uint_eq(os_strlen(files[0].name), 99);
}
END_TEST

START_TEST(archive_many)
{
    archive_start();
    for (int i = 0; i < FILES_MAX; i++)
        file_add("same", '0', "");
    archive_end();
    ck_assert_ptr_null(opened(archive_bytes));
    ck_assert_uint_eq(file_count, FILES_MAX);
    archive_bytes -= 1024;
    file_add("more", '0', "");
    archive_end();
    ck_assert_str_eq(opened(archive_bytes), "it has too many files");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parts of the kernel");
    TCase *parts = tcase_create("parts");

    tcase_add_test(parts, format_numbers);
    tcase_add_test(parts, format_text);
    tcase_add_test(parts, format_long);
    tcase_add_test(parts, strings);
    tcase_add_test(parts, queue_order);
    tcase_add_test(parts, pages_all);
    tcase_add_test(parts, archive_files);
    tcase_add_test(parts, archive_truncated);
    tcase_add_test(parts, archive_damaged);
    tcase_add_test(parts, archive_sizes);
    tcase_add_test(parts, archive_names);
    tcase_add_test(parts, archive_many);
    tcase_set_timeout(parts, 60);
    suite_add_tcase(suite, parts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
