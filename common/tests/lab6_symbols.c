/* lab6_symbols.c - functions of an ELF guest by address, from files that are whole, cut or damaged.
 */
#include <elf.h>

#include "debug/debug.h"
#include "support.h"

#define TEXT 0x80100000u

static struct {
    Elf32_Ehdr header;
    Elf32_Shdr sections[4]; /* none, code, symbols, their names */
    Elf32_Sym symbols[4];
    char names[16];
} file = {
    .header = {.e_shoff = offsetof(typeof(file), sections), .e_shnum = 4},
    .sections = {[1] = {.sh_type = SHT_PROGBITS,
                        .sh_flags = SHF_EXECINSTR,
                        .sh_addr = TEXT,
                        .sh_size = 0x100},
                 [2] = {.sh_type = SHT_SYMTAB,
                        .sh_offset = offsetof(typeof(file), symbols),
                        .sh_size = sizeof file.symbols,
                        .sh_link = 3},
                 [3] = {.sh_offset = offsetof(typeof(file), names), .sh_size = sizeof file.names}},
    .symbols = {{0},
                {.st_name = 1, .st_value = TEXT, .st_info = STT_FUNC, .st_shndx = 1},
                {.st_name = 7, .st_value = TEXT + 0x40, .st_info = STT_NOTYPE, .st_shndx = 1},
                {.st_name = 7, .st_value = TEXT + 0x10, .st_info = STT_FILE, .st_shndx = SHN_ABS}},
    .names = "\0first\0second",
};

static bool find(const void *image, size_t bytes, uint32_t address, char *text, size_t size)
{
    struct guest guest = {.kind = GUEST_ELF, .image = (uint8_t *)image, .image_bytes = bytes};

    text[0] = '\0';
    return symbol_find(&guest, address, text, size);
}

START_TEST(names_the_function_that_holds_an_address)
{
    char text[96];

    ck_assert(find(&file, sizeof file, TEXT, text, sizeof text));
    ck_assert_str_eq(text, "first+0");
    ck_assert(find(&file, sizeof file, TEXT + 0x3f, text, sizeof text));
    ck_assert_str_eq(text, "first+63");
    ck_assert(find(&file, sizeof file, TEXT + 0xff, text, sizeof text));
    ck_assert_str_eq(text, "second+191");
    ck_assert(!find(&file, sizeof file, TEXT + 0x100, text, sizeof text));
    ck_assert(!find(&file, sizeof file, TEXT - 1, text, sizeof text));
}
END_TEST

/* Each copy ends where its memory ends: a sanitizer sees a read beyond it. */
START_TEST(believes_nothing_in_a_damaged_file)
{
    char text[96];

    for (size_t bytes = 0; bytes < sizeof file; bytes++) {
        uint8_t *copy = malloc(bytes + 1);
        memcpy(copy, &file, bytes);
        find(copy, bytes, TEXT + 1, text, sizeof text);
        free(copy);
    }
    for (size_t at = 0; at < sizeof file; at++) {
        uint8_t *copy = malloc(sizeof file);
        memcpy(copy, &file, sizeof file);
        copy[at] = 0xff;
        find(copy, sizeof file, TEXT + 1, text, sizeof text);
        free(copy);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("symbols");

    tcase_add_test(tests, names_the_function_that_holds_an_address);
    tcase_add_test(tests, believes_nothing_in_a_damaged_file);
    return run_case(tests, "lab6_symbols");
}
