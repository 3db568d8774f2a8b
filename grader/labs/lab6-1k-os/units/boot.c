/* boot.c - lab 6's ELF loader and what follows it: right files land where they belong, wrong ones
 * are refused; the kernel finds its boot information and a stack. */
#include <elf.h>
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
    uint8_t code[0x300];
    uint8_t data[0x80];
} file;

static uint8_t memory[MEMORY_BYTES];
static uint32_t entry, end;

static void file_make(void)
{
    uint32_t code = LOAD_MIN + 16 + unit_random() % 63 * 16,
             data = 0x40000 + unit_random() % 64 * 16;

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
    memset(memory, FILL, MEMORY_BYTES);
    entry = end = 0;
    const char *wrong =
        elf_load(copy_at_end(&file, bytes), bytes, memory, memory_bytes, &entry, &end);
    ck_assert_msg(!wrong || wrong[0], "a file was refused, and elf_load does not say why in words");
    return wrong;
}

static const char *load(void)
{
    return load_cut(sizeof file, MEMORY_BYTES);
}

/*
 * None, one or two right files, so that the number of calls does not show which file is wrong.
 * `file` stays as it is.
 */
static void load_right(void)
{
    const typeof(file) kept = file;

    for (unsigned count = unit_random() % 3; count > 0; count--) {
        file_make();
        const char *wrong = load();
        ck_assert_msg(!wrong, "a right file was refused: %s", wrong);
    }
    file = kept;
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
        {"a file of no type", offsetof(Elf32_Ehdr, e_type), ET_NONE, 2},
        {"a relocatable file", offsetof(Elf32_Ehdr, e_type), ET_REL, 2},
        {"a shared library", offsetof(Elf32_Ehdr, e_type), ET_DYN, 2},
        {"a core dump", offsetof(Elf32_Ehdr, e_type), ET_CORE, 2},
        {"a file for ARM", offsetof(Elf32_Ehdr, e_machine), EM_ARM, 2},
        {"a file without program headers", offsetof(Elf32_Ehdr, e_phnum), 0, 2},
        {"program headers of 16 bytes", offsetof(Elf32_Ehdr, e_phentsize), 16, 2},
        {"program headers of 56 bytes", offsetof(Elf32_Ehdr, e_phentsize), 56, 2},
        {"65535 program headers", offsetof(Elf32_Ehdr, e_phnum), 65535, 2},
    };
    enum { CHANGES = sizeof changes / sizeof changes[0] };
    int order[CHANGES];

    file_make();
    const char *wrong = load();
    ck_assert_msg(!wrong, "a right file was refused: %s", wrong);
    shuffle(order, CHANGES);
    for (int i = 0; i < CHANGES; i++) {
        const int number = order[i];
        load_right();
        file_make();
        memcpy((uint8_t *)&file + changes[number].at, &changes[number].value,
               changes[number].bytes);
        ck_assert_msg(load(), "%s was not refused", changes[number].what);
    }
}
END_TEST

START_TEST(cut_files)
{
    file_make();
    for (size_t bytes = 0; bytes < sizeof file; bytes += bytes < 200 ? 1 : 13) {
        ck_assert_msg(load_cut(bytes, MEMORY_BYTES),
                      "a file of %zu bytes was cut to %zu and not refused", sizeof file, bytes);
        if (unit_random() % 16 == 0)
            load_right();
    }
    static const uint32_t offsets[] = {sizeof file, 0x7fffffff, 0xfffffff0, 0xffffffff};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        load_right();
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

    /* The program headers are the end of the file; the last one is not to be loaded. */
    file_make();
    Elf32_Phdr table[] = {file.segments[0], file.segments[2], file.segments[1]};
    table[1].p_filesz = sizeof file.data - sizeof table;
    memcpy(file.data + table[1].p_filesz, table, sizeof table);
    file.header.e_phoff = sizeof file - sizeof table;
    const char *wrong = load();
    ck_assert_msg(!wrong, "a file that ends with its program headers was refused: %s", wrong);
    ck_assert_msg(load_cut(sizeof file - 1, MEMORY_BYTES),
                  "the last byte of the last program header is cut off, and the file not refused");
}
END_TEST

START_TEST(wrong_places)
{
    static const uint32_t places[] = {MEMORY_BYTES - 0x40, MEMORY_BYTES, 0x7fffff00, 0xffffff00,
                                      0xffffffff};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        load_right();
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
    file.segments[0].p_paddr = LOAD_MIN;
    file.segments[0].p_vaddr = HIGHER_HALF + LOAD_MIN;
    file.header.e_entry = HIGHER_HALF + LOAD_MIN + 0x20;
    ck_assert_msg(!load(), "a segment that begins exactly at LOAD_MIN was refused");
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

START_TEST(wrong_addresses)
{
    const uint32_t right[] = {0, HIGHER_HALF};
    const uint32_t wrong[] = {0x40000000, HIGHER_HALF + PAGE_BYTES, HIGHER_HALF - PAGE_BYTES,
                              HIGHER_HALF + LARGE_PAGE_BYTES};

    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        file_make();
        file.segments[2].p_vaddr = right[i] + file.segments[2].p_paddr;
        const char *refused = load();
        ck_assert_msg(!refused,
                      "a segment with p_paddr 0x%x and p_vaddr 0x%x was refused (%s): both halves "
                      "map all memory",
                      file.segments[2].p_paddr, file.segments[2].p_vaddr, refused);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        load_right();
        file_make();
        file.segments[2].p_vaddr = wrong[i] + file.segments[2].p_paddr;
        ck_assert_msg(load(),
                      "a segment with p_paddr 0x%x and p_vaddr 0x%x was not refused: what the "
                      "kernel finds at that virtual address is not the segment",
                      file.segments[2].p_paddr, file.segments[2].p_vaddr);
    }
}
END_TEST

START_TEST(overlap)
{
    file_make();
    Elf32_Phdr *code = &file.segments[0], *data = &file.segments[2];
    const uint32_t places[] = {code->p_paddr, code->p_paddr + code->p_memsz - 1,
                               code->p_paddr + 0x10};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        load_right();
        data->p_paddr = places[i];
        data->p_vaddr = HIGHER_HALF + places[i];
        ck_assert_msg(load(), "segments at 0x%x (0x%x bytes) and 0x%x overlap: not refused",
                      code->p_paddr, code->p_memsz, data->p_paddr);
    }
    data->p_paddr = code->p_paddr + code->p_memsz;
    data->p_vaddr = HIGHER_HALF + data->p_paddr;
    ck_assert_msg(!load(), "two adjacent segments were rejected");

    /* The data begin in front of the code, and only their zeros reach it. */
    file_make();
    code->p_paddr += 0x1000;
    code->p_vaddr += 0x1000;
    file.header.e_entry += 0x1000;
    data->p_paddr = code->p_paddr - 2 * data->p_filesz;
    data->p_vaddr = HIGHER_HALF + data->p_paddr;
    for (int order = 0; order < 2; order++) {
        const Elf32_Phdr first = *code;
        load_right();
        ck_assert_msg(load(),
                      "a segment at 0x%x (p_filesz 0x%x, p_memsz 0x%x) and one at 0x%x (p_filesz "
                      "0x%x, p_memsz 0x%x) overlap in memory: not refused",
                      code->p_paddr, code->p_filesz, code->p_memsz, data->p_paddr, data->p_filesz,
                      data->p_memsz);
        *code = *data;
        *data = first;
    }
}
END_TEST

START_TEST(wrong_entry)
{
    file_make();
    const uint32_t entries[] = {0, file.segments[0].p_vaddr - 1,
                                file.segments[0].p_vaddr + file.segments[0].p_memsz,
                                file.segments[2].p_vaddr, file.segments[0].p_paddr};
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        load_right();
        file.header.e_entry = entries[i];
        ck_assert_msg(load(), "the entry point 0x%x is in no executable segment: not refused",
                      entries[i]);
    }
    file_make();
    file.segments[0].p_memsz += 0x100;
    const uint32_t first = file.segments[0].p_vaddr, behind = first + file.segments[0].p_memsz;
    const uint32_t right[] = {first, behind - 1};
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        file.header.e_entry = right[i];
        ck_assert_msg(!load(),
                      "the executable segment is from 0x%x up to 0x%x in memory: the entry point "
                      "0x%x was refused",
                      first, behind - 1, right[i]);
    }
}
END_TEST

/* ------------------------------------------------------------------ 6.2 and 6.3: boot_prepare */

#define ARCHIVE_BYTES 5000
#define ARCHIVE_MAX   (1 << 20) /* more than fits */

static PRIVATE struct vm vm;
static PRIVATE struct vcpu vcpu;
static PRIVATE uint8_t archive[ARCHIVE_MAX];
static PRIVATE unsigned tick_ms; /* --tick-ms */

/* A VM of 1 MB and our file as its guest; its RAM is shared with processes that are forked off. */
static void start_guest(void)
{
    file_make();
    start_empty(&vm, &vcpu);
    vm.ram_bytes = 1 << 20;
    vm.ram = memory_for_both(vm.ram_bytes);
    memset(vm.ram + BOOT_INFO_OFFSET, FILL, sizeof(struct boot_info));
    guest.kind = GUEST_ELF;
    guest.image = (uint8_t *)&file;
    guest.image_bytes = sizeof file;
    vmm.options.tick_ms = tick_ms = 11 + unit_random() % 80;
}

/* So that an uninitialised structure does not happen to hold zeros. */
__attribute__((noinline)) static void stack_dirty(void)
{
    uint8_t room[16384];

    memset(room, FILL, sizeof room);
    asm volatile("" : : "r"(room) : "memory");
}

/*
 * Calls boot_prepare in a process of its own and leaves what it wrote to RAM; its status. There 6.3
 * may end it: that exercise may not be written yet, and this vCPU has no KVM.
 */
THERE(int, status_of_prepare, (void), (), see_vcpu(&vcpu))
{
    pid_t child = fork();
    if (child == 0) {
        stack_dirty();
        _exit(boot_prepare(&vcpu));
    }
    int ended = 0;
    waitpid(child, &ended, 0);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

static int prepare_apart(void)
{
    listen_hold();
    int status = status_of_prepare();
    if (!strstr(said, "exercise 6.1") && !strstr(said, "exercise 6.2"))
        listen_drop(); /* what comes after them is not written yet, or has no KVM */
    listen_end();
    return status;
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
    start_guest();
    vmm.options.ram_bytes = 2 * vm.ram_bytes; /* the space is what counts */
    prepare_apart();
    struct boot_info info = info_found();
    ck_assert_msg(info.magic == BOOT_MAGIC && info.size == sizeof info,
                  "at BOOT_INFO_OFFSET are 0x%x and %u, not magic 0x%x and size %zu", info.magic,
                  info.size, BOOT_MAGIC, sizeof info);
    ck_assert_msg(info.memory_bytes == vm.ram_bytes, "memory_bytes is 0x%x, space->bytes is 0x%zx",
                  info.memory_bytes, vm.ram_bytes);
    ck_assert_msg(info.tick_ms == tick_ms, "tick_ms is %u, with --tick-ms=%u", info.tick_ms,
                  tick_ms);
}
END_TEST

static char archive_path[sizeof "archive-XXXXXX"];

static int archive_open(void)
{
    strcpy(archive_path, "archive-XXXXXX");
    return mkstemp(archive_path);
}

/* Other bytes for the archive, and so many of them. */
static void archive_write(int fd, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        archive[i] = (uint8_t)unit_random();
    ck_assert_msg(fd >= 0 && ftruncate(fd, 0) == 0 &&
                      pwrite(fd, archive, bytes, 0) == (ssize_t)bytes,
                  "the unit program can't write its archive");
}

/* Where the archive belongs: the first page boundary at or after the kernel's end. */
static uint32_t archive_home(void)
{
    uint32_t end_of_file = file.segments[2].p_paddr + file.segments[2].p_memsz;

    return (end_of_file + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* One guest with an archive, the next without: the same structure, and only its fields differ. */
START_TEST(no_archive)
{
    int fd = archive_open();

    archive_write(fd, ARCHIVE_BYTES);
    for (int with = 1; with >= 0; with--) {
        start_guest();
        vmm.options.initrd = with ? archive_path : NULL;
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
    unlink(archive_path);
}
END_TEST

START_TEST(archive_place)
{
    int fd = archive_open();

    archive_write(fd, ARCHIVE_BYTES);
    for (int exact = 0; exact < 2; exact++) {
        start_guest();
        if (exact) /* the end is the beginning of a page */
            file.segments[2].p_memsz = 0x2000 - file.segments[2].p_paddr % PAGE_BYTES;
        uint32_t end_of_file = file.segments[2].p_paddr + file.segments[2].p_memsz;
        uint32_t place = archive_home();
        vmm.options.initrd = archive_path;
        prepare_apart();
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
    }
    unlink(archive_path);
}
END_TEST

/* An archive with so many bytes more than there is room for, or less. */
static void room_check(int fd, int32_t over)
{
    start_guest();
    /* The kernel ends anywhere in half of the memory, but at no page boundary. */
    file.segments[2].p_memsz = (sizeof file.data + unit_random() % 0x80000) | 1;
    uint32_t room = (uint32_t)vm.ram_bytes - archive_home(), bytes = room + (uint32_t)over;
    archive_write(fd, bytes);
    vmm.options.initrd = archive_path;
    int status = prepare_apart();
    if (over > 0) {
        ck_assert_msg(status == STATUS_GUEST_FILE,
                      "from the archive's first page to the memory's end are %u bytes; an archive "
                      "of %u was not refused with status %d",
                      room, bytes, STATUS_GUEST_FILE);
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

START_TEST(archive_room)
{
    int32_t over[] = {0,
                      1,
                      PAGE_BYTES,
                      -1,
                      -(int32_t)(unit_random() % 9000),
                      (int32_t)(1 + unit_random() % 9000)};
    int fd = archive_open();

    for (size_t left = sizeof over / sizeof over[0]; left > 0; left--) { /* in any order */
        size_t next = unit_random() % left;
        room_check(fd, over[next]);
        over[next] = over[left - 1];
    }
    unlink(archive_path);
}
END_TEST

START_TEST(start_state)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    start_created(&vm, &vcpu);
    file_make();
    guest.kind = GUEST_ELF;
    guest.image = (uint8_t *)&file;
    guest.image_bytes = sizeof file;
    vmm.options.tick_ms = 10;
    /* The archive ends where the memory does. */
    int fd = archive_open();
    const uint32_t archive_end = (uint32_t)vm.ram_bytes;
    ck_assert_msg(fd >= 0 && ftruncate(fd, archive_end - archive_home()) == 0,
                  "the unit program can't write its archive");
    vmm.options.initrd = archive_path;
    int status = boot_prepare(&vcpu);
    ck_assert_msg(status == 0, "boot_prepare returns %d for a right file", status);
    ck_assert_msg(kernel(vcpu.fd, KVM_GET_REGS, &regs) == 0 &&
                      kernel(vcpu.fd, KVM_GET_SREGS, &sregs) == 0,
                  "the grader can't read the registers");
    ck_assert_msg(sregs.cr0 & 0x80000000, "CR0.PG is 0: paging_enter was not called");
    ck_assert_msg(regs.rip == file.header.e_entry, "EIP is 0x%llx, e_entry is 0x%x", regs.rip,
                  file.header.e_entry);
    ck_assert_msg(regs.rbx == BOOT_INFO_OFFSET, "EBX is 0x%llx, not BOOT_INFO_OFFSET", regs.rbx);
    ck_assert_msg(regs.rsp > HIGHER_HALF && regs.rsp <= HIGHER_HALF + vm.ram_bytes,
                  "ESP is 0x%llx: the stack is to lie in the higher half, from 0x%x to 0x%zx",
                  regs.rsp, HIGHER_HALF, HIGHER_HALF + vm.ram_bytes);
    uint64_t stack = regs.rsp - HIGHER_HALF;
    ck_assert_msg(stack >= BOOT_INFO_OFFSET + PAGE_BYTES,
                  "ESP is 0x%llx: the stack grows down from there into the boot information or the "
                  "VMM's tables",
                  regs.rsp);
    ck_assert_msg(stack <= LOAD_MIN || stack >= archive_end + PAGE_BYTES,
                  "ESP is 0x%llx: the stack grows down from there into the kernel's image or into "
                  "the archive, which may fill all of the memory after it",
                  regs.rsp);

    vmm.options.mappings[0] =
        (struct page_mapping){.virt = 1, .phys = 1}; /* no page begins there */
    vmm.options.mapping_count = 1;
    listen_start();
    status = boot_prepare(&vcpu);
    listen_end();
    ck_assert_msg(status != 0,
                  "a page of --map can't be mapped: paging_enter returns a status, and "
                  "boot_prepare returned 0");
    unlink(archive_path);
}
END_TEST

/* Another kernel, another archive, at last none: no guest has anything of the one before. */
START_TEST(guests_in_turn)
{
    static const uint32_t archives[] = {5000, 300, 9000, 0};
    int fd = archive_open();

    for (size_t i = 0; i < sizeof archives / sizeof archives[0]; i++) {
        start_guest();
        file.segments[2].p_memsz = sizeof file.data + 0x1000 * ((uint32_t)i % 3);
        ck_assert_msg(fd >= 0 && ftruncate(fd, archives[i]) == 0,
                      "the unit program can't write its archive");
        vmm.options.initrd = archives[i] > 0 ? archive_path : NULL;
        listen_start();
        boot_prepare(&vcpu); /* this vCPU has no KVM: paging_enter fails at the end */
        listen_end();
        struct boot_info info = info_found();
        uint32_t place = archives[i] > 0 ? archive_home() : 0;
        ck_assert_msg(info.archive_start == place && info.archive_bytes == archives[i],
                      "guest %zu, started after others: its archive is at 0x%x, %u bytes, instead "
                      "of 0x%x, %u bytes",
                      i + 1, info.archive_start, info.archive_bytes, place, archives[i]);
        ck_assert_msg(info.tick_ms == tick_ms,
                      "guest %zu, started after others: tick_ms is %u, with --tick-ms=%u", i + 1,
                      info.tick_ms, tick_ms);
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
