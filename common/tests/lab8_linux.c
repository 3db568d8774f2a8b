/* lab8_linux.c - what the kit adds for Linux: its kind of guest, its option, its RAM. */
#include "core/core.h"
#include "lab8.h"
#include "support.h"

#define HEADER_BYTES 0x206 /* up to the end of the magic */

static char path[] = "/tmp/mini-kvm-test-XXXXXX";
static struct vmm vmm;

/* A file of `bytes` zeros but for the magic of a bzImage, if there is room; its kind. */
static enum guest_kind kind_of_file(size_t bytes)
{
    char content[HEADER_BYTES] = "";
    struct guest guest = {.path = path};
    const int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    memcpy(content + HEADER_BYTES - 4, "HdrS", 4);
    ck_assert_int_eq(write(fd, content, bytes), (ssize_t)bytes);
    close(fd);
    ck_assert_int_eq(guest_read(&guest, GUEST_PAGING, sizeof content), 0);
    unlink(path);
    free(guest.image);
    return guest.kind;
}

START_TEST(a_kernel_is_recognized_by_its_magic)
{
    ck_assert_int_eq(kind_of_file(HEADER_BYTES), GUEST_LINUX);
}
END_TEST

START_TEST(a_file_that_ends_in_the_magic_is_flat)
{
    ck_assert_int_eq(kind_of_file(HEADER_BYTES - 1), GUEST_PAGING);
}
END_TEST

START_TEST(options_of_linux)
{
    char *words[] = {"vmm", "--cmdline=console=ttyS0 quiet", "--mem=64M", "vmlinuz", NULL};

    ck_assert_int_eq(options_parse(&vmm, 4, words), 0);
    ck_assert_str_eq(vmm.options.cmdline, "console=ttyS0 quiet");
    ck_assert(vmm.options.ram_given);
}
END_TEST

START_TEST(without_options)
{
    char *words[] = {"vmm", "vmlinuz", NULL};

    ck_assert_int_eq(options_parse(&vmm, 2, words), 0);
    ck_assert_ptr_null(vmm.options.cmdline);
    ck_assert(!vmm.options.ram_given);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("linux");

    tcase_add_test(tests, a_kernel_is_recognized_by_its_magic);
    tcase_add_test(tests, a_file_that_ends_in_the_magic_is_flat);
    tcase_add_test(tests, options_of_linux);
    tcase_add_test(tests, without_options);
    return run_case(tests, "linux");
}
