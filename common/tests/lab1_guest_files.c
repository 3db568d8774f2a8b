/* lab1_guest_files.c - guest files that can't be loaded, and the bounds of RAM. */
#include "core/core.h"
#include "given.h"
#include "support.h"

#include <sys/stat.h>

static char folder[] = "/tmp/mini-kvm-test-XXXXXX";
static char path[sizeof folder + 16];

static void folder_make(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/guest", folder);
    capture(STDERR_FILENO);
}

static void folder_remove(void)
{
    unlink(path);
    rmdir(folder);
}

static void write_file(const char *bytes, size_t count)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static int read_guest(struct guest *guest, size_t max)
{
    *guest = (struct guest){.path = path};
    return guest_read(guest, GUEST_REAL, max);
}

static void check_refused(size_t max)
{
    struct guest guest;
    uint8_t *bytes = (uint8_t *)path;
    size_t count;

    ck_assert_int_eq(read_guest(&guest, max), STATUS_GUEST_FILE);
    ck_assert_ptr_null(guest.image);
    ck_assert_int_eq(file_read(path, max, &bytes, &count), STATUS_GUEST_FILE);
    ck_assert_ptr_null(bytes);
}

START_TEST(a_flat_guest_is_read_whole)
{
    struct guest guest;

    write_file("\xf4\x00\x90", 3);
    ck_assert_int_eq(read_guest(&guest, 3), 0);
    ck_assert_int_eq(guest.kind, GUEST_REAL);
    ck_assert_uint_eq(guest.image_bytes, 3);
    ck_assert_mem_eq(guest.image, "\xf4\x00\x90", 3);
    free(guest.image);
}
END_TEST

START_TEST(one_byte_too_many_is_refused)
{
    write_file("1234", 4);
    check_refused(3);
}
END_TEST

START_TEST(a_missing_file_is_refused)
{
    check_refused(4096);
}
END_TEST

START_TEST(an_empty_file_is_refused)
{
    write_file("", 0);
    check_refused(4096);
}
END_TEST

START_TEST(a_folder_is_refused)
{
    struct guest guest = {.path = folder};

    ck_assert_int_eq(guest_read(&guest, GUEST_REAL, 4096), STATUS_GUEST_FILE);
}
END_TEST

START_TEST(a_pipe_is_refused_without_waiting)
{
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    check_refused(4096);
}
END_TEST

START_TEST(an_elf_file_is_refused_before_lab_6)
{
    struct guest guest;

    write_file("\177ELF....", 8);
    ck_assert_int_eq(read_guest(&guest, 4096), STATUS_GUEST_FILE);
    ck_assert_int_eq(guest.kind, GUEST_ELF);
    free(guest.image);
}
END_TEST

/* Its class is the fifth byte; a file that ends before it is taken for the older kind. */
START_TEST(an_elf_files_class_is_its_kind)
{
    static const char *const files[] = {"\177ELF\1...", "\177ELF\2...", "\177ELF"};
    static const enum guest_kind kinds[] = {GUEST_ELF, GUEST_ELF64, GUEST_ELF};
    struct guest guest;

    write_file(files[_i], strlen(files[_i]));
    ck_assert_int_eq(read_guest(&guest, 4096), STATUS_GUEST_FILE);
    ck_assert_int_eq(guest.kind, kinds[_i]);
    free(guest.image);
}
END_TEST

START_TEST(ram_has_an_end)
{
    static const struct {
        uint64_t phys;
        size_t count;
        bool fits;
    } writes[] = {
        {0, 16, true},
        {0, 17, false},
        {15, 1, true},
        {15, 2, false},
        {16, 0, true},
        {16, 1, false},
        {17, 0, false},
        {1, SIZE_MAX, false},
        {UINT64_MAX, 1, false},
        {UINT64_MAX, SIZE_MAX, false},
        {UINT64_MAX - 3, 8, false},
    };
    uint8_t ram[32], ones[32];
    struct vm vm = {.ram = ram, .ram_bytes = 16};

    memset(ones, 1, sizeof ones);
    for (size_t i = 0; i < COUNT(writes); i++) {
        memset(ram, 0, sizeof ram);
        ck_assert_msg(ram_write(&vm, writes[i].phys, ones, writes[i].count) == writes[i].fits,
                      "%zu bytes at 0x%llx", writes[i].count, (unsigned long long)writes[i].phys);
        for (size_t beyond = vm.ram_bytes; beyond < sizeof ram; beyond++)
            ck_assert_uint_eq(ram[beyond], 0);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("guest files");

    tcase_add_checked_fixture(tests, folder_make, folder_remove);
    tcase_add_test(tests, a_flat_guest_is_read_whole);
    tcase_add_test(tests, one_byte_too_many_is_refused);
    tcase_add_test(tests, a_missing_file_is_refused);
    tcase_add_test(tests, an_empty_file_is_refused);
    tcase_add_test(tests, a_folder_is_refused);
    tcase_add_test(tests, a_pipe_is_refused_without_waiting);
    tcase_add_test(tests, an_elf_file_is_refused_before_lab_6);
    tcase_add_loop_test(tests, an_elf_files_class_is_its_kind, 0, 3);
    tcase_add_test(tests, ram_has_an_end);
    return run_case(tests, "lab1_guest_files");
}
