/* boot.c - lab 6's ELF loader and what follows it: right files land where they belong, wrong ones
 * are refused; the kernel finds its boot information and a stack. */
#include <elf.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../../unit.h"
#include "lab6.h"

MODULE(const char *, elf_load,
       (const uint8_t *bytes, size_t byte_count, uint8_t *to, size_t to_bytes, uint32_t *first,
        uint32_t *behind),
       (bytes, byte_count, to, to_bytes, first, behind), see_text(&result))
MODULE(int, boot_prepare, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))

#define MEMORY_BYTES 0x48000
#define FILL         0xa5 /* what memory holds before: a loader that only copies leaves it */

/* A file with three segments: code, nothing to load, data with zeros behind. */
static PRIVATE struct {
    Elf32_Ehdr header;
    Elf32_Phdr segments[3];
    uint8_t code_bytes[0x300];
    uint8_t data_bytes[0x80];
} file;

static Elf32_Phdr *const code = &file.segments[0], *const data = &file.segments[2];

/* A file of any shape, longer than 16 bits can count, and the memory that it is loaded into. */
#define LARGE_BYTES  0x28000
#define LARGE_MEMORY 0x90000
#define HEADERS_MAX  300 /* more than 8 bits can count */

static PRIVATE uint8_t large[LARGE_BYTES];
static PRIVATE Elf32_Ehdr large_header;
static PRIVATE Elf32_Phdr large_segments[HEADERS_MAX];

static uint8_t memory[LARGE_MEMORY];
static uint32_t entry, end;

#define RAM_MAX (2ul << 30) /* of --mem: too large for an int */

static PRIVATE uint8_t *large_ram; /* RAM_MAX bytes, of which pages are taken when they are used */

/* Before the test's two processes: both have it. */
__attribute__((constructor)) static void large_ram_map(void)
{
    large_ram = map_shared(RAM_MAX);
}

/* In the code, but not at its very beginning. */
static void entry_make(void)
{
    const uint32_t bytes = code->p_filesz < code->p_memsz ? code->p_filesz : code->p_memsz;

    file.header.e_entry = code->p_vaddr + 1 + unit_random() % (bytes - 1);
}

/* To this physical address; the entry point stays in the code. */
static void segment_move(Elf32_Phdr *segment, uint32_t phys)
{
    segment->p_paddr = phys;
    segment->p_vaddr = HIGHER_HALF + phys;
    entry_make();
}

static uint32_t high_place(void)
{
    return 0x40000 + unit_random() % 64 * 16;
}

static Elf32_Ehdr header_make(uint32_t table, int count)
{
    return (Elf32_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_386,
        .e_version = EV_CURRENT,
        .e_phoff = table,
        .e_ehsize = sizeof(Elf32_Ehdr),
        .e_phentsize = sizeof(Elf32_Phdr),
        .e_phnum = (uint16_t)count,
    };
}

static void file_make(void)
{
    file.header = header_make(offsetof(typeof(file), segments), 3);
    *code = (Elf32_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), code_bytes),
        .p_filesz = sizeof file.code_bytes,
        .p_memsz = sizeof file.code_bytes,
        .p_flags = PF_R | PF_X,
    };
    *data = (Elf32_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(typeof(file), data_bytes),
        .p_filesz = sizeof file.data_bytes,
        .p_memsz = sizeof file.data_bytes + 0x1000 + unit_random() % 0x1000,
        .p_flags = PF_R | PF_W,
    };
    segment_move(data, high_place());
    segment_move(code, LOAD_MIN + 16 + unit_random() % 63 * 16);
    file.segments[1] =
        (Elf32_Phdr){.p_type = PT_GNU_STACK, .p_paddr = code->p_paddr, .p_memsz = 64};
    random_fill(file.code_bytes, sizeof file.code_bytes);
    random_fill(file.data_bytes, sizeof file.data_bytes);
}

/* Loads a file's first bytes; the copy ends where its memory ends. */
static const char *load_bytes(const void *bytes, size_t count, size_t memory_bytes)
{
    memset(memory, FILL, memory_bytes < LARGE_MEMORY ? memory_bytes : LARGE_MEMORY);
    entry = end = 0;
    const char *wrong =
        elf_load(copy_at_end(bytes, count), count, memory, memory_bytes, &entry, &end);
    ck_assert_msg(!wrong || wrong[0], "a file was refused, and elf_load does not say why in words");
    crash_with[0] = '\0';
    return wrong;
}

static const char *load_cut(size_t bytes)
{
    return load_bytes(&file, bytes, MEMORY_BYTES);
}

static const char *load(void)
{
    return load_cut(sizeof file);
}

/* Loads the file's first bytes, which has to be refused; the text says with what. */
__attribute__((format(printf, 2, 3))) static void load_wrong(size_t bytes, const char *format, ...)
{
    char text[sizeof crash_with];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    strcpy(crash_with, text);
    ck_assert_msg(load_cut(bytes), "a file was not refused that has %s", text);
}

/* Into as much memory as --mem can give: its end is, in the higher half, that of all addresses. */
static const char *load_in_large_ram(void)
{
    return elf_load(copy_at_end(&file, sizeof file), sizeof file, large_ram, RAM_MAX, &entry, &end);
}

/* Where a segment begins that ends where that memory does; 0 on a host that does not have it. */
static uint32_t last_place(const Elf32_Phdr *segment)
{
    return large_ram == MAP_FAILED ? 0 : (uint32_t)RAM_MAX - segment->p_memsz;
}

/* None, one or two right files between wrong ones; then a file that a test makes wrong. */
static void files_between(void)
{
    for (unsigned count = unit_random() % 3; count > 0; count--) {
        file_make();
        const char *wrong = load();
        ck_assert_msg(!wrong,
                      "a right file, loaded before one that is to be refused, was refused: %s",
                      wrong);
    }
    file_make();
}

static bool filled(uint32_t from, uint32_t to, uint8_t byte)
{
    return from >= to ||
           (memory[from] == byte && memcmp(memory + from, memory + from + 1, to - from - 1) == 0);
}

/* 0, `max`, or any number between them. */
static uint32_t any_up_to(uint32_t max)
{
    switch (unit_random() % 4) {
    case 0:
        return 0;
    case 1:
        return max;
    default:
        return unit_random() % (max + 1);
    }
}

/*
 * A right file with so many program headers, anywhere in it: segments of all sizes in any order,
 * adjacent or not, with bytes from anywhere in the file; between them what is not to be loaded. The
 * first one is the code.
 */
static void large_make(int count)
{
    const uint32_t table_bytes = (uint32_t)count * sizeof(Elf32_Phdr);
    int order[HEADERS_MAX];
    uint32_t phys = LOAD_MIN + 1;

    large_header = header_make(
        sizeof(Elf32_Ehdr) + any_up_to(LARGE_BYTES - table_bytes - (uint32_t)sizeof(Elf32_Ehdr)),
        count);
    shuffle(order, count);
    for (int i = 0; i < count; i++) {
        Elf32_Phdr *segment = &large_segments[order[i]];
        random_fill(segment, sizeof *segment);
        phys += any_up_to(0x2000) >> unit_random() % 12;
        if (i > 0 && (unit_random() % 4 == 0 || phys >= LARGE_MEMORY)) {
            if (unit_random() % 3 == 0) { /* takes no memory */
                segment->p_type = PT_LOAD;
                segment->p_filesz = segment->p_memsz = 0;
            } else {
                segment->p_type = unit_random() % 2 ? unit_random() & ~1u
                                                    : PT_LOAD | 1u << (8 + unit_random() % 24);
            }
            continue;
        }
        const uint32_t room = LARGE_MEMORY - phys - (i == 0 ? 2 : 0);
        segment->p_type = PT_LOAD;
        segment->p_memsz = 1 + (unit_random() % room >> unit_random() % (i == 0 ? 3 : 16));
        segment->p_filesz =
            any_up_to(segment->p_memsz < LARGE_BYTES - 2 ? segment->p_memsz : LARGE_BYTES - 2);
        if (i == 0) {
            segment->p_memsz += 2; /* of the room that is left */
            segment->p_filesz += 2;
        }
        segment->p_offset = any_up_to(LARGE_BYTES - segment->p_filesz);
        segment->p_paddr = phys;
        segment->p_vaddr = HIGHER_HALF + phys;
        segment->p_align = 1;
        segment->p_flags = PF_R | (i == 0 ? PF_X : PF_W);
        if (i == 0)
            large_header.e_entry = segment->p_vaddr + 1 + unit_random() % (segment->p_filesz - 1);
        phys += segment->p_memsz;
    }
    memcpy(large, &large_header, sizeof large_header);
    memcpy(large + large_header.e_phoff, large_segments, table_bytes);
}

/* The next segment of this file that is to be loaded, behind `segment` or from the first one on. */
static const Elf32_Phdr *large_next(const Elf32_Phdr *segment)
{
    for (segment = segment ? segment + 1 : large_segments;
         segment < large_segments + large_header.e_phnum; segment++)
        if (segment->p_type == PT_LOAD && segment->p_memsz > 0)
            return segment;
    return NULL;
}

#define ROUNDS 30

static void large_load(int round)
{
    const int many = HEADERS_MAX - (int)(unit_random() % (HEADERS_MAX - UINT8_MAX)),
              fewer = 1 + (int)(unit_random() % 100 >> unit_random() % 6);

    large_make(round % (ROUNDS / 3) == 1 ? many : fewer);
    const char *wrong = load_bytes(large, sizeof large, LARGE_MEMORY);
    ck_assert_msg(!wrong,
                  "a right file with %u program headers from 0x%x on and entry point 0x%x was "
                  "refused: %s",
                  large_header.e_phnum, large_header.e_phoff, large_header.e_entry, wrong);
}

START_TEST(loads)
{
    random_fill(large, sizeof large);
    for (int round = 0; round < ROUNDS; round++) {
        large_load(round);
        for (const Elf32_Phdr *next = NULL; (next = large_next(next));) {
            ck_assert_msg(memcmp(memory + next->p_paddr, large + next->p_offset, next->p_filesz) ==
                              0,
                          "the 0x%x bytes from p_offset = 0x%x on, of a PT_LOAD segment, are not "
                          "at p_paddr = 0x%x; or does another segment go on over its end?",
                          next->p_filesz, next->p_offset, next->p_paddr);
            memset(memory + next->p_paddr, FILL, next->p_memsz);
        }
        ck_assert_msg(filled(0, LARGE_MEMORY, FILL), "memory was changed that no PT_LOAD segment "
                                                     "covers: does one begin before its "
                                                     "p_paddr, or go on over its end?");
        ck_assert_msg(entry == large_header.e_entry, "*entry is 0x%x, e_entry is 0x%x", entry,
                      large_header.e_entry);
    }
}
END_TEST

START_TEST(zeros)
{
    random_fill(large, sizeof large);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t highest = 0;
        large_load(round);
        for (const Elf32_Phdr *next = NULL; (next = large_next(next));) {
            const uint32_t behind = next->p_paddr + next->p_memsz;
            ck_assert_msg(filled(next->p_paddr + next->p_filesz, behind, 0),
                          "the bytes from p_filesz = 0x%x to p_memsz = 0x%x of the segment at 0x%x "
                          "are not all zero",
                          next->p_filesz, next->p_memsz, next->p_paddr);
            highest = behind > highest ? behind : highest;
        }
        ck_assert_msg(end == highest,
                      "*end is 0x%x, the highest segment, which may be anywhere in the table, ends "
                      "at 0x%x",
                      end, highest);
    }
    file_make();
    if (!last_place(data))
        return;
    segment_move(data, last_place(data));
    const char *wrong = load_in_large_ram();
    ck_assert_msg(wrong || end == RAM_MAX, "*end is 0x%x, the highest segment ends at 0x%lx", end,
                  RAM_MAX);
}
END_TEST

/* Of the fields that say what the file is, many other values: those with one other bit as well. */
START_TEST(wrong_files)
{
    static const struct {
        const char *name;
        size_t at, bytes;
        uint16_t known[4]; /* what other files have */
    } fields[] = {
        {"EI_MAG0", EI_MAG0, 1, {0}},
        {"EI_MAG1", EI_MAG1, 1, {0}},
        {"EI_MAG2", EI_MAG2, 1, {0}},
        {"EI_MAG3", EI_MAG3, 1, {'G'}},
        {"EI_CLASS", EI_CLASS, 1, {ELFCLASSNONE, ELFCLASS64}},
        {"EI_DATA", EI_DATA, 1, {ELFDATANONE, ELFDATA2MSB}},
        {"e_type", offsetof(Elf32_Ehdr, e_type), 2, {ET_NONE, ET_REL, ET_DYN, ET_CORE}},
        {"e_machine", offsetof(Elf32_Ehdr, e_machine), 2, {EM_ARM, EM_X86_64, EM_AARCH64}},
        {"e_phentsize", offsetof(Elf32_Ehdr, e_phentsize), 2, {0, 16, 56, 64}},
    };
    enum { FIELDS = sizeof fields / sizeof fields[0], BITS = 16, CASES = FIELDS * (BITS + 6) };
    int order[CASES + 1];

    shuffle(order, CASES + 1);
    for (int i = 0; i <= CASES; i++) {
        const size_t field = (size_t)order[i] % FIELDS, which = (size_t)order[i] / FIELDS;
        files_between();
        if (order[i] == CASES) {
            file.header.e_phnum = 0;
            load_wrong(sizeof file, "e_phnum = 0");
            continue;
        }
        const size_t bytes = fields[field].bytes;
        uint8_t *place = (uint8_t *)&file + fields[field].at;
        uint32_t value = 0;
        memcpy(&value, place, bytes);
        if (which < BITS)
            value ^= 1u << which % (8 * bytes);
        else if (which < BITS + 4)
            value = fields[field].known[which - BITS];
        else
            value += 1 + unit_random() % ((1u << 8 * bytes) - 1);
        memcpy(place, &value, bytes);
        load_wrong(sizeof file, "%s = 0x%x", fields[field].name, value & ((1u << 8 * bytes) - 1));
    }
}
END_TEST

/* An offset beyond the file: just so, right in fewer bits, or with sums that wrap around. */
static uint32_t too_far(uint32_t right, uint32_t bytes)
{
    switch (unit_random() % 5) {
    case 0:
        return sizeof file + unit_random() % 64;
    case 1:
        return right + (1u << (11 + unit_random() % 21));
    case 2:
        return 0u - 1 - unit_random() % sizeof file.data_bytes;
    case 3:
        return 0u - bytes; /* their sum is just 0 in 32 bits */
    default:
        return sizeof file + unit_random() % (UINT32_MAX - sizeof file);
    }
}

START_TEST(cut_files)
{
    for (size_t bytes = 0; bytes < sizeof file; bytes += bytes < 200 ? 1 : 13) {
        files_between();
        load_wrong(bytes, "only the first %zu of its %zu bytes", bytes, sizeof file);
    }
    for (int i = 0; i < 160; i++) {
        files_between();
        Elf32_Phdr *segment = unit_random() % 2 ? code : data;
        switch (i % 4) {
        case 0:
            file.header.e_phoff = too_far(file.header.e_phoff, sizeof file.segments);
            load_wrong(sizeof file, "e_phoff = 0x%x in %zu bytes", file.header.e_phoff,
                       sizeof file);
            break;
        case 1:
            file.header.e_phnum = (uint16_t)(3 + (1u << (5 + unit_random() % 11)));
            load_wrong(sizeof file, "e_phnum = %u, and only %zu bytes from e_phoff on",
                       file.header.e_phnum, sizeof file - file.header.e_phoff);
            break;
        case 2:
            segment->p_offset = too_far(segment->p_offset, segment->p_filesz);
            if (segment->p_offset > sizeof file && unit_random() % 4 == 0)
                segment->p_filesz = 0;
            load_wrong(sizeof file, "p_offset = 0x%x and p_filesz = 0x%x in %zu bytes",
                       segment->p_offset, segment->p_filesz, sizeof file);
            break;
        default:
            data->p_filesz += 1u << unit_random() % 32;
            data->p_memsz = data->p_filesz;
            load_wrong(sizeof file, "p_offset = 0x%x and p_filesz = 0x%x in %zu bytes",
                       data->p_offset, data->p_filesz, sizeof file);
        }
    }

    /* The program headers are the end of the file; the last one is not to be loaded. */
    file_make();
    Elf32_Phdr table[] = {*code, *data, file.segments[1]};
    table[1].p_filesz = sizeof file.data_bytes - sizeof table;
    memcpy(file.data_bytes + table[1].p_filesz, table, sizeof table);
    file.header.e_phoff = sizeof file - sizeof table;
    const char *wrong = load();
    ck_assert_msg(!wrong, "a file that ends with its program headers was refused: %s", wrong);
    load_wrong(sizeof file - 1, "all but the last byte of the last program header");
}
END_TEST

/* Right ones, then a file of which this segment may go to either end: the other one lies between.
 */
static Elf32_Phdr *segment_between(void)
{
    files_between();
    Elf32_Phdr *segment = unit_random() % 2 ? code : data;
    segment_move(segment == code ? data : code, 0x38000);
    segment_move(segment, high_place());
    return segment;
}

START_TEST(wrong_places)
{
    enum { BELOW, OVER_END, OUTSIDE, FEWER_BITS, WRAPS, LONG, LONG_WRAPS, SHORT, WRONG };
    int order[10 * WRONG];

    shuffle(order, 10 * WRONG);
    for (int i = 0; i < 10 * WRONG; i++) {
        Elf32_Phdr *segment = segment_between();
        const uint32_t bytes = segment->p_memsz;
        switch (order[i] % WRONG) {
        case BELOW:
            segment_move(segment,
                         LOAD_MIN - 1 - unit_random() % (unit_random() % 2 ? 0x1000 : LOAD_MIN));
            break;
        case OVER_END:
            segment_move(segment, MEMORY_BYTES - bytes + 1 + unit_random() % bytes);
            break;
        case OUTSIDE:
            segment_move(segment, MEMORY_BYTES + unit_random() % (UINT32_MAX - MEMORY_BYTES));
            break;
        case FEWER_BITS:
            segment_move(segment, LOAD_MIN + (1u << (19 + unit_random() % 13)));
            break;
        case WRAPS:
            segment_move(segment, unit_random() % 2 ? 0u - 1 - unit_random() % bytes : 0u - bytes);
            break;
        case LONG:
            segment->p_memsz += 1u << (16 + unit_random() % 16);
            break;
        case LONG_WRAPS:
            segment->p_memsz = 0u - segment->p_paddr;
            if (unit_random() % 2)
                segment->p_memsz += unit_random() % segment->p_paddr;
            break;
        case SHORT:
            segment->p_memsz = 2 + unit_random() % (segment->p_filesz - 2);
            entry_make();
            load_wrong(sizeof file, "p_filesz = 0x%x over p_memsz = 0x%x", segment->p_filesz,
                       segment->p_memsz);
            continue;
        }
        load_wrong(sizeof file,
                   "p_paddr = 0x%x and p_memsz = 0x%x: a segment may lie from LOAD_MIN, 0x%x, up "
                   "to the memory's end, here 0x%x",
                   segment->p_paddr, segment->p_memsz, LOAD_MIN, MEMORY_BYTES);
    }
    for (int i = 0; i < 20; i++) {
        Elf32_Phdr *segment = segment_between();
        segment_move(segment, LOAD_MIN);
        ck_assert_msg(!load(), "a segment that begins exactly at LOAD_MIN was refused");
        segment_move(segment, MEMORY_BYTES - segment->p_memsz);
        ck_assert_msg(!load(), "a segment that ends exactly at the memory's end was refused");
        const size_t large_memory = (1ul << 31) >> unit_random() % 8;
        ck_assert_msg(!load_bytes(&file, sizeof file, large_memory),
                      "a segment at 0x%x was refused in memory of 0x%zx bytes", segment->p_paddr,
                      large_memory);
        if (!last_place(data))
            continue;
        segment_move(data, last_place(data));
        const char *wrong = load_in_large_ram();
        ck_assert_msg(!wrong,
                      "a segment at 0x%x, which ends exactly at the memory's end, was refused in "
                      "memory of 0x%lx bytes: %s",
                      data->p_paddr, RAM_MAX, wrong);
    }
}
END_TEST

START_TEST(wrong_addresses)
{
    for (int i = 0; i < 4; i++) {
        Elf32_Phdr *segment = i % 2 ? code : data;
        file_make();
        segment->p_vaddr = segment->p_paddr + (i / 2 ? HIGHER_HALF : 0);
        entry_make();
        const char *refused = load();
        ck_assert_msg(!refused,
                      "a segment with p_paddr 0x%x and p_vaddr 0x%x was refused (%s): both halves "
                      "map all memory",
                      segment->p_paddr, segment->p_vaddr, refused);
    }
    enum { BITS = 4 * 31, CASES = BITS + 20 }; /* each bit of either segment in either half */
    int order[CASES];

    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        files_between();
        Elf32_Phdr *segment = order[i] % 2 ? code : data;
        segment->p_vaddr -= (uint32_t)order[i] / 2 % 2 * HIGHER_HALF;
        if (order[i] < BITS)
            segment->p_vaddr ^= 1u << order[i] / 4;
        else
            segment->p_vaddr += 1 + unit_random() % (HIGHER_HALF - 1);
        entry_make();
        load_wrong(sizeof file,
                   "p_paddr = 0x%x and p_vaddr = 0x%x: what the kernel finds at that virtual "
                   "address is not the segment",
                   segment->p_paddr, segment->p_vaddr);
    }
}
END_TEST

/* Two segments of any lengths, one anywhere over the other or just beside it. */
START_TEST(overlap)
{
    for (int i = 0; i < 120; i++) {
        files_between();
        /* At the end of all addresses the data are last: there a sum of theirs may be 0. */
        const bool is_last = i % 4 == 3 && last_place(data);
        Elf32_Phdr *a = is_last || unit_random() % 2 ? data : code, *b = a == code ? data : code;
        segment_move(a, is_last ? last_place(a) : 0x38000 + unit_random() % 0x1000);
        b->p_memsz = 2 + any_up_to(2 * a->p_memsz);
        if (b->p_filesz > b->p_memsz)
            b->p_filesz = b->p_memsz;
        /* From the last place before `a` to the first one after it. */
        const uint32_t places = a->p_memsz + b->p_memsz;
        const uint32_t place = is_last ? 1 + any_up_to(a->p_memsz - 2)
                               : i % 3 ? any_up_to(places)
                                       : 1 + any_up_to(places - 2);
        segment_move(b, a->p_paddr - b->p_memsz + place);
        a->p_vaddr -= unit_random() % 2 * HIGHER_HALF;
        b->p_vaddr -= unit_random() % 2 * HIGHER_HALF;
        entry_make();
        const Elf32_Phdr first = file.segments[0], last = file.segments[2];
        if (unit_random() % 2) {
            file.segments[0] = last;
            file.segments[2] = first;
        }
        const char *wrong = is_last ? load_in_large_ram() : load();
        const bool apart = place == 0 || place == places;
        ck_assert_msg(apart == !wrong,
                      "a segment at 0x%x (p_vaddr 0x%x, p_filesz 0x%x, p_memsz 0x%x) and one at "
                      "0x%x (p_vaddr 0x%x, p_filesz 0x%x, p_memsz 0x%x) %s",
                      first.p_paddr, first.p_vaddr, first.p_filesz, first.p_memsz, last.p_paddr,
                      last.p_vaddr, last.p_filesz, last.p_memsz,
                      apart ? "are adjacent: refused" : "overlap in memory: not refused");
    }
}
END_TEST

START_TEST(wrong_entry)
{
    enum { CASES = 8 * 12 };
    int order[CASES];

    file_make();
    segment_move(data, last_place(data));
    const bool has_last = last_place(data) && !load_in_large_ram();
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        files_between();
        code->p_memsz += 0x100;
        Elf32_Phdr *tried = order[i] / 8 < 4 ? data : code;
        const bool is_last = has_last && unit_random() % 2;
        if (is_last)
            segment_move(tried, last_place(tried));
        code->p_flags = PF_X | (unit_random() & (PF_R | PF_W));
        data->p_flags = (uint32_t)order[i] % 8;
        code->p_vaddr = code->p_paddr + unit_random() % 2 * HIGHER_HALF;
        data->p_vaddr = data->p_paddr + unit_random() % 2 * HIGHER_HALF;
        entry_make();
        const Elf32_Phdr segment = *tried;
        const uint32_t first = segment.p_vaddr, behind = first + segment.p_memsz;
        const uint32_t inside[] = {first, behind - 1, first + unit_random() % segment.p_memsz},
                       outside[] = {first - 1, behind, file.header.e_entry ^ HIGHER_HALF, 0};
        const bool is_inside = order[i] / 8 % 2;
        file.header.e_entry = is_inside ? inside[unit_random() % 3] : outside[unit_random() % 4];
        if (unit_random() % 2) {
            const Elf32_Phdr lower = *code;
            *code = *data;
            *data = lower;
        }
        const char *wrong = is_last ? load_in_large_ram() : load();
        ck_assert_msg((is_inside && segment.p_flags & PF_X) == !wrong,
                      "a segment with p_flags 0x%x is from 0x%x up to 0x%x in memory: the entry "
                      "point 0x%x was %srefused",
                      segment.p_flags, first, behind - 1, file.header.e_entry, wrong ? "" : "not ");
    }
}
END_TEST

/* ------------------------------------------------------------------ 6.2 and 6.3: boot_prepare */

#define ARCHIVE_BYTES 5000
#define ARCHIVE_MAX   (2 << 20) /* more than fits */

static PRIVATE struct vm vm;
static PRIVATE struct vcpu vcpu;
static PRIVATE uint8_t archive[ARCHIVE_MAX];
static PRIVATE unsigned tick_ms; /* --tick-ms */
static size_t heap_grown;        /* while the latest boot_prepare ran */

/* Our file, and an option, for the VM that was just made. */
static void guest_make(void)
{
    file_make();
    memset(vm.ram + BOOT_INFO_OFFSET, FILL, sizeof(struct boot_info));
    guest.kind = GUEST_ELF;
    guest.image = (uint8_t *)&file;
    guest.image_bytes = sizeof file;
    vmm.options.tick_ms = tick_ms = 1 + unit_random() % 1000;
}

/* A small VM with that guest; its RAM is shared with processes that are forked off. */
static void start_guest(void)
{
    start_empty(&vm, &vcpu);
    vm.ram_bytes = PAGE_BYTES * (256 + unit_random() % 64);
    vm.ram = memory_for_both(vm.ram_bytes);
    guest_make();
}

/* So that an uninitialised structure does not happen to hold zeros. */
BOTH __attribute__((noinline)) static void stack_dirty(void)
{
    uint8_t room[16384];

    memset(room, FILL, sizeof room);
    asm volatile("" : : "r"(room) : "memory");
}

BOTH static size_t heap_used(void)
{
    const struct mallinfo2 heap = mallinfo2();

    return heap.uordblks + heap.hblkhd;
}

void __tsan_init(void) __attribute__((weak));

/*
 * Calls boot_prepare in a process of its own and leaves what it wrote to RAM; its status. There 6.3
 * may end it: that exercise may not be written yet, and this vCPU has no KVM. `starved`: the
 * process gets no more memory, unless a sanitizer needs some.
 */
THERE(int, status_of_prepare, (bool starved), (starved), see_vcpu(&vcpu))
{
    heap_grown = 0;
    pid_t child = fork();
    if (child == 0) {
        const size_t before = heap_used();
        stack_dirty(); /* a starved one has this memory for its stack */
        if (starved && !__asan_region_is_poisoned && !__tsan_init)
            setrlimit(RLIMIT_AS, &(struct rlimit){0, RLIM_INFINITY});
        stack_dirty();
        const int status = boot_prepare(&vcpu);
        heap_grown = heap_used() - before;
        _exit(status);
    }
    int ended = 0;
    waitpid(child, &ended, 0);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

/* As --mem may be: from 1M to 2G. Few of these bytes are used. */
static size_t ram_size(int round)
{
    return round % 4 == 1 ? RAM_MAX
                          : PAGE_BYTES * (256 + unit_random() % (RAM_MAX / PAGE_BYTES - 255));
}

/* The guest gets RAM of this size, with nothing from before where kernel and archive will be. */
static void large_ram_give(size_t bytes)
{
    if (large_ram == MAP_FAILED)
        return; /* the host does not give out more than it has: the RAM stays small */
    vm.ram = large_ram;
    vm.ram_bytes = bytes;
    memset(large_ram, FILL, PAGE_BYTES * 256);
}

static int prepare_apart_with(bool starved)
{
    listen_hold();
    int status = status_of_prepare(starved);
    if (!strstr(said, "exercise 6.1") && !strstr(said, "exercise 6.2"))
        listen_drop(); /* what comes after them is not written yet, or has no KVM */
    listen_end();
    return status;
}

static int prepare_apart(void)
{
    return prepare_apart_with(false);
}

/* What the kernel will find. */
static struct boot_info info_found(void)
{
    struct boot_info info;

    memcpy(&info, vm.ram + BOOT_INFO_OFFSET, sizeof info);
    return info;
}

START_TEST(boot_information)
{
    for (int round = 0; round < 8; round++) {
        start_guest();
        vm.ram_bytes = ram_size(round);
        vmm.options.ram_bytes = 2 * vm.ram_bytes; /* the space is what counts */
        prepare_apart();
        struct boot_info info = info_found();
        ck_assert_msg(info.magic == BOOT_MAGIC && info.size == sizeof info,
                      "at BOOT_INFO_OFFSET are 0x%x and %u, not magic 0x%x and size %zu",
                      info.magic, info.size, BOOT_MAGIC, sizeof info);
        ck_assert_msg(info.memory_bytes == vm.ram_bytes,
                      "memory_bytes is 0x%x, space->bytes is 0x%zx", info.memory_bytes,
                      vm.ram_bytes);
        ck_assert_msg(info.tick_ms == tick_ms, "tick_ms is %u, with --tick-ms=%u", info.tick_ms,
                      tick_ms);
    }
}
END_TEST

static PRIVATE char archive_path[sizeof "archive-XXXXXX"];

static int archive_open(void)
{
    strcpy(archive_path, "archive-XXXXXX");
    return mkstemp(archive_path);
}

/* Its path for the module, which may write there. */
static const char *path_for_both(void)
{
    return strcpy(memory_for_both(sizeof archive_path), archive_path);
}

/* Other bytes for the archive, and so many of them. */
static void archive_write(int fd, size_t bytes)
{
    random_fill(archive, bytes);
    ck_assert_msg(fd >= 0 && ftruncate(fd, 0) == 0 &&
                      pwrite(fd, archive, bytes, 0) == (ssize_t)bytes,
                  "the unit program can't write its archive");
}

/* Where the archive belongs: the first page boundary at or after the kernel's end. */
static uint32_t archive_home(void)
{
    uint32_t end_of_file = data->p_paddr + data->p_memsz;

    return (end_of_file + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/*
 * One guest with an archive, the next without: the same structure, and only its fields differ. An
 * empty path is not none: it is that of a file that can't be opened.
 */
START_TEST(no_archive)
{
    int fd = archive_open(), status;

    archive_write(fd, ARCHIVE_BYTES);
    for (int with = 1; with >= 0; with--) {
        start_guest();
        vmm.options.initrd = with ? path_for_both() : NULL;
        prepare_apart();
        struct boot_info info = info_found();
        ck_assert_msg(info.magic == BOOT_MAGIC && info.size == sizeof info &&
                          info.tick_ms == tick_ms,
                      "a guest %s --initrd: at BOOT_INFO_OFFSET are 0x%x and %u, not magic 0x%x "
                      "and size %zu, or tick_ms is %u, with --tick-ms=%u",
                      with ? "with" : "without", info.magic, info.size, BOOT_MAGIC, sizeof info,
                      info.tick_ms, tick_ms);
        if (with)
            ck_assert_msg(info.archive_start < vm.ram_bytes - ARCHIVE_BYTES &&
                              memcmp(vm.ram + info.archive_start, archive, ARCHIVE_BYTES) == 0,
                          "with --initrd the archive's bytes are not at archive_start, 0x%x",
                          info.archive_start);
        else
            ck_assert_msg(info.archive_start == 0 && info.archive_bytes == 0,
                          "without --initrd the boot information has archive_start 0x%x, "
                          "archive_bytes %u: not 0 and 0",
                          info.archive_start, info.archive_bytes);
    }
    start_guest();
    vmm.options.initrd = "";
    status = prepare_apart();
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "with --initrd= the path is empty, but not NULL: no file has that name, and "
                  "boot_prepare returned %d, not %d",
                  status, STATUS_GUEST_FILE);
    unlink(archive_path);
}
END_TEST

START_TEST(archive_place)
{
    int fd = archive_open();

    archive_write(fd, ARCHIVE_BYTES);
    for (int round = 0; round < 4; round++) {
        start_guest();
        large_ram_give(ram_size(round));
        if (round < 2) /* the end is the beginning of a page */
            data->p_memsz = 0x2000 - data->p_paddr % PAGE_BYTES;
        uint32_t end_of_file = data->p_paddr + data->p_memsz;
        uint32_t place = archive_home();
        vmm.options.initrd = path_for_both();
        int status = prepare_apart();
        ck_assert_msg(status != STATUS_GUEST_FILE,
                      "the kernel ends at 0x%x in memory of 0x%zx bytes: an archive of %d bytes "
                      "was refused",
                      end_of_file, vm.ram_bytes, ARCHIVE_BYTES);
        struct boot_info info = info_found();
        ck_assert_msg(info.archive_start == place,
                      "the kernel ends at 0x%x in memory, and archive_start is 0x%x: the first "
                      "page boundary at or after that end is 0x%x",
                      end_of_file, info.archive_start, place);
        ck_assert_msg(info.archive_bytes == ARCHIVE_BYTES,
                      "the archive has %u bytes, and archive_bytes is %u", ARCHIVE_BYTES,
                      info.archive_bytes);
        ck_assert_msg(memcmp(vm.ram + place, archive, ARCHIVE_BYTES) == 0,
                      "the archive's bytes are not at archive_start");
        ck_assert_msg(heap_grown < ARCHIVE_BYTES,
                      "boot_prepare leaves %zu bytes allocated: free what file_read has given you",
                      heap_grown);
    }
    unlink(archive_path);
}
END_TEST

static PRIVATE bool takes_large_ram; /* an archive in so much RAM */

static void large_ram_try(int fd)
{
    start_guest();
    large_ram_give(RAM_MAX);
    archive_write(fd, ARCHIVE_BYTES);
    vmm.options.initrd = path_for_both();
    takes_large_ram = vm.ram_bytes == RAM_MAX && prepare_apart() != STATUS_GUEST_FILE;
}

/* Every other time: all that the guest has is moved to the end of as much RAM as there can be. */
static void at_end_of_large_ram(void)
{
    const uint32_t up = (uint32_t)(RAM_MAX - vm.ram_bytes);

    if (!takes_large_ram || unit_random() % 2)
        return;
    large_ram_give(RAM_MAX);
    segment_move(data, data->p_paddr + up);
}

/* An archive with so many bytes more than there is room for, or less. */
static void room_check(int fd, int32_t over)
{
    start_guest();
    /* The kernel ends anywhere in half of the memory, but at no page boundary. */
    data->p_memsz = (sizeof file.data_bytes + unit_random() % 0x80000) | 1;
    at_end_of_large_ram();
    uint32_t room = (uint32_t)vm.ram_bytes - archive_home(), bytes = room + (uint32_t)over;
    archive_write(fd, bytes);
    vmm.options.initrd = path_for_both();
    int status = prepare_apart();
    if (over > 0) {
        ck_assert_msg(status == STATUS_GUEST_FILE,
                      "from the archive's first page to the memory's end are %u bytes; an archive "
                      "of %u was not refused with status %d",
                      room, bytes, STATUS_GUEST_FILE);
        ck_assert_msg(strstr(said, archive_path),
                      "an archive that does not fit was refused, and no message names its file");
        return;
    }
    ck_assert_msg(info_found().archive_bytes == bytes,
                  "from the archive's first page to the memory's end are %u bytes; an archive of "
                  "%u was not taken",
                  room, bytes);
    ck_assert_msg(memcmp(vm.ram + archive_home(), archive, bytes) == 0,
                  "an archive of %u bytes, where there is room for %u, is not on the first page "
                  "after the kernel",
                  bytes, room);
}

/* The kernel ends in the memory's last page. */
static void no_room_check(int fd)
{
    start_guest();
    data->p_memsz = (uint32_t)vm.ram_bytes - data->p_paddr - unit_random() % PAGE_BYTES;
    at_end_of_large_ram();
    archive_write(fd, 1 + unit_random() % ARCHIVE_BYTES);
    vmm.options.initrd = path_for_both();
    int status = prepare_apart();
    ck_assert_msg(status == STATUS_GUEST_FILE && strstr(said, "--mem"),
                  "after the kernel there is no page left for the archive: it was not refused with "
                  "status %d and a message that suggests a larger --mem",
                  STATUS_GUEST_FILE);
    ck_assert_msg(
        strstr(said, archive_path),
        "after the kernel there is no page left for the archive, and no message names its "
        "file");
}

/* The archive would fit, but for the process that is to read it. */
static void no_memory_check(int fd)
{
    start_guest();
    archive_write(fd, 0x90000 + unit_random() % 0x10000);
    vmm.options.initrd = path_for_both();
    int status = prepare_apart_with(true);
    ck_assert_msg(status == STATUS_NO_KVM,
                  "the host has no memory to read the archive: boot_prepare returned %d, file_read "
                  "returns STATUS_NO_KVM, %d",
                  status, STATUS_NO_KVM);
}

START_TEST(archive_room)
{
    int32_t over[] = {0,
                      1,
                      PAGE_BYTES,
                      -1,
                      -(int32_t)(unit_random() % 9000),
                      (int32_t)(1 + unit_random() % 9000)};
    int fd = archive_open();

    large_ram_try(fd);
    for (size_t left = sizeof over / sizeof over[0]; left > 0; left--) { /* in any order */
        size_t next = unit_random() % left;
        room_check(fd, over[next]);
        over[next] = over[left - 1];
        if (left % 2)
            no_room_check(fd);
        else
            no_memory_check(fd);
    }
    unlink(archive_path);
}
END_TEST

START_TEST(start_state)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    int fd = archive_open();

    start_created(&vm, &vcpu);
    guest.kind = GUEST_ELF;
    guest.image = (uint8_t *)&file;
    guest.image_bytes = sizeof file;
    vmm.options.tick_ms = 10;
    vmm.options.initrd = path_for_both();
    for (uint32_t round = 0; round < 6; round++) {
        file_make();
        code->p_vaddr -= round % 2 * HIGHER_HALF;
        entry_make();
        /* The archive ends where the memory does. */
        const uint32_t archive_end = (uint32_t)vm.ram_bytes;
        ck_assert_msg(fd >= 0 && ftruncate(fd, archive_end - archive_home()) == 0,
                      "the unit program can't write its archive");
        int status = boot_prepare(&vcpu);
        ck_assert_msg(status == 0, "boot_prepare returns %d for a right file", status);
        ck_assert_msg(kernel(vcpu.fd, KVM_GET_REGS, &regs) == 0 &&
                          kernel(vcpu.fd, KVM_GET_SREGS, &sregs) == 0,
                      "the grader can't read the registers");
        ck_assert_msg(sregs.cr0 & 0x80000000, "CR0.PG is 0: paging_enter was not called");
        ck_assert_msg(regs.rip == file.header.e_entry, "EIP is 0x%llx, e_entry is 0x%x", regs.rip,
                      file.header.e_entry);
        ck_assert_msg(regs.rbx == BOOT_INFO_OFFSET, "EBX is 0x%llx, not BOOT_INFO_OFFSET",
                      regs.rbx);
        ck_assert_msg(regs.rsp > HIGHER_HALF && regs.rsp <= HIGHER_HALF + vm.ram_bytes,
                      "ESP is 0x%llx: the stack is to lie in the higher half, from 0x%x to 0x%zx",
                      regs.rsp, HIGHER_HALF, HIGHER_HALF + vm.ram_bytes);
        uint64_t stack = regs.rsp - HIGHER_HALF;
        ck_assert_msg(stack >= BOOT_INFO_OFFSET + 2 * PAGE_BYTES,
                      "ESP is 0x%llx: the stack, a page at least, grows down from there into the "
                      "page of the boot information or the VMM's tables",
                      regs.rsp);
        ck_assert_msg(stack <= LOAD_MIN || stack >= archive_end + PAGE_BYTES,
                      "ESP is 0x%llx: the stack grows down from there into the kernel's image or "
                      "into the archive, which may fill all of the memory after it",
                      regs.rsp);

        const bool is_map = unit_random() % 2;
        if (is_map) {
            vmm.options.mappings[0] =
                (struct page_mapping){.virt = 1, .phys = 1}; /* no page begins there */
            vmm.options.mapping_count = 1;
        } else {
            falsified = (struct falsified){.request = KVM_SET_SREGS, .error = unit_error()};
        }
        listen_start();
        status = boot_prepare(&vcpu);
        listen_end();
        const int expected = is_map ? STATUS_USAGE : STATUS_NO_KVM;
        ck_assert_msg(status == expected, "%s: paging_enter returns %d, and boot_prepare %d",
                      is_map ? "a page of --map can't be mapped" : "KVM_SET_SREGS fails", expected,
                      status);
        vmm.options.mapping_count = 0;
        falsified = (struct falsified){0};
    }
    unlink(archive_path);
}
END_TEST

/*
 * Another kernel, another archive, at last none: no guest has anything of the one before. Each is
 * started in a VM of its own.
 */
START_TEST(guests_in_turn)
{
    static const uint32_t archives[] = {5000, 300, 9000, 0};
    struct kvm_regs regs;
    int fd = archive_open();

    for (size_t i = 0; i < sizeof archives / sizeof archives[0]; i++) {
        start_created(&vm, &vcpu);
        guest_make();
        data->p_memsz = sizeof file.data_bytes + 0x1000 * ((uint32_t)i % 3);
        ck_assert_msg(fd >= 0 && ftruncate(fd, archives[i]) == 0,
                      "the unit program can't write its archive");
        vmm.options.initrd = archives[i] > 0 ? path_for_both() : NULL;
        int status = boot_prepare(&vcpu);
        ck_assert_msg(status == 0, "guest %zu, started after others: boot_prepare returns %d",
                      i + 1, status);
        struct boot_info info = info_found();
        uint32_t place = archives[i] > 0 ? archive_home() : 0;
        ck_assert_msg(info.archive_start == place && info.archive_bytes == archives[i],
                      "guest %zu, started after others: its archive is at 0x%x, %u bytes, instead "
                      "of 0x%x, %u bytes",
                      i + 1, info.archive_start, info.archive_bytes, place, archives[i]);
        ck_assert_msg(info.tick_ms == tick_ms,
                      "guest %zu, started after others: tick_ms is %u, with --tick-ms=%u", i + 1,
                      info.tick_ms, tick_ms);
        ck_assert_msg(kernel(vcpu.fd, KVM_GET_REGS, &regs) == 0,
                      "the grader can't read the registers");
        ck_assert_msg(regs.rip == file.header.e_entry && regs.rbx == BOOT_INFO_OFFSET,
                      "guest %zu, started after others: EIP is 0x%llx and EBX 0x%llx, instead of "
                      "its e_entry, 0x%x, and BOOT_INFO_OFFSET",
                      i + 1, regs.rip, regs.rbx, file.header.e_entry);
    }
    unlink(archive_path);
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
    unit_add(suite, "wrong_addresses", wrong_addresses);
    unit_add(suite, "overlap", overlap);
    unit_add(suite, "wrong_entry", wrong_entry);
    unit_add(suite, "boot_information", boot_information);
    unit_add(suite, "no_archive", no_archive);
    unit_add(suite, "archive_place", archive_place);
    unit_add(suite, "archive_room", archive_room);
    unit_add(suite, "start_state", start_state);
    unit_add(suite, "guests_in_turn", guests_in_turn);
    return unit_main(suite);
}
