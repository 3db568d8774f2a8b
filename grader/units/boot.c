/* boot.c - lab 6's ELF loader: right files land where they belong, wrong ones are refused. */
#include <elf.h>

#include "unit.h"

#define MEMORY_BYTES 0x48000
#define FILL         0xa5 /* what memory holds before: a loader that only copies leaves it */

/* A file with three segments: code, nothing to load, data with zeros behind. */
static struct {
    Elf32_Ehdr header;
    Elf32_Phdr segments[3];
    uint8_t code[0x300];
    uint8_t data[0x80];
} file;

static uint8_t memory[MEMORY_BYTES];
static uint32_t entry, end;

static void file_make(void)
{
    uint32_t code = 0x30000 + unit_random() % 64 * 16, data = 0x40000 + unit_random() % 64 * 16;

    file.header = (Elf32_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_386,
        .e_version = EV_CURRENT,
        .e_entry = HIGHER_HALF + code + 0x20,
        .e_phoff = offsetof(typeof(file), segments),
        .e_ehsize = sizeof(Elf32_Ehdr),
        .e_phentsize = sizeof(Elf32_Phdr),
        .e_phnum = 3,
    };
    file.segments[0] = (Elf32_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), code),
        .p_vaddr = HIGHER_HALF + code,
        .p_paddr = code,
        .p_filesz = sizeof file.code,
        .p_memsz = sizeof file.code,
        .p_flags = PF_R | PF_X,
    };
    file.segments[1] = (Elf32_Phdr){.p_type = PT_GNU_STACK, .p_paddr = code, .p_memsz = 64};
    file.segments[2] = (Elf32_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), data),
        .p_vaddr = HIGHER_HALF + data,
        .p_paddr = data,
        .p_filesz = sizeof file.data,
        .p_memsz = sizeof file.data + 0x1000 + unit_random() % 0x1000,
        .p_flags = PF_R | PF_W,
    };
    for (size_t i = 0; i < sizeof file.code; i++)
        file.code[i] = (uint8_t)unit_random();
    for (size_t i = 0; i < sizeof file.data; i++)
        file.data[i] = (uint8_t)unit_random();
}

/* Loads the first `bytes` of the file; the copy ends where its memory ends. */
static const char *load_cut(size_t bytes, size_t memory_bytes)
{
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);

    memcpy(copy, &file, bytes);
    memset(memory, FILL, MEMORY_BYTES);
    entry = end = 0;
    const char *wrong = elf_load(copy, bytes, memory, memory_bytes, &entry, &end);
    free(copy);
    return wrong;
}

static const char *load(void)
{
    return load_cut(sizeof file, MEMORY_BYTES);
}

static bool filled(uint32_t from, uint32_t to, uint8_t byte)
{
    for (uint32_t at = from; at < to; at++)
        if (memory[at] != byte)
            return false;
    return true;
}

START_TEST(loads)
{
    file_make();
    const Elf32_Phdr *code = &file.segments[0], *data = &file.segments[2];
    const char *wrong = load();
    ck_assert_msg(!wrong, "a right file was refused: %s", wrong);
    ck_assert_msg(memcmp(memory + code->p_paddr, file.code, sizeof file.code) == 0,
                  "the first segment's bytes are not at p_paddr = 0x%x", code->p_paddr);
    ck_assert_msg(memcmp(memory + data->p_paddr, file.data, sizeof file.data) == 0,
                  "the second PT_LOAD segment's bytes are not at p_paddr = 0x%x", data->p_paddr);
    ck_assert_msg(filled(0, code->p_paddr, FILL) &&
                      filled(code->p_paddr + code->p_memsz, data->p_paddr, FILL) &&
                      filled(data->p_paddr + data->p_memsz, MEMORY_BYTES, FILL),
                  "memory was changed that no PT_LOAD segment covers");
    ck_assert_msg(entry == file.header.e_entry, "*entry is 0x%x, e_entry is 0x%x", entry,
                  file.header.e_entry);
}
END_TEST

START_TEST(zeros)
{
    file_make();
    const Elf32_Phdr *data = &file.segments[2];
    const char *wrong = load();
    ck_assert_msg(!wrong, "a right file was refused: %s", wrong);
    ck_assert_msg(filled(data->p_paddr + data->p_filesz, data->p_paddr + data->p_memsz, 0),
                  "the bytes from p_filesz to p_memsz are not all zero");
    ck_assert_msg(end == data->p_paddr + data->p_memsz,
                  "*end is 0x%x, the highest segment ends at "
                  "0x%x",
                  end, data->p_paddr + data->p_memsz);
    Elf32_Phdr first = file.segments[0];
    file.segments[0] = file.segments[2];
    file.segments[2] = first;
    wrong = load();
    ck_assert_msg(!wrong, "a file whose higher segment comes first was refused: %s", wrong);
    ck_assert_msg(end == file.segments[0].p_paddr + file.segments[0].p_memsz,
                  "*end is 0x%x where the highest segment, listed first, ends at 0x%x", end,
                  file.segments[0].p_paddr + file.segments[0].p_memsz);
}
END_TEST

START_TEST(wrong_files)
{
    static const struct {
        const char *what;
        size_t at;
        uint16_t value;
        size_t bytes;
    } changes[] = {
        {"no ELF magic", 0, 0x7e, 1},
        {"no ELF magic", 3, 'G', 1},
        {"a 64-bit file", EI_CLASS, ELFCLASS64, 1},
        {"a big-endian file", EI_DATA, ELFDATA2MSB, 1},
        {"a relocatable file", offsetof(Elf32_Ehdr, e_type), ET_REL, 2},
        {"a shared library", offsetof(Elf32_Ehdr, e_type), ET_DYN, 2},
        {"a file for ARM", offsetof(Elf32_Ehdr, e_machine), EM_ARM, 2},
        {"a file without program headers", offsetof(Elf32_Ehdr, e_phnum), 0, 2},
        {"program headers of 16 bytes", offsetof(Elf32_Ehdr, e_phentsize), 16, 2},
        {"65535 program headers", offsetof(Elf32_Ehdr, e_phnum), 65535, 2},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        file_make();
        memcpy((uint8_t *)&file + changes[i].at, &changes[i].value, changes[i].bytes);
        ck_assert_msg(load(), "%s was not refused", changes[i].what);
    }
}
END_TEST

START_TEST(cut_files)
{
    file_make();
    for (size_t bytes = 0; bytes < sizeof file; bytes += bytes < 200 ? 1 : 13)
        ck_assert_msg(load_cut(bytes, MEMORY_BYTES),
                      "a file of %zu bytes was cut to %zu and not refused", sizeof file, bytes);
    static const uint32_t offsets[] = {sizeof file, 0x7fffffff, 0xfffffff0, 0xffffffff};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        file_make();
        file.header.e_phoff = offsets[i];
        ck_assert_msg(load(), "e_phoff = 0x%x was not refused", offsets[i]);
        file_make();
        file.segments[2].p_offset = offsets[i];
        ck_assert_msg(load(), "p_offset = 0x%x was not refused", offsets[i]);
    }
    file_make();
    file.segments[2].p_filesz = file.segments[2].p_memsz = 0xffffff00;
    ck_assert_msg(load(), "p_filesz = 0xffffff00 was not refused");
}
END_TEST

START_TEST(wrong_places)
{
    static const uint32_t places[] = {MEMORY_BYTES - 0x40, MEMORY_BYTES, 0x7fffff00, 0xffffff00,
                                      0xffffffff};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        file_make();
        file.segments[2].p_paddr = places[i];
        file.segments[2].p_vaddr = HIGHER_HALF + places[i];
        ck_assert_msg(load(), "a segment at 0x%x, in memory of 0x%x bytes, was not refused",
                      places[i], MEMORY_BYTES);
    }
    file_make();
    file.segments[2].p_memsz = 0xfffff000;
    ck_assert_msg(load(), "p_memsz = 0xfffff000 was not refused");
    file_make();
    file.segments[2].p_paddr = LOAD_MIN - 0x1000;
    file.segments[2].p_vaddr = HIGHER_HALF + LOAD_MIN - 0x1000;
    ck_assert_msg(load(), "a segment below LOAD_MIN, where the VMM's tables are, was not refused");
    file_make();
    file.segments[2].p_filesz = 0x40;
    file.segments[2].p_memsz = 0x3f;
    ck_assert_msg(load(), "p_filesz over p_memsz was not refused");
    file_make();
    ck_assert_msg(load_cut(sizeof file, file.segments[2].p_paddr + file.segments[2].p_memsz - 1),
                  "a segment that ends one byte after the memory was not refused");
    ck_assert_msg(!load_cut(sizeof file, file.segments[2].p_paddr + file.segments[2].p_memsz),
                  "a segment that ends exactly at the memory's end was refused");
}
END_TEST

START_TEST(overlap)
{
    file_make();
    Elf32_Phdr *code = &file.segments[0], *data = &file.segments[2];
    const uint32_t places[] = {code->p_paddr, code->p_paddr + code->p_memsz - 1,
                               code->p_paddr + 0x10};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        data->p_paddr = places[i];
        data->p_vaddr = HIGHER_HALF + places[i];
        ck_assert_msg(load(), "segments at 0x%x (0x%x bytes) and 0x%x overlap: not refused",
                      code->p_paddr, code->p_memsz, data->p_paddr);
    }
    data->p_paddr = code->p_paddr + code->p_memsz;
    data->p_vaddr = HIGHER_HALF + data->p_paddr;
    ck_assert_msg(!load(), "two segments, one right behind the other, were refused");
}
END_TEST

START_TEST(wrong_entry)
{
    file_make();
    const uint32_t entries[] = {0, file.segments[0].p_vaddr - 1,
                                file.segments[0].p_vaddr + file.segments[0].p_memsz,
                                file.segments[2].p_vaddr, file.segments[0].p_paddr};
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        file.header.e_entry = entries[i];
        ck_assert_msg(load(), "the entry point 0x%x is in no executable segment: not refused",
                      entries[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("boot");

    unit_add(suite, "loads", loads);
    unit_add(suite, "zeros", zeros);
    unit_add(suite, "wrong_files", wrong_files);
    unit_add(suite, "cut_files", cut_files);
    unit_add(suite, "wrong_places", wrong_places);
    unit_add(suite, "overlap", overlap);
    unit_add(suite, "wrong_entry", wrong_entry);
    return unit_main(suite);
}
