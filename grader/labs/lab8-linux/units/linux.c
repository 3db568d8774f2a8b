/*
 * linux.c - the part of lab 8's module that boots Linux, function by function, where no guest can
 * show it: hand-made files and headers, what an exit carries, what happens when a call fails.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "../../threads.h"
#include "lab8.h"

#include <malloc.h>
#include <poll.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#include "debug/entry_state.h"

MODULE(int, platform_start, (struct platform * platform, struct vcpu *vcpu), (platform, vcpu))
MODULE_VOID(platform_stop, (struct platform * platform), (platform))
MODULE(enum step, platform_deliver, (struct vcpu * vcpu), (vcpu))
MODULE(enum step, platform_halt, (struct vcpu * vcpu), (vcpu))
MODULE(const char *, bzimage_check,
       (const uint8_t *file, size_t file_bytes, size_t memory_bytes, struct setup_header *header),
       (file, file_bytes, memory_bytes, header), SEE(*header), see_text(&result))
MODULE(size_t, bzimage_setup_bytes, (const struct setup_header *header), (header), KEEP(*header))
MODULE(uint64_t, initrd_place,
       (const struct setup_header *header, size_t memory_bytes, size_t initrd_bytes),
       (header, memory_bytes, initrd_bytes), KEEP(*header))
MODULE(int, linux_load, (struct vcpu * vcpu, struct address_space *space), (vcpu, space),
       see_vcpu(vcpu), SEE_SPACE(space))
MODULE_VOID(linux_state,
            (struct address_space * space, struct kvm_sregs *sregs, struct kvm_regs *regs),
            (space, sregs, regs), SEE_SPACE(space), SEE(*sregs), SEE(*regs))
MODULE(int, linux_enter, (struct vcpu * vcpu, struct address_space *space), (vcpu, space),
       see_vcpu(vcpu), SEE_SPACE(space))
MODULE(enum step, linux_io, (struct vcpu * vcpu), (vcpu))
MODULE(enum step, linux_mmio, (struct vcpu * vcpu), (vcpu))
MODULE(int, bus_add, (struct bus * bus, const struct bus_range *range), (bus, range), KEEP(*range))
MODULE_VOID(pic_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE(uint64_t, pic_read, (void *device, uint64_t port, unsigned size), (device, port, size))
MODULE_VOID(pit_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE_VOID(uart_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE_VOID(pic_set_line, (struct pic * pic, unsigned irq, bool level), (pic, irq, level))

static uint64_t random64(void)
{
    return (uint64_t)unit_random() << 32 | unit_random();
}

/* ------------------------------------------------------------------ 8.4 the kernel's file */

#define HEADER_AT       0x1f1u /* of the file, and of the zero page */
#define HEADER_2_10_END 0x264u /* 2.11 added handover_offset */
#define HEADER_2_14_END 0x268u /* 2.15 added kernel_info_offset */
#define HEADER_ALL_END  (HEADER_AT + (unsigned)sizeof(struct setup_header))
#define SECTOR          512u
#define PARAGRAPH       16u
#define KERNEL_MAX      0x4000u
#define FILE_MAX        (256 * SECTOR + KERNEL_MAX)
#define SETUP_SECTS     7u

/* A file as its maker describes it: boot.rst, "The Real-Mode Kernel Header". */
static uint8_t file[FILE_MAX];
static PRIVATE uint8_t file_made[FILE_MAX]; /* the judge's copy */
static PRIVATE size_t file_bytes, memory_needed;
static PRIVATE size_t memory_spare; /* that a file accepted by check_accepted has above this */

static struct setup_header *header_of(uint8_t *bytes)
{
    return (struct setup_header *)(bytes + HEADER_AT);
}

/* A right file: its kernel unpacks itself to above `unpacked`, in `init_bytes`. */
static void file_make(unsigned setup_sects, uint64_t unpacked, uint32_t init_bytes)
{
    const uint32_t paragraphs = 0x21 + unit_random() % 0x300;

    random_fill(file, sizeof file);
    *header_of(file) = (struct setup_header){
        .setup_sects = (uint8_t)setup_sects,
        .root_flags = (uint16_t)unit_random(),
        .syssize = paragraphs,
        .ram_size = (uint16_t)unit_random(),
        .vid_mode = (uint16_t)unit_random(),
        .root_dev = (uint16_t)unit_random(),
        .boot_flag = 0xaa55,
        .jump = (uint16_t)(0xeb | (HEADER_AT + sizeof(struct setup_header) - 0x202) << 8),
        .header = 0x53726448,
        .version = 0x20f,
        .realmode_swtch = unit_random(),
        .start_sys_seg = (uint16_t)unit_random(),
        .kernel_version = (uint16_t)unit_random(),
        .loadflags = LOADED_HIGH,
        .setup_move_size = (uint16_t)unit_random(),
        .code32_start = unit_random(),
        .bootsect_kludge = unit_random(),
        .heap_end_ptr = (uint16_t)unit_random(),
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .min_alignment = 21,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 200 + unit_random() % 2000,
        .hardware_subarch = unit_random(),
        .hardware_subarch_data = unit_random(),
        .payload_offset = unit_random(),
        .payload_length = unit_random(),
        .pref_address = unpacked,
        .init_size = init_bytes,
        .handover_offset = unit_random(),
        .kernel_info_offset = unit_random(),
    };
    file_bytes = ((setup_sects ? setup_sects : 4) + 1) * SECTOR + paragraphs * PARAGRAPH;
    memory_needed = (size_t)unpacked + init_bytes;
}

static void file_usual(void)
{
    file_make(1 + unit_random() % 30, 0x1000000, (1 + unit_random() % 0x2000) * PAGE_BYTES);
}

static const char *check_cut(size_t bytes, size_t memory_bytes)
{
    struct setup_header header;

    return bzimage_check(copy_at_end(file, bytes), bytes, memory_bytes, &header);
}

static const char *check_file(void)
{
    return check_cut(file_bytes, memory_needed);
}

static void check_accepted_as(struct setup_header *header, const char *what)
{
    const char *wrong = bzimage_check(copy_at_end(file, file_bytes), file_bytes,
                                      memory_needed + memory_spare, header);

    ck_assert_msg(!wrong, "%s is refused: %s", what, wrong);
}

static void check_accepted(const char *what)
{
    struct setup_header header;

    check_accepted_as(&header, what);
}

/* The header ends here, as the byte at 0x201 says; what follows it in the file is code. */
static void check_end(unsigned version, unsigned end)
{
    struct setup_header header;
    const size_t all = sizeof header, bytes = MIN(end - HEADER_AT, all);
    char what[80];

    file_usual();
    header_of(file)->version = (uint16_t)version;
    header_of(file)->handover_offset |= 1;
    header_of(file)->kernel_info_offset |= 1;
    header_of(file)->jump = (uint16_t)(0xeb | (end - 0x202) << 8);
    memset(&header, 0xa5, sizeof header);
    snprintf(what, sizeof what, "a file of version 0x%x whose header ends at 0x%x", version, end);
    const struct setup_header made = *header_of(file);
    check_accepted_as(&header, what);
    ck_assert_msg(memcmp(&header, &made, bytes) == 0,
                  "%s, by the byte at 0x201: what is before that is the file's, and bzimage_check "
                  "does not set all of it in *header",
                  what);
    for (size_t i = bytes; i < all; i++)
        ck_assert_msg(((const uint8_t *)&header)[i] == 0,
                      "the byte at 0x201 says that the header ends at 0x%x; what follows is code, "
                      "and bzimage_check takes the byte at 0x%zx from there for the header's: "
                      "fields that the kernel does not have are 0",
                      end, HEADER_AT + i);
}

static void check_ends(void)
{
    for (unsigned version = 0x20c; version <= 0x20f; version++) {
        check_end(version, HEADER_ALL_END);
        check_end(version, HEADER_2_14_END);
        check_end(version, HEADER_2_10_END);
        check_end(version, 0x202 + 0xff);
        check_end(version, HEADER_ALL_END + unit_random() % (0x302 - HEADER_ALL_END));
        check_end(version, 0x282 + unit_random() % 0x80); /* 0x80 and more past 0x202 */
    }
}

START_TEST(bzimage_right)
{
    struct setup_header header;
    char what[60];

    memory_spare = (1 + unit_random() % 0x1000) * PAGE_BYTES; /* bzimage_room is about none */

    for (unsigned i = 0; i < 20; i++) {
        const unsigned sects = i == 0 ? 0 : i == 1 ? 255 : 1 + unit_random() % 60;
        file_make(sects, 0x1000000, (1 + unit_random() % 0x2000) * PAGE_BYTES);
        memset(&header, 0xa5, sizeof header);
        snprintf(what, sizeof what, "a right file with %u setup sectors", sects);
        const struct setup_header made = *header_of(file);
        check_accepted_as(&header, what);
        ck_assert_msg(memcmp(&header, &made, sizeof header) == 0,
                      "bzimage_check does not set *header to the file's, which is at 0x1f1");
        const size_t got = bzimage_setup_bytes(&header),
                     wanted = ((sects ? sects : 4) + 1) * SECTOR;
        ck_assert_msg(got == wanted,
                      "setup_sects is %u, and bzimage_setup_bytes returns %zu instead of %zu: the "
                      "boot sector comes first, and 0 means 4",
                      sects, got, wanted);
    }
    file_usual();
    header_of(file)->version = 0x20c;
    check_accepted("version 2.12");
    header_of(file)->xloadflags = 0x7f;
    header_of(file)->loadflags = 0xff;
    check_accepted("a file with all flags set");
    file_bytes += 1 + unit_random() % 100;
    check_accepted("a file with something after its kernel");
    for (int i = 0; i < 20; i++) {
        file_usual();
        header_of(file)->relocatable_kernel = (uint8_t)(i == 0 ? 0xff : 1 + unit_random() % 255);
        header_of(file)->loadflags = (uint8_t)(LOADED_HIGH | unit_random());
        header_of(file)->xloadflags = (uint16_t)(XLF_KERNEL_64 | unit_random());
        header_of(file)->version = (uint16_t)(i == 0 ? 0xffff : 0x20c + unit_random() % 0xfdf4);
        snprintf(what, sizeof what, "version 0x%x, relocatable_kernel 0x%x",
                 header_of(file)->version, header_of(file)->relocatable_kernel);
        check_accepted(what);
    }
    file_make(SETUP_SECTS, 0x100000, 0x40000);
    check_accepted("a kernel that is unpacked at 0x100000");
    header_of(file)->syssize = 0x21;
    check_accepted("a kernel of 0x210 bytes, 0x10 of them from the 64-bit entry point on");
    file_make(SETUP_SECTS, 0x100000, 0x40000);
    header_of(file)->relocatable_kernel = 0;
    check_accepted("a kernel that is not relocatable and is linked for 0x100000");

    check_ends();
}
END_TEST

START_TEST(bzimage_wrong)
{
    static const struct {
        const char *what;
        size_t at;
        unsigned bytes;
        uint32_t value;
    } changes[] = {
        {"a boot flag of 0", 0x1fe, 2, 0},
        {"a boot flag of 0x55aa", 0x1fe, 2, 0x55aa},
        {"a header without its magic", 0x202, 4, 0},
        {"a header with the magic HdrT", 0x202, 4, 0x54726448},
        {"version 2.11", 0x206, 2, 0x20b},
        {"version 2.2", 0x206, 2, 0x202},
        {"a kernel that is not loaded high", 0x211, 1, 0xfe},
        {"a kernel that is linked for 0x1000000 and not relocatable", 0x234, 1, 0},
        {"a kernel without a 64-bit entry point", 0x236, 2, 0},
        {"a kernel without a 64-bit entry point, other flags set", 0x236, 2, 0x7e},
        {"syssize 0x7fffffff", 0x1f4, 4, 0x7fffffff},
        {"syssize 0xffffffff", 0x1f4, 4, 0xffffffff},
        {"syssize 0x10000040, of which 32 bits of bytes are few", 0x1f4, 4, 0x10000040},
        {"setup_sects 255, more than the file has", 0x1f1, 1, 255},
        {"a kernel of 0x200 bytes, which ends at its entry point,", 0x1f4, 4, 0x20},
    };

    enum { CHANGES = sizeof changes / sizeof changes[0] };
    const size_t much = 1ul << 40;
    int order[CHANGES];

    memory_spare = (1 + unit_random() % 0x1000) * PAGE_BYTES;
    shuffle(order, CHANGES);
    for (int i = 0; i < CHANGES; i++) {
        const unsigned right =
            1 + unit_random() % 3; /* so that the number of calls does not show which is wrong */
        file_usual();
        for (unsigned j = 0; j < right; j++)
            check_accepted("a right file");
        memcpy(file + changes[order[i]].at, &changes[order[i]].value, changes[order[i]].bytes);
        ck_assert_msg(check_cut(file_bytes, i % 2 ? memory_needed : much), "%s is not refused",
                      changes[order[i]].what);
        ck_assert_msg(check_cut(file_bytes, much),
                      "%s is not refused, where memory is large enough for all that it claims",
                      changes[order[i]].what);
    }
    file_usual();
    for (size_t bytes = 0; bytes < file_bytes; bytes += bytes < 0x300 ? 1 : 61) {
        ck_assert_msg(check_cut(bytes, memory_needed),
                      "a file of %zu bytes, cut to %zu, is not refused", file_bytes, bytes);
        if (unit_random() % 16 == 0)
            check_accepted("a right file");
    }
    ck_assert_msg(check_cut(file_bytes - 1, memory_needed), "a file without its last byte is not "
                                                            "refused");
}
END_TEST

START_TEST(bzimage_room)
{
    static const uint64_t far[] = {0x4000000000000000, 0xffffffff01000000, 0xfffffffffffff000};

    for (int i = 0; i < 20; i++) {
        file_usual();
        for (unsigned j = unit_random() % 3; j > 0; j--)
            check_accepted("a kernel with just as much memory as it unpacks itself to");
        ck_assert_msg(check_cut(file_bytes, memory_needed - PAGE_BYTES),
                      "the kernel unpacks itself to 0x%zx (pref_address + init_size), memory ends "
                      "a page before, and it is not refused",
                      memory_needed);
        ck_assert_msg(check_cut(file_bytes, 0x1000000),
                      "memory ends where the kernel unpacks itself to, and it is not refused");
        ck_assert_msg(check_cut(file_bytes, 0x110000), "memory of 1.1 MB is not refused");
    }
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        file_usual();
        check_accepted("a right file");
        header_of(file)->pref_address = far[i];
        ck_assert_msg(check_file(),
                      "pref_address 0x%llx is not refused (init_size is 0x%x: does their sum fit "
                      "in 64 bits?)",
                      (unsigned long long)far[i], header_of(file)->init_size);
    }
    for (int i = 0; i < 4; i++) { /* the low 32 bits of the address are a place in memory */
        const uint32_t low = (0x100 + unit_random() % 0xf00) * PAGE_BYTES;
        file_usual();
        header_of(file)->pref_address = UINT64_MAX << 32 | low;
        header_of(file)->init_size = 0u - low + (i % 2 ? unit_random() % 0x100 * PAGE_BYTES : 0);
        ck_assert_msg(check_file(),
                      "pref_address 0x%llx and init_size 0x%x, whose sum does not fit in 64 bits, "
                      "are not refused",
                      (unsigned long long)header_of(file)->pref_address,
                      header_of(file)->init_size);
    }
    file_usual();
    header_of(file)->init_size = UINT32_MAX;
    ck_assert_msg(check_file(), "init_size 0xffffffff is not refused");
    file_make(SETUP_SECTS, unit_random() % 0x100 * PAGE_BYTES, 0x200000);
    memory_needed = 0x100000 + 0x200000;
    check_accepted("a kernel that would unpack itself to below where it is loaded");
    ck_assert_msg(check_cut(file_bytes, memory_needed - PAGE_BYTES),
                  "pref_address 0x%llx is below where the kernel is loaded, so it needs init_size "
                  "bytes from 0x100000 on; memory ends a page before, and it is not refused",
                  (unsigned long long)header_of(file)->pref_address);
    file_make(SETUP_SECTS, 0x100000, PAGE_BYTES);
    header_of(file)->syssize = KERNEL_MAX / PARAGRAPH;
    file_bytes = (SETUP_SECTS + 1) * SECTOR + KERNEL_MAX;
    memory_needed = 0x100000 + KERNEL_MAX;
    check_accepted("a kernel that fills memory as it is loaded");
    ck_assert_msg(check_cut(file_bytes, memory_needed - PAGE_BYTES),
                  "the kernel as it is loaded, at 0x100000, is larger than memory, and it is not "
                  "refused");
}
END_TEST

static void check_place(const struct setup_header *header, uint64_t memory, uint64_t bytes,
                        uint64_t wanted, const char *why)
{
    const uint64_t got = initrd_place(header, memory, bytes),
                   from = header->pref_address < 0x100000 ? 0x100000 : header->pref_address,
                   unpacked = from + header->init_size;

    ck_assert_msg(got == wanted,
                  "an initrd of 0x%llx bytes, RAM of 0x%llx, initrd_addr_max 0x%x, a kernel that "
                  "unpacks itself to 0x%llx: initrd_place returns 0x%llx instead of 0x%llx: %s",
                  (unsigned long long)bytes, (unsigned long long)memory, header->initrd_addr_max,
                  (unsigned long long)unpacked, (unsigned long long)got, (unsigned long long)wanted,
                  why);
}

START_TEST(initrd)
{
    for (int i = 0; i < 40; i++) {
        file_usual();
        struct setup_header header = *header_of(file);
        const uint64_t end = memory_needed, pages = 1 + unit_random() % 2000,
                       part = 1 + unit_random() % (PAGE_BYTES - 1), whole = pages * PAGE_BYTES,
                       memory = end + whole + (1 + unit_random() % 5000) * PAGE_BYTES;
        check_place(&header, memory, whole, memory - whole, "as high as RAM allows");
        check_place(&header, memory, whole - part, memory - whole,
                    "a page-aligned address, so the last page may not be full");
        check_place(&header, end + whole, whole, end, "it just fits between kernel and end of RAM");
        check_place(&header, end + whole - PAGE_BYTES, whole, 0,
                    "it does not fit above the kernel");
        check_place(&header, end + whole, whole + 1, 0, "one byte more than fits");
        check_place(&header, memory, memory + part, 0, "it is larger than RAM");
        check_place(&header, memory, UINT64_MAX - part, 0, "it is much larger than RAM");
        check_place(&header, 0x200000000, whole, 0x80000000 - whole,
                    "its last byte is at most at initrd_addr_max");
        header.initrd_addr_max = 0xffffffff;
        check_place(&header, 0x200000000, whole, 0x100000000 - whole,
                    "its last byte is at most at initrd_addr_max, 4 GB - 1");
        header.initrd_addr_max = (uint32_t)(end + whole + PAGE_BYTES + part - 1);
        check_place(&header, memory + 0x10000000, whole, end + PAGE_BYTES,
                    "initrd_addr_max is not at the end of a page");
        header.initrd_addr_max = (uint32_t)(end + whole + part - 1);
        check_place(&header, memory + 0x10000000, whole + 1 + unit_random() % part, end,
                    "its last page begins below initrd_addr_max + 1 and may end above it, if the "
                    "initrd's last byte does not");
        header.initrd_addr_max = (uint32_t)(end + whole - 2);
        check_place(&header, memory + 0x10000000, whole, 0,
                    "there is no room between kernel and initrd_addr_max");
        header = *header_of(file);
        header.syssize = (uint32_t)(end / PARAGRAPH + unit_random() % 0x1000);
        const uint64_t loaded = 0x100000 + (uint64_t)header.syssize * PARAGRAPH,
                       above = (loaded + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        check_place(&header, above + whole, whole, above,
                    "the kernel as it is loaded ends above where it unpacks itself to, and the "
                    "initrd just fits above that");
        check_place(&header, above + whole - PAGE_BYTES, whole, 0,
                    "the kernel as it is loaded ends above where it unpacks itself to, and the "
                    "initrd does not fit above that");
        header.initrd_addr_max = 0xffffffff;
        header.syssize = (uint32_t)(0x10000000 + unit_random() % 0x1000);
        check_place(&header, 0x200000000, whole, 0,
                    "syssize * 16 is more than 4 GB, so there is no room up to initrd_addr_max");
        header = *header_of(file);
        header.pref_address = PAGE_BYTES;
        check_place(&header, 0x100000 + header.init_size + whole - PAGE_BYTES, whole, 0,
                    "below 0x100000 it does not unpack itself to pref_address, but to where it is "
                    "loaded");
    }
}
END_TEST

/* ------------------------------------------------------------------ 8.4 linux_load */

#define SPACE_BYTES 0x400000u

static uint8_t ram[SPACE_BYTES + PAGE_BYTES];
static struct vm vm;
static union {
    struct kvm_run run;
    uint8_t page[2 * PAGE_BYTES];
} exit_page;

/* A Linux guest's vCPU without KVM: kvm_run is plain memory, ioctls are answered 0. */
static struct vcpu *start_vcpu(void)
{
    vmm.guest_count = vmm.vm_count = 1;
    vmm.guests[0] = (struct guest){
        .path = "the-kernel", .kind = GUEST_LINUX, .image = file, .image_bytes = file_bytes};
    vm_init(&vm, &vmm);
    vcpu_init(&vmm.vcpus[0], 0, 0, &vm, &vmm.guests[0]);
    memset(&exit_page, 0, sizeof exit_page);
    vmm.vcpus[0].run = &exit_page.run;
    falsified.request = KVM_INTERRUPT;
    falsified.answered = true;
    falsified.kvm_run = &exit_page.run;
    return &vmm.vcpus[0];
}

static int tsc_khz = 2000000; /* the TSC's frequency, as KVM says; 0: it does not know it */

#define FILL 0xa5 /* memory is not always zero */

static int load(struct address_space *space, const char *words, const char *initrd_path)
{
    struct vcpu *vcpu = start_vcpu();

    falsified = (struct falsified){.request = KVM_GET_TSC_KHZ,
                                   .answered = tsc_khz != 0,
                                   .answer = tsc_khz,
                                   .error = tsc_khz ? 0 : EIO};
    memcpy(file_made, file, sizeof file);
    memset(ram, FILL, sizeof ram);
    *space = (struct address_space){
        .memory = ram, .base = 0, .bytes = SPACE_BYTES, .next_table = TABLES_OFFSET};
    vm.ram = ram;
    vm.ram_bytes = SPACE_BYTES;
    vmm.options.ram_bytes = SPACE_BYTES;
    vmm.options.cmdline = words ? strcpy(memory_for_both(strlen(words) + 1), words) : NULL;
    vmm.options.initrd = initrd_path;
    listen_start();
    int status = linux_load(vcpu, space);
    listen_end();
    return status;
}

/* What is in memory at the zero page. */
static struct boot_params zero_page_read(void)
{
    struct boot_params page;

    memcpy(&page, ram + ZERO_PAGE_OFFSET, sizeof page);
    return page;
}

/* The header is the file's, but for what a loader writes: boot.rst, "modify" and "write". */
static void check_header(const struct setup_header *got)
{
    struct setup_header wanted;

    memcpy(&wanted, file_made + HEADER_AT, sizeof wanted);
    wanted.vid_mode = got->vid_mode;
    wanted.type_of_loader = got->type_of_loader;
    wanted.loadflags = got->loadflags;
    wanted.code32_start = got->code32_start;
    wanted.ramdisk_image = got->ramdisk_image;
    wanted.ramdisk_size = got->ramdisk_size;
    wanted.heap_end_ptr = got->heap_end_ptr;
    wanted.ext_loader_ver = got->ext_loader_ver;
    wanted.ext_loader_type = got->ext_loader_type;
    wanted.cmd_line_ptr = got->cmd_line_ptr;
    for (size_t i = 0; i < sizeof wanted; i++)
        ck_assert_msg(((const uint8_t *)got)[i] == ((const uint8_t *)&wanted)[i],
                      "the zero page's byte at 0x%zx is not the file's: its header is copied as a "
                      "whole",
                      HEADER_AT + i);
}

/* The rest of the zero page is zeros. */
static void check_zeros(const struct boot_params *page)
{
    struct boot_params rest = *page;

    memset(&rest.hdr, 0, sizeof rest.hdr);
    memset(rest.e820_table, 0, 2 * sizeof rest.e820_table[0]);
    rest.e820_entries = 0;
    for (size_t i = 0; i < sizeof rest; i++)
        ck_assert_msg(((const uint8_t *)&rest)[i] == 0,
                      "the zero page's byte at 0x%zx is 0x%x: memory is not zero before, so clear "
                      "all of the page first",
                      i, ((const uint8_t *)&rest)[i]);
}

/* What the file has after its kernel is not loaded. */
static void check_after_kernel(void)
{
    struct address_space space;

    for (int i = 0; i < 4; i++) {
        file_make(1 + unit_random() % 30, 0x100000, 0x100000);
        const uint64_t end = KERNEL_OFFSET + (uint64_t)header_of(file)->syssize * PARAGRAPH;
        file_bytes += 1 + unit_random() % 0x800;
        int status = load(&space, "words", NULL);
        ck_assert_msg(status == 0,
                      "linux_load of a file with something after its kernel returns %d", status);
        for (uint64_t at = end; at < SPACE_BYTES; at++)
            ck_assert_msg(ram[at] == FILL,
                          "linux_load wrote to 0x%llx; the kernel is syssize units of 16 bytes and "
                          "ends at 0x%llx, and what the file has after it is not a part of it",
                          (unsigned long long)at, (unsigned long long)end);
    }
}

START_TEST(zero_page)
{
    struct address_space space;

    check_after_kernel();

    for (int i = 0; i < 5; i++) {
        file_make(1 + unit_random() % 30, 0x100000, 0x100000 + unit_random() % 0x100 * PAGE_BYTES);
        int status = load(&space, "words", NULL);
        ck_assert_msg(status == 0, "linux_load of a right file returns %d", status);
        const struct boot_params page = zero_page_read();
        check_header(&page.hdr);
        check_zeros(&page);
        ck_assert_msg(page.hdr.type_of_loader == 0xff, "type_of_loader is 0x%x instead of 0xff",
                      page.hdr.type_of_loader);
        ck_assert_msg(page.hdr.loadflags & LOADED_HIGH, "loadflags has lost LOADED_HIGH");
        ck_assert_msg(page.hdr.ramdisk_image == 0 && page.hdr.ramdisk_size == 0,
                      "there is no --initrd, and ramdisk_image is 0x%x, ramdisk_size 0x%x",
                      page.hdr.ramdisk_image, page.hdr.ramdisk_size);
        ck_assert_msg(page.e820_entries == 2, "the e820 map has %u entries instead of 2",
                      page.e820_entries);
        ck_assert_msg(page.e820_table[0].addr == 0 && page.e820_table[0].size == LOW_RAM_END &&
                          page.e820_table[0].type == 1,
                      "the first e820 entry is 0x%llx, 0x%llx bytes, type %u; low RAM is from 0 to "
                      "LOW_RAM_END, type 1",
                      page.e820_table[0].addr, page.e820_table[0].size, page.e820_table[0].type);
        ck_assert_msg(page.e820_table[1].addr == KERNEL_OFFSET &&
                          page.e820_table[1].size == SPACE_BYTES - KERNEL_OFFSET &&
                          page.e820_table[1].type == 1,
                      "the second e820 entry is 0x%llx, 0x%llx bytes, type %u; it is RAM from "
                      "KERNEL_OFFSET on to its end at 0x%x",
                      page.e820_table[1].addr, page.e820_table[1].size, page.e820_table[1].type,
                      SPACE_BYTES);
        struct setup_header made;
        memcpy(&made, file_made + HEADER_AT, sizeof made);
        const size_t setup = file_bytes - made.syssize * PARAGRAPH;
        ck_assert_msg(memcmp(ram + KERNEL_OFFSET, file_made + setup, file_bytes - setup) == 0,
                      "at KERNEL_OFFSET is not the file from byte %zu on, where its real-mode part "
                      "ends",
                      setup);
    }
}
END_TEST

/* The command line that a kernel finds without --cmdline. */
static const char *usual_words(struct address_space *space)
{
    int status = load(space, NULL, NULL);

    ck_assert_msg(status == 0,
                  "linux_load without --cmdline returns %d where KVM %s the TSC's "
                  "frequency",
                  status, tsc_khz ? "knows" : "does not know");
    return (const char *)ram + zero_page_read().hdr.cmd_line_ptr % SPACE_BYTES;
}

START_TEST(command_line)
{
    static PRIVATE char words[0x12000];
    struct address_space space;

    int status;

    for (int i = 0; i < 4; i++) {
        file_make(SETUP_SECTS, 0x100000, 0x100000);
        snprintf(words, sizeof words, "word%u another=%u", unit_random(), unit_random());
        status = load(&space, words, NULL);
        ck_assert_msg(status == 0, "linux_load with a --cmdline of %zu characters returns %d",
                      strlen(words), status);
        const uint32_t at = zero_page_read().hdr.cmd_line_ptr;
        ck_assert_msg(at < SPACE_BYTES - sizeof words &&
                          memcmp(ram + at, words, strlen(words) + 1) == 0,
                      "--cmdline is \"%s\", and where cmd_line_ptr (0x%x) points to is \"%.100s\": "
                      "the same text is wanted there, nothing else, and its zero",
                      words, at, (const char *)ram + at % SPACE_BYTES);
    }
    file_make(SETUP_SECTS, 0x100000, 0x100000);
    header_of(file)->cmdline_size = 20 + unit_random() % 20;
    status = load(&space, NULL, NULL);
    ck_assert_msg(status == STATUS_USAGE,
                  "without --cmdline the command line is longer than cmdline_size, %u: linux_load "
                  "returns %d instead of STATUS_USAGE",
                  header_of(file)->cmdline_size, status);
    header_of(file)->cmdline_size = sizeof LINUX_COMMAND_LINE LINUX_TSC + 10;
    tsc_khz = (int)(1000000 + unit_random() % 4000000);
    snprintf(words, sizeof words, LINUX_COMMAND_LINE LINUX_TSC, tsc_khz);
    const char *text = usual_words(&space);
    ck_assert_msg(strcmp(text, words) == 0,
                  "KVM knows the TSC's frequency as %d kHz, and without --cmdline the command line "
                  "is \"%s\" instead of \"%s\"",
                  tsc_khz, text, words);
    tsc_khz = 0;
    snprintf(words, sizeof words, LINUX_COMMAND_LINE LINUX_TSC, 0);
    text = usual_words(&space);
    ck_assert_msg(strcmp(text, words) == 0 || strcmp(text, LINUX_COMMAND_LINE) == 0,
                  "KVM does not know the TSC's frequency, and without --cmdline the command line "
                  "is \"%s\": LINUX_TSC is left out then, or says 0",
                  text);

    status = load(&space, "", NULL);
    ck_assert_msg(status == 0, "linux_load with an empty --cmdline returns %d", status);
    text = (const char *)ram + zero_page_read().hdr.cmd_line_ptr % SPACE_BYTES;
    ck_assert_msg(*text == '\0',
                  "--cmdline is empty, and the command line is \"%.100s\": only without --cmdline "
                  "it is LINUX_COMMAND_LINE",
                  text);

    header_of(file)->cmdline_size = 200 + unit_random() % 2000;
    const uint32_t most = header_of(file)->cmdline_size;
    memset(words, 'w', most);
    words[most] = '\0';
    status = load(&space, words, NULL);
    ck_assert_msg(status == 0,
                  "a command line of cmdline_size (%u) characters, without its zero, is refused",
                  most);
    const struct boot_params page = zero_page_read();
    ck_assert_msg(memcmp(ram + page.hdr.cmd_line_ptr % SPACE_BYTES, words, most + 1) == 0,
                  "the longest command line is not complete in memory");
    memset(words, 'w', most + 1);
    words[most + 1] = '\0';
    status = load(&space, words, NULL);
    ck_assert_msg(status == STATUS_USAGE,
                  "a command line of cmdline_size + 1 (%u) characters: linux_load returns %d "
                  "instead of STATUS_USAGE",
                  most + 1, status);
    header_of(file)->cmdline_size = UINT32_MAX;
    const uint32_t room = LOAD_MIN - COMMAND_LINE_OFFSET;
    memset(words, 'w', room);
    words[room - 1] = '\0';
    status = load(&space, words, NULL);
    ck_assert_msg(status == 0 && memcmp(ram + zero_page_read().hdr.cmd_line_ptr % SPACE_BYTES,
                                        words, room) == 0,
                  "a command line of %u characters and its zero just fit before LOAD_MIN, and "
                  "linux_load returns %d, or has not all of it in memory",
                  room - 1, status);
    for (size_t count = room; count < sizeof words; count += sizeof words - 1 - room) {
        memset(words, 'w', count);
        words[count] = '\0';
        status = load(&space, words, NULL);
        ck_assert_msg(status == STATUS_USAGE,
                      "a command line of %zu characters and its zero would overwrite what is at "
                      "LOAD_MIN: linux_load returns %d instead of STATUS_USAGE",
                      count, status);
    }
}
END_TEST

THERE(size_t, heap_used, (void), ())
{
    const struct mallinfo2 heap = mallinfo2();

    return heap.uordblks + heap.hblkhd;
}

THERE_VOID(memory_limit, (bool limited), (limited))
{
    struct rlimit limit;

    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limited ? 0 : limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
}

void __tsan_init(void) __attribute__((weak));

#define INITRD_BYTES 0x180000 /* of which one fits, and none above a kernel of 0x200000 bytes */

static char initrd_path[sizeof "initrd-XXXXXX"];

static void initrd_write(void)
{
    static PRIVATE uint8_t bytes[INITRD_BYTES];

    strcpy(initrd_path, "initrd-XXXXXX");
    int fd = mkstemp(initrd_path);
    random_fill(bytes, sizeof bytes);
    ck_assert_msg(fd >= 0 && write(fd, bytes, sizeof bytes) == sizeof bytes,
                  "the grader can't write a file for --initrd");
    close(fd);
}

/*
 * An initrd that is loaded, and one that can't be: what file_read gave is freed. First, where
 * the heap has not grown yet, one for which it would have to.
 */
static void check_initrds(void)
{
    struct address_space space;

    initrd_write();
    header_of(file)->init_size = 0x100000;
    if (!__asan_region_is_poisoned && !__tsan_init) {
        memory_limit(true);
        int status = load(&space, "right", initrd_path);
        memory_limit(false);
        ck_assert_msg(status == STATUS_NO_KVM,
                      "the host has no memory to read the initrd: linux_load returns %d instead of "
                      "what file_read returns, STATUS_NO_KVM",
                      status);
    }
    for (unsigned i = 0; i < 4; i++) {
        const bool fits = i % 2 == 0;
        const size_t before = heap_used();
        header_of(file)->init_size = fits ? 0x100000 : 0x200000;
        int status = load(&space, "right", initrd_path);
        const size_t grown = heap_used() - before;
        ck_assert_msg(status == (fits ? 0 : STATUS_GUEST_FILE),
                      "an --initrd that %s: linux_load returns %d instead of %s",
                      fits ? "fits" : "does not fit above the kernel", status,
                      fits ? "0" : "STATUS_GUEST_FILE");
        ck_assert_msg((int64_t)grown < INITRD_BYTES,
                      "an --initrd that %s: linux_load leaves %zu bytes allocated: free what "
                      "file_read has given you",
                      fits ? "fits" : "does not fit above the kernel", grown);
    }
    unlink(initrd_path);
}

START_TEST(load_failure)
{
    struct address_space space;

    file_make(SETUP_SECTS, 0x100000, 0x100000);
    int status = load(&space, "right", NULL);
    check_works("linux_load", status);
    header_of(file)->version = 0x20b;
    status = load(&space, "wrong", NULL);
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "a kernel that bzimage_check refuses: linux_load returns %d instead of "
                  "STATUS_GUEST_FILE",
                  status);
    ck_assert_msg(strstr(said, "the-kernel"), "the message about a wrong kernel does not name it");
    header_of(file)->version = 0x20f;
    header_of(file)->init_size = SPACE_BYTES - 0x100000 + PAGE_BYTES;
    status = load(&space, "large", NULL);
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "a kernel that unpacks itself past RAM: linux_load returns %d instead of "
                  "STATUS_GUEST_FILE",
                  status);
    header_of(file)->init_size = 0x100000;
    status = load(&space, "right", "no-such-initrd");
    ck_assert_msg(status == STATUS_GUEST_FILE,
                  "an --initrd that does not exist: linux_load returns %d instead of "
                  "STATUS_GUEST_FILE",
                  status);
    check_initrds();
}
END_TEST

/* ------------------------------------------------------------------ 8.5 the start */

static uint64_t gdt_entry(unsigned selector)
{
    uint64_t entry;

    memcpy(&entry, ram + GDT_OFFSET + selector, sizeof entry);
    return entry;
}

/* A flat segment in the GDT: SDM vol. 3, figure 3-8, and 5.2.1 for L. */
static void check_flat(unsigned selector, bool code)
{
    const uint64_t raw = gdt_entry(selector);
    const unsigned type = raw >> 40 & 15;
    const char *name = code ? "code" : "data";

    ck_assert_msg((raw >> 44 & 1) && (raw >> 47 & 1) && (raw >> 45 & 3) == 0,
                  "selector 0x%x, %s: descriptor 0x%016llx; S and P must be 1, DPL 0", selector,
                  name, (unsigned long long)raw);
    ck_assert_msg((raw & 0x00cf00000000ffff & ~(0x40ull << 48)) == 0x008f00000000ffff &&
                      (raw >> 16 & 0xffffff) == 0 && raw >> 56 == 0,
                  "selector 0x%x, %s: descriptor 0x%016llx is not a flat segment of 4 GB", selector,
                  name, (unsigned long long)raw);
    ck_assert_msg(code ? (type & 8) != 0 : (type & 0xe) == 2, "selector 0x%x: type %u is not %s",
                  selector, type, name);
    if (code)
        ck_assert_msg((raw >> 53 & 1) && !(raw >> 54 & 1),
                      "selector 0x%x: L is %d and D/B %d; 64-bit code has L = 1 and D/B = 0",
                      selector, (int)(raw >> 53 & 1), (int)(raw >> 54 & 1));
}

#define STACK_BYTES 512u /* that a kernel may push before it has a stack of its own */

/* Nothing that the kernel finds in memory is where its stack is. */
static void check_stack(uint64_t rsp, const struct address_space *space, const char *words)
{
    const struct boot_params page = zero_page_read();
    const uint64_t kernel_end = KERNEL_OFFSET + page.hdr.init_size,
                   words_at = page.hdr.cmd_line_ptr;
    const struct {
        uint64_t start, end;
        const char *what;
    } used[] = {
        {GDT_OFFSET, TSS_OFFSET, "the GDT"},
        {DIRECTORY_OFFSET, TABLES_OFFSET + 8 * PAGE_BYTES, "the page tables"},
        {ZERO_PAGE_OFFSET, ZERO_PAGE_OFFSET + PAGE_BYTES, "the zero page"},
        {words_at, words_at + strlen(words) + 1, "the command line"},
        {LOW_RAM_END, KERNEL_OFFSET, "what is not RAM"},
        {KERNEL_OFFSET, kernel_end, "the kernel, or what it unpacks itself to"},
    };

    ck_assert_msg(rsp >= STACK_BYTES && rsp <= space->bytes,
                  "RSP is 0x%llx, and the stack grows down from there: that is not in RAM, which "
                  "ends at 0x%x",
                  (unsigned long long)rsp, space->bytes);
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        ck_assert_msg(rsp <= used[i].start || rsp - STACK_BYTES >= used[i].end,
                      "RSP is 0x%llx, and the stack grows down from there over %s, 0x%llx to "
                      "0x%llx: RSP is in free RAM",
                      (unsigned long long)rsp, used[i].what, (unsigned long long)used[i].start,
                      (unsigned long long)used[i].end);
}

START_TEST(state)
{
    static const char words[] = "a command line, of which nothing is lost, with=some more=words";
    static struct kvm_sregs sregs;
    static struct kvm_regs regs;
    struct address_space space;

    file_make(SETUP_SECTS, 0x100000, 0x100000);
    check_works("linux_load", load(&space, words, NULL));
    sregs = entry_reset_state();
    sregs.apic_base = 0xfee00900;
    memset(&regs, 0xa5, sizeof regs);
    linux_state(&space, &sregs, &regs);
    ck_assert_msg((sregs.cr0 & (CR0_PE | CR0_PG)) == (CR0_PE | CR0_PG) && sregs.cr4 & CR4_PAE &&
                      sregs.efer & EFER_LME && sregs.efer & EFER_LMA,
                  "CR0 0x%llx, CR4 0x%llx, EFER 0x%llx: that is not long mode", sregs.cr0,
                  sregs.cr4, sregs.efer);
    ck_assert_msg(sregs.cr3 == DIRECTORY_OFFSET, "CR3 is 0x%llx: lab 7's tables are at 0x%x",
                  sregs.cr3, DIRECTORY_OFFSET);
    ck_assert_msg(regs.rip == KERNEL_OFFSET + KERNEL_ENTRY_64,
                  "RIP is 0x%llx; the 64-bit entry point is 0x200 past the kernel, at 0x100200",
                  regs.rip);
    ck_assert_msg(regs.rsi == ZERO_PAGE_OFFSET, "RSI is 0x%llx instead of the zero page's address",
                  regs.rsi);
    ck_assert_msg((regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rdi | regs.rbp | regs.r8 |
                   regs.r9 | regs.r10 | regs.r11 | regs.r12 | regs.r13 | regs.r14 | regs.r15) == 0,
                  "the other general registers but RSP must be 0");
    ck_assert_msg(regs.rflags == FLAGS_ALWAYS_ONE,
                  "RFLAGS is 0x%llx instead of 2: interrupts are disabled", regs.rflags);
    check_stack(regs.rsp, &space, words);
    check_flat(SELECTOR_BOOT_CODE, true);
    check_flat(SELECTOR_BOOT_DATA, false);
    ck_assert_msg(gdt_entry(0) == 0, "the first entry of the GDT is not the null descriptor");
    ck_assert_msg((sregs.gdt.base & ~HIGHER_HALF_64) == GDT_OFFSET &&
                      sregs.gdt.limit >= SELECTOR_BOOT_DATA + 7,
                  "GDTR has base 0x%llx and limit 0x%x: it does not include both descriptors",
                  sregs.gdt.base, sregs.gdt.limit);
    ck_assert_msg(sregs.cs.selector == SELECTOR_BOOT_CODE && sregs.cs.l && !sregs.cs.db &&
                      sregs.cs.base == 0,
                  "CS: selector 0x%x, L %u, D/B %u, base 0x%llx instead of 0x10, 1, 0, 0",
                  sregs.cs.selector, sregs.cs.l, sregs.cs.db, sregs.cs.base);
    const struct kvm_segment *data[] = {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
    static const char *const names[] = {"DS", "ES", "FS", "GS", "SS"};
    for (size_t i = 0; i < sizeof data / sizeof data[0]; i++)
        ck_assert_msg(data[i]->selector == SELECTOR_BOOT_DATA && data[i]->base == 0,
                      "%s: selector 0x%x, base 0x%llx instead of 0x18 and 0", names[i],
                      data[i]->selector, data[i]->base);
    const char *fault = entry_state_fault(&sregs, &regs);
    ck_assert_msg(
        !fault, "AMD's processors forgive it, Intel's refuse the entry with this state: %s", fault);
}
END_TEST

static struct { /* a struct kvm_msrs */
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entry;
} msr_list;

/* This MSR of the vCPU. */
static uint64_t misc_enable(struct vcpu *vcpu)
{
    msr_list.nmsrs = 1;
    msr_list.entry.index = MSR_MISC_ENABLE;
    ck_assert(kernel(vcpu->fd, KVM_GET_MSRS, &msr_list) == 1);
    return msr_list.entry.data;
}

/* It has another value than after reset, if KVM takes that. */
static void misc_enable_change(struct vcpu *vcpu)
{
    msr_list.entry.data = misc_enable(vcpu) ^ (1u << 16 | (unit_random() & 1) << 3);
    kernel(vcpu->fd, KVM_SET_MSRS, &msr_list);
}

/* A VM with a vCPU, and its memory as a space. */
static struct address_space start_space(struct vm *real_vm, struct vcpu *vcpu)
{
    start_created(real_vm, vcpu);
    guest.kind = GUEST_LINUX;
    return (struct address_space){.memory = real_vm->ram,
                                  .base = 0,
                                  .bytes = (uint32_t)real_vm->ram_bytes,
                                  .next_table = TABLES_OFFSET};
}

/* Where the tables in this memory lead to: SDM vol. 3, 4.5 "4-Level Paging"; UINT64_MAX: nowhere.
 */
static uint64_t walk(const struct vm *of, uint64_t linear)
{
    uint64_t entry = DIRECTORY_OFFSET;

    for (unsigned shift = 39; shift >= 12; shift -= 9) {
        const uint64_t place = (entry & 0xffffffffff000) + 8 * (linear >> shift & 511);
        if (place > of->ram_bytes - sizeof entry)
            return UINT64_MAX;
        memcpy(&entry, of->ram + place, sizeof entry);
        if (!(entry & PAGE_PRESENT))
            return UINT64_MAX;
        if (shift == 12 || (shift == 21 && entry & PAGE_LARGE))
            return (entry & 0xffffffffff000 & UINT64_MAX << shift) |
                   (linear & ~(UINT64_MAX << shift));
    }
    return UINT64_MAX;
}

/* Memory is not zero before, and the vCPU may have been started already. */
static void check_tables(const struct vm *of)
{
    for (unsigned i = 0; i < 20; i++) {
        const uint64_t linear = unit_random() % (uint32_t)of->ram_bytes, phys = walk(of, linear);
        ck_assert_msg(phys == linear,
                      "the tables in memory, which was not zero before, map 0x%llx to 0x%llx: "
                      "linux_enter builds lab 7's tables",
                      (unsigned long long)linear, (unsigned long long)phys);
    }
}

static void check_enter(struct vm *real_vm, struct vcpu *vcpu, struct address_space *space)
{
    random_fill(real_vm->ram, real_vm->ram_bytes);
    space->next_table = TABLES_OFFSET;
    const uint64_t before = misc_enable(vcpu);
    int status = linux_enter(vcpu, space);
    ck_assert_msg(status == 0, "linux_enter returns %d instead of 0", status);
    ck_assert_msg(misc_enable(vcpu) == (before | MISC_ENABLE_FAST_STRINGS),
                  "IA32_MISC_ENABLE was 0x%llx and is 0x%llx: bit 0, fast strings, is set after "
                  "linux_enter, and no other bit changes",
                  (unsigned long long)before, (unsigned long long)misc_enable(vcpu));
    check_tables(real_vm);
}

START_TEST(enter)
{
    struct vm real_vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&real_vm, &vcpu);

    misc_enable_change(&vcpu);
    for (int i = 0; i < 2; i++) /* the second time bit 0 of the MSR is set before */
        check_enter(&real_vm, &vcpu, &space);
    ck_assert_msg(call_find(KVM_SET_CPUID2), "the vCPU has no CPUID: vcpu_show_cpuid sets it");
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    ck_assert(kernel(vcpu.fd, KVM_GET_SREGS, &sregs) == 0);
    ck_assert(kernel(vcpu.fd, KVM_GET_REGS, &regs) == 0);
    ck_assert_msg(sregs.cr3 == DIRECTORY_OFFSET && sregs.efer & EFER_LMA &&
                      sregs.cs.selector == SELECTOR_BOOT_CODE,
                  "the vCPU has CR3 0x%llx, EFER 0x%llx and CS 0x%x: linux_enter sets the start "
                  "state of linux_state",
                  sregs.cr3, sregs.efer, sregs.cs.selector);
    ck_assert_msg(regs.rip == KERNEL_OFFSET + KERNEL_ENTRY_64 && regs.rsi == ZERO_PAGE_OFFSET,
                  "the vCPU has RIP 0x%llx and RSI 0x%llx: linux_enter sets the start state of "
                  "linux_state",
                  regs.rip, regs.rsi);
}
END_TEST

START_TEST(enter_failure)
{
    static const struct {
        unsigned long request;
        const char *name;
    } ioctls[] = {
        {KVM_SET_CPUID2, "KVM_SET_CPUID2"}, {KVM_GET_MSRS, "KVM_GET_MSRS"},
        {KVM_SET_MSRS, "KVM_SET_MSRS"},     {KVM_GET_SREGS, "KVM_GET_SREGS"},
        {KVM_SET_SREGS, "KVM_SET_SREGS"},   {KVM_SET_REGS, "KVM_SET_REGS"},
    };
    bool used[sizeof ioctls / sizeof ioctls[0]];
    struct vm real_vm;
    struct vcpu vcpu;
    struct address_space space = start_space(&real_vm, &vcpu);

    check_works("linux_enter", linux_enter(&vcpu, &space));
    for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++)
        used[i] = call_find(ioctls[i].request);
    for (size_t i = 0; i < sizeof ioctls / sizeof ioctls[0]; i++) {
        if (!used[i])
            continue;
        falsified = (struct falsified){0};
        space.next_table = TABLES_OFFSET;
        check_works("linux_enter", linux_enter(&vcpu, &space));
        falsified = (struct falsified){.request = ioctls[i].request, .error = EIO};
        space.next_table = TABLES_OFFSET;
        listen_start();
        int status = linux_enter(&vcpu, &space);
        listen_end();
        check_met("linux_enter", ioctls[i].name);
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s failed, and linux_enter returns %d instead of STATUS_NO_KVM",
                      ioctls[i].name, status);
        ck_assert_msg(said[0] != '\0', "%s failed, and linux_enter said nothing: fail() says it",
                      ioctls[i].name);
    }
    for (int i = 0; i < 4; i++) {
        const bool set = i % 2;
        falsified = (struct falsified){
            .request = set ? KVM_SET_MSRS : KVM_GET_MSRS, .answered = true, .answer = 0};
        space.next_table = TABLES_OFFSET;
        listen_start();
        int status = linux_enter(&vcpu, &space);
        listen_end();
        ck_assert_msg(status == STATUS_NO_KVM,
                      "%s returned 0, which is how many MSRs it has %s, and linux_enter returns %d "
                      "instead of STATUS_NO_KVM",
                      set ? "KVM_SET_MSRS" : "KVM_GET_MSRS", set ? "set" : "read", status);
        falsified = (struct falsified){0};
        space.next_table = TABLES_OFFSET;
        check_works("linux_enter", linux_enter(&vcpu, &space));
    }
}
END_TEST

/* ------------------------------------------------------------------ 8.1 accesses */

static struct platform platform;

/* A device that notes all accesses, and answers with numbers that a read can't guess. */
static struct probe {
    uint64_t key, addresses[16], values[16];
    unsigned sizes[16], reads, writes;
} probe;

BOTH static uint64_t answer_of(unsigned number, unsigned size)
{
    return (probe.key * (2 * number + 3)) >> 8 & UINT64_MAX >> (64 - 8 * size);
}

BOTH static void probe_note(uint64_t address, unsigned size, uint64_t value)
{
    const unsigned number = (probe.reads + probe.writes) % 16;

    probe.addresses[number] = address;
    probe.sizes[number] = size;
    probe.values[number] = value;
}

BOTH static uint64_t probe_read(void *device, uint64_t address, unsigned size)
{
    probe_note(address, size, 0);
    return answer_of(probe.reads++, size);
}

BOTH static void probe_write(void *device, uint64_t address, unsigned size, uint64_t value)
{
    probe_note(address, size, value);
    probe.writes++;
}

#define PROBE_PORT   0x600
#define PROBE_MEMORY 0xd0000000

/* With the device's memory there. */
static struct vcpu *start_bus(uint64_t place)
{
    const struct bus_range ports = {BUS_PORT, PROBE_PORT, 8, NULL, probe_read, probe_write},
                           memory = {BUS_MEMORY, place, 64, NULL, probe_read, probe_write};
    struct vcpu *vcpu = start_vcpu();

    memset(&platform, 0, sizeof platform);
    platform.vcpu = vcpu;
    vm.platform = &platform;
    ck_assert_msg(bus_add(&platform.bus, &ports) == 0 && bus_add(&platform.bus, &memory) == 0,
                  "bus_add does not add a range");
    probe = (struct probe){.key = random64() | 1};
    return vcpu;
}

static void io_make(bool out, unsigned port, unsigned size, unsigned count)
{
    struct kvm_run *run = &exit_page.run;

    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    run->io.port = (uint16_t)port;
    run->io.size = (uint8_t)size;
    run->io.count = count;
    run->io.data_offset = PAGE_BYTES + 24;
}

START_TEST(io_operands)
{
    uint8_t *data = exit_page.page + PAGE_BYTES + 24;

    for (unsigned size = 1; size <= 4; size *= 2) {
        const unsigned count = 2 + unit_random() % 9;
        uint32_t sent[16];
        struct vcpu *vcpu = start_bus(PROBE_MEMORY);
        io_make(true, PROBE_PORT + 2, size, count);
        for (unsigned i = 0; i < count; i++) {
            sent[i] = unit_random() & UINT32_MAX >> (32 - 8 * size);
            memcpy(data + i * size, &sent[i], size);
        }
        enum step step = linux_io(vcpu);
        ck_assert_msg(step == STEP_RUN, "after OUT the vCPU does not run on");
        ck_assert_msg(platform.pit.now != 0,
                      "an access reached the bus, and pit.now was not set: the timer's owner sets "
                      "it before each call");
        ck_assert_msg(probe.writes == count && probe.reads == 0,
                      "an exit with %u operands (io.count) of OUT made %u writes", count,
                      probe.writes);
        for (unsigned i = 0; i < count; i++)
            ck_assert_msg(probe.addresses[i] == PROBE_PORT + 2 && probe.sizes[i] == size &&
                              probe.values[i] == sent[i],
                          "operand %u of OUT, 0x%x in %u bytes at port 0x%x, reached the device as "
                          "0x%llx in %u bytes at 0x%llx",
                          i, sent[i], size, PROBE_PORT + 2, (unsigned long long)probe.values[i],
                          probe.sizes[i], (unsigned long long)probe.addresses[i]);
        vcpu = start_bus(PROBE_MEMORY);
        io_make(false, PROBE_PORT + 4, size, count);
        memset(data, 0xa5, 64);
        step = linux_io(vcpu);
        ck_assert_msg(step == STEP_RUN, "after IN the vCPU does not run on");
        ck_assert_msg(probe.reads == count && probe.writes == 0,
                      "an exit with %u operands (io.count) of IN made %u reads", count,
                      probe.reads);
        for (unsigned i = 0; i < count; i++) {
            uint32_t got = 0;
            memcpy(&got, data + i * size, size);
            ck_assert_msg(got == answer_of(i, size),
                          "operand %u of IN is 0x%x, and the device returned 0x%llx", i, got,
                          (unsigned long long)answer_of(i, size));
        }
        ck_assert_msg(data[count * size] == 0xa5, "IN wrote past its last operand");
        io_make(false, 0x700, size, 1);
        memset(data, 0, 8);
        step = linux_io(vcpu);
        ck_assert_msg(step == STEP_RUN && memcmp(data, "\xff\xff\xff\xff", size) == 0,
                      "IN of %u bytes from a port without a device does not give all ones", size);
    }
}
END_TEST

/* An exit for a read or write of `size` bytes there, with data of its own. */
static void mmio_make(bool write, uint64_t at, unsigned size)
{
    struct kvm_run *run = &exit_page.run;

    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = at;
    run->mmio.len = size;
    run->mmio.is_write = write;
    memset(run->mmio.data, 0xa5, 8);
}

/* Physical addresses have up to 52 bits: one that differs in any of them is another one. */
static void check_mmio(uint64_t place)
{
    struct kvm_run *run = &exit_page.run;

    for (unsigned size = 1; size <= 8; size++) { /* 3 bytes: of an access across a page's end */
        struct vcpu *vcpu = start_bus(place);
        const uint64_t value = random64() & UINT64_MAX >> (64 - 8 * size),
                       at = place + unit_random() % (65 - size),
                       holes[] = {place + 0x1000, at ^ 1ull << (32 + unit_random() % 20)};
        mmio_make(true, at, size);
        memcpy(run->mmio.data, &value, size);
        enum step step = linux_mmio(vcpu);
        ck_assert_msg(step == STEP_RUN && probe.writes == 1 && probe.reads == 0 &&
                          probe.addresses[0] == at && probe.sizes[0] == size &&
                          probe.values[0] == value,
                      "a write of 0x%llx in %u bytes to memory at 0x%llx reached the device there "
                      "%u times, as 0x%llx in %u bytes at 0x%llx",
                      (unsigned long long)value, size, (unsigned long long)at, probe.writes,
                      (unsigned long long)probe.values[0], probe.sizes[0],
                      (unsigned long long)probe.addresses[0]);
        vcpu = start_bus(place);
        mmio_make(false, at, size);
        step = linux_mmio(vcpu);
        ck_assert_msg(step == STEP_RUN && probe.reads == 1 && probe.writes == 0 &&
                          probe.addresses[0] == at && probe.sizes[0] == size,
                      "a read of %u bytes from memory at 0x%llx made %u reads of the device there",
                      size, (unsigned long long)at, probe.reads);
        uint64_t got = 0;
        memcpy(&got, run->mmio.data, size);
        ck_assert_msg(got == answer_of(0, size),
                      "a read of %u bytes from memory gives 0x%llx, and the device returned 0x%llx",
                      size, (unsigned long long)got, (unsigned long long)answer_of(0, size));
        for (unsigned i = 0; i < 2; i++) {
            mmio_make(false, holes[i], size);
            step = linux_mmio(vcpu);
            ck_assert_msg(step == STEP_RUN &&
                              memcmp(run->mmio.data, "\xff\xff\xff\xff\xff\xff\xff\xff", size) == 0,
                          "a device is at 0x%llx, and a read of %u bytes from memory at 0x%llx, "
                          "where none is, does not give all ones",
                          (unsigned long long)place, size, (unsigned long long)holes[i]);
            mmio_make(true, holes[i], size);
            step = linux_mmio(vcpu);
            ck_assert_msg(step == STEP_RUN && probe.writes == 0,
                          "a device is at 0x%llx, and a write of %u bytes to memory at 0x%llx "
                          "reaches it",
                          (unsigned long long)place, size, (unsigned long long)holes[i]);
        }
    }
}

START_TEST(mmio)
{
    check_mmio(PROBE_MEMORY);
    check_mmio((uint64_t)(1 + unit_random() % 0xfffff) << 32 | (unit_random() & ~0xfffu));
}
END_TEST

/* ------------------------------------------------------------------ 8.3 the platform */

#define TIMER    0x1u /* bits of vcpu->pending */
#define KEYBOARD 0x2u
#define PATIENCE 4000 /* ms until something that should happen at once counts as lost */

static int create_error, threads_error;

#define HOUR_S 3600

static unsigned timer_calls; /* the module's calls of timerfd_settime */
static bool timers_late;     /* they expire an hour later than they are set to: never in a test */

BOTH int timerfd_settime(int fd, int flags, const struct itimerspec *time,
                         struct itimerspec *before)
{
    struct itimerspec set = *time;

    timer_calls++;
    if (timers_late && (set.it_value.tv_sec != 0 || set.it_value.tv_nsec != 0))
        set.it_value.tv_sec += HOUR_S;
    return (int)syscall(SYS_timerfd_settime, fd, flags, &set, before);
}

BOTH int timerfd_create(int clock, int flags)
{
    return create_error ? (int)failed(create_error)
                        : (int)syscall(SYS_timerfd_create, clock, flags);
}

/*
 * Threads that are counted as long as they have not ended: those that pthread_create starts, and
 * who takes the vCPU's lock. One that was joined has ended; only its task may take a moment to
 * vanish.
 */
static bool threads_counted;
static atomic_uint threads_running;
static pthread_key_t thread_key;

struct thread_start {
    void *(*start)(void *);
    void *argument;
};

BOTH static void thread_ended(void *number)
{
    atomic_fetch_sub(&threads_running, 1);
}

BOTH static void *thread_run(void *what)
{
    const struct thread_start begin = *(struct thread_start *)what;

    free(what);
    pthread_setspecific(thread_key, &threads_running);
    return begin.start(begin.argument);
}

BOTH static int thread_count(pthread_t *thread, const pthread_attr_t *attributes,
                             void *(*start)(void *), void *argument)
{
    struct thread_start *begin = malloc(sizeof *begin);

    if (!begin)
        return EAGAIN;
    *begin = (struct thread_start){start, argument};
    atomic_fetch_add(&threads_running, 1);
    int error = REAL_OF_THREADS(pthread_create)(thread, attributes, thread_run, begin);
    if (error != 0) {
        free(begin);
        thread_ended(NULL);
    }
    return error;
}

BOTH int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                        void *argument)
{
    if (threads_error)
        return threads_error;
    if (threads_counted)
        return thread_count(thread, attributes, start, argument);
    return REAL_OF_THREADS(pthread_create)(thread, attributes, start, argument);
}

BOTH static void thread_note(const pthread_mutex_t *lock)
{
    if (lock != &vmm.vcpus[0].lock || syscall(SYS_gettid) == getpid() ||
        pthread_getspecific(thread_key))
        return;
    pthread_setspecific(thread_key, &threads_running);
    atomic_fetch_add(&threads_running, 1);
}

THERE_VOID(threads_count, (void), ())
{
    pthread_key_create(&thread_key, thread_ended);
    threads_counted = true;
    after_lock = thread_note;
}

/* Kicks don't interrupt anything here. */
BOTH int pthread_kill(pthread_t thread, int signal)
{
    return 0;
}

#define DESCRIPTORS "/proc/self/fd"
#define STARTS      8

/* How many descriptors the module's process has. */
THERE(unsigned, descriptors_open, (void), ())
{
    DIR *open_folder = opendir(DESCRIPTORS);
    unsigned count = 0;

    while (open_folder && readdir(open_folder))
        count++;
    if (open_folder)
        closedir(open_folder);
    return count;
}

/* Whether all threads of the module vanish. */
static bool threads_vanish(void)
{
    for (int ms = 0; ms < PATIENCE && threads_left() > 0; ms++)
        poll(NULL, 0, 1);
    return threads_left() == 0;
}

static PRIVATE struct platform *platform_known; /* as platform_start has made it known */

static struct vcpu *start_platform(void)
{
    struct vcpu *vcpu = start_vcpu();

    memset(&platform, 0xa5, sizeof platform);
    vm.platform = NULL;
    listen_start();
    int status = platform_start(&platform, vcpu);
    listen_end();
    ck_assert_msg(status == 0, "platform_start returns %d instead of 0", status);
    ck_assert_msg(platform.log_bytes == 0 && platform.log[0] == '\0' && !platform.reset,
                  "after platform_start the log is not empty, or the guest has asked for a reset: "
                  "*platform is not zero before");
    platform_known = vm.platform;
    vm.platform = &platform;
    return vcpu;
}

/* What platform_start leaves, wherever the platform was before. */
static void check_started(const struct vcpu *vcpu)
{
    ck_assert_msg(platform.pit.next == PIT_NEVER && platform.timer_at == PIT_NEVER,
                  "after platform_start pit.next is 0x%llx and timer_at 0x%llx: the PIT's output "
                  "never rises then, and the timer is not set, so both are PIT_NEVER",
                  (unsigned long long)platform.pit.next, (unsigned long long)platform.timer_at);
    ck_assert_msg(platform_known == &platform, "platform_start does not make the platform known as "
                                               "vcpu->vm->platform");
    ck_assert_msg(platform.vcpu == vcpu, "platform_start does not set platform->vcpu");
}

THERE(uint32_t, pending_of, (struct vcpu * vcpu), (vcpu))
{
    pthread_mutex_lock(&vcpu->lock);
    uint32_t pending = vcpu->pending;
    pthread_mutex_unlock(&vcpu->lock);
    return pending;
}

THERE_VOID(pending_clear, (struct vcpu * vcpu), (vcpu))
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->pending = 0;
    pthread_mutex_unlock(&vcpu->lock);
}

/* The timer expires now; false: there is no such timer. */
THERE(bool, timer_expires, (int fd), (fd))
{
    const struct itimerspec soon = {.it_value.tv_nsec = 1};

    return syscall(SYS_timerfd_settime, fd, 0, &soon, NULL) == 0;
}

/* What the thread is for: only then is it worth something that it ends. */
static void check_timer_raises(struct vcpu *vcpu)
{
    ck_assert_msg(!(pending_of(vcpu) & TIMER),
                  "the timer has not expired, and TIMER_VECTOR is pending");
    ck_assert_msg(timer_expires(platform.timer_fd),
                  "after platform_start timer_fd is %d, and that is not a timer: timerfd_create",
                  platform.timer_fd);
    for (int ms = 0; ms < PATIENCE && !(pending_of(vcpu) & TIMER); ms++)
        poll(NULL, 0, 1);
    ck_assert_msg(pending_of(vcpu) & TIMER,
                  "the timer has expired, and its thread does not raise TIMER_VECTOR: "
                  "interrupt_raise, each time that the read of timer_fd succeeds");
    pending_clear(vcpu);
}

START_TEST(start_and_stop)
{
    threads_begin();
    threads_count();
    const unsigned descriptors = descriptors_open();

    for (int i = 0; i < STARTS; i++) {
        struct vcpu *vcpu = start_platform();
        check_started(vcpu);
        ck_assert_msg(threads_left() > 0, "platform_start does not start a thread");
        for (unsigned times = 1 + unit_random() % 3; times > 0; times--)
            check_timer_raises(vcpu);
        ck_assert_msg(i > 0 || threads_sleep(),
                      "the timer has expired, TIMER_VECTOR was raised, then nothing happens, and "
                      "the timer's thread does not sleep: it must wait in a read that blocks. A "
                      "thread that looks again and again, with short sleeps or without, uses "
                      "processor time for nothing");
        ck_assert_msg(!(pending_of(vcpu) & TIMER),
                      "the timer has expired once, and TIMER_VECTOR is raised again");
        platform_stop(&platform);
        const unsigned running = atomic_load(&threads_running);
        ck_assert_msg(running == 0,
                      "platform_stop returned, and the timer's thread still runs: it would use a "
                      "platform that is gone. Wake the thread, then pthread_join");
        ck_assert_msg(descriptors_open() == descriptors, "platform_stop leaves a descriptor open");
    }
    ck_assert_msg(threads_vanish(),
                  "platform_stop returned, and a thread of platform_start still runs");
}
END_TEST

static void check_start_fails(const char *call, int error)
{
    char what[64];
    struct vcpu *vcpu = start_vcpu();

    memset(&platform, 0, sizeof platform);
    listen_start();
    int status = platform_start(&platform, vcpu);
    listen_end();
    ck_assert_msg(status == STATUS_NO_KVM,
                  "%s failed, and platform_start returns %d instead of STATUS_NO_KVM", call,
                  status);
    snprintf(what, sizeof what, "%s failed", call);
    check_reason(what, error);
}

START_TEST(start_failure)
{
    for (int i = 0; i < 8; i++) {
        const int error = unit_error();
        for (unsigned works = i == 0 ? 1 : unit_random() % 3; works > 0; works--) {
            start_platform();
            platform_stop(&platform);
        }
        if (i % 2) {
            create_error = error;
            check_start_fails("timerfd_create", error);
        } else {
            threads_error = error;
            check_start_fails("pthread_create", error);
        }
        create_error = threads_error = 0;
    }
    start_platform();
    platform_stop(&platform);
}
END_TEST

#define BASE 0x40u /* the vector of IRQ 0 */

static void pic_out(unsigned port, unsigned value)
{
    pic_write(&platform.pic, port, 1, value);
}

static unsigned pic_in_service(void)
{
    pic_out(PIC_MASTER, OCW3 | OCW3_READ | OCW3_ISR);
    return (unsigned)pic_read(&platform.pic, PIC_MASTER, 1);
}

static struct vcpu *start_interrupts(void)
{
    struct vcpu *vcpu = start_platform();

    pic_out(PIC_MASTER, ICW1 | ICW1_ICW4);
    pic_out(PIC_MASTER + 1, BASE);
    pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
    pic_out(PIC_MASTER + 1, 1);
    pic_out(PIC_MASTER + 1, 0);
    return vcpu;
}

static unsigned injections(void)
{
    unsigned count = 0;

    for (size_t i = 0; i < call_count; i++)
        count += calls[i].request == KVM_INTERRUPT;
    return count;
}

/* Delivers in this state; how often KVM_INTERRUPT was called. */
static unsigned deliver(struct vcpu *vcpu, uint32_t pending, bool ready, bool enabled)
{
    const unsigned before = injections();
    const uint64_t counted = vcpu->interrupts;
    const uint32_t other = 1u << (2 + unit_random() % 30); /* not a vector of these two */
    char event[40] = "inject vector";

    vcpu->pending = pending | other;
    exit_page.run.ready_for_interrupt_injection = ready;
    exit_page.run.if_flag = enabled;
    vmm.options.trace = stderr;
    listen_start();
    enum step step = platform_deliver(vcpu);
    listen_end();
    vmm.options.trace = NULL;
    ck_assert_msg(step == STEP_RUN, "platform_deliver does not answer STEP_RUN");
    check_unlocked("platform_deliver");
    ck_assert_msg((vcpu->pending & (TIMER | KEYBOARD)) == 0,
                  "vcpu->pending was 0x%x and is 0x%x: platform_deliver clears both vectors of lab "
                  "4, or HLT would not sleep any more",
                  pending | other, vcpu->pending);
    ck_assert_msg(vcpu->pending & other,
                  "vcpu->pending was 0x%x and is 0x%x: platform_deliver "
                  "clears the two vectors of lab 4, and no other bit",
                  pending | other, vcpu->pending);
    const unsigned injected = injections() - before;
    ck_assert_msg(vcpu->interrupts - counted == injected,
                  "platform_deliver called KVM_INTERRUPT %u times, and counted %llu in "
                  "vcpu->interrupts",
                  injected, (unsigned long long)(vcpu->interrupts - counted));
    if (injected)
        snprintf(event, sizeof event, "inject vector 0x%x", call_find(KVM_INTERRUPT)->irq);
    ck_assert_msg(!strstr(said, event) == (injected == 0),
                  "with --trace, platform_deliver called KVM_INTERRUPT %u times, and the line "
                  "\"%s\" was %s: trace_event writes it for each injection",
                  injected, event, injected ? "not written" : "written");
    return injected;
}

static void check_window(bool wanted, const char *when)
{
    ck_assert_msg(exit_page.run.request_interrupt_window == wanted,
                  "%s, and request_interrupt_window is %u", when,
                  exit_page.run.request_interrupt_window);
}

/* What lab 4 has for the serial port, in place of stage.getchar. */
static atomic_int typed = GETCHAR_NOTHING;
static atomic_bool typed_locked; /* a lock was held then */

BOTH static int typed_getchar(struct vcpu *vcpu)
{
    if (locks_held > 0)
        atomic_store(&typed_locked, true);
    return atomic_exchange(&typed, GETCHAR_NOTHING);
}

/* The guest is ready for bytes, and enables the interrupt for them. */
static void start_typing(void)
{
    struct stage changed = stage;

    changed.getchar = typed_getchar;
    stage_set(&changed);
    uart_write(&platform.uart, UART_PORT + UART_IER, 1, IER_RECEIVED);
    uart_write(&platform.uart, UART_PORT + UART_MCR, 1, MCR_RTS);
}

/* A key comes: lab 4's thread would be the one to raise the vector. */
static struct vcpu *typed_vcpu;

BOTH static void key_comes(void)
{
    atomic_store(&typed, 'k');
    typed_vcpu->pending |= KEYBOARD;
}

static uint32_t news_before, news_cleared; /* the latter: under the lock */

BOTH static void news_lock(const pthread_mutex_t *lock)
{
    if (lock == &typed_vcpu->lock)
        news_before = typed_vcpu->pending;
}

BOTH static void news_unlock(const pthread_mutex_t *lock)
{
    if (lock == &typed_vcpu->lock)
        news_cleared |= news_before & ~typed_vcpu->pending;
}

THERE_VOID(deliver_watched, (void), ())
{
    after_lock = news_lock;
    before_unlock = news_unlock;
    platform_deliver(typed_vcpu);
    after_lock = before_unlock = NULL;
}

/* A key comes just before the lock is taken, or just after it was released. */
THERE_VOID(deliver_in_gap, (unsigned number), (number))
{
    gaps_begin(&typed_vcpu->lock, number, key_comes);
    platform_deliver(typed_vcpu);
    gaps_end();
}

/* The news are shared with lab 4's threads, and with that of the timer. */
static void check_news_guarded(void)
{
    struct vcpu *vcpu = typed_vcpu = start_interrupts();

    start_typing();
    exit_page.run.if_flag = 1;
    vcpu->pending = TIMER | KEYBOARD;
    deliver_watched();
    check_unlocked("platform_deliver");
    ck_assert_msg(news_cleared == (TIMER | KEYBOARD),
                  "platform_deliver clears the two vectors of lab 4 in vcpu->pending while it does "
                  "not hold vcpu->lock: what another thread raises at the same moment is lost");
    for (unsigned number = 0; number < 2; number++) {
        vcpu->pending = TIMER;
        deliver_in_gap(number);
        ck_assert_msg(vcpu->pending & KEYBOARD || atomic_load(&typed) == GETCHAR_NOTHING,
                      "a key came just %s platform_deliver %s vcpu->lock: its news were cleared, "
                      "and the byte was not taken from stage.getchar",
                      number == 0 ? "before" : "after", number == 0 ? "took" : "released");
        vcpu->pending |= KEYBOARD;
        platform_deliver(vcpu);
        ck_assert_msg(atomic_load(&typed) == GETCHAR_NOTHING,
                      "news of the keyboard were pending, the guest is ready for bytes, and "
                      "platform_deliver did not take the byte from stage.getchar");
        pic_write(&platform.pic, PIC_MASTER, 1, OCW2_EOI);
        uart_write(&platform.uart, UART_PORT + UART_IIR, 1, FCR_CLEAR);
    }
    ck_assert_msg(!atomic_load(&typed_locked),
                  "stage.getchar was called by a thread that holds vcpu->lock: lab 4's takes the "
                  "devices' lock, and then that of the vCPU, so the thread would wait for itself "
                  "forever. Release vcpu->lock before uart_receive");
    platform_stop(&platform);
}

START_TEST(delivers)
{
    check_news_guarded();

    struct vcpu *vcpu = start_interrupts();

    ck_assert_msg(deliver(vcpu, TIMER | KEYBOARD, true, true) == 0,
                  "the vectors of lab 4 are pending, no device asks for an interrupt, and "
                  "KVM_INTERRUPT was called: for Linux they are news, not interrupts");
    check_window(false, "the 8259s ask for nothing");
    for (unsigned i = 0; i < 3; i++) {
        const bool ready = i == 1, enabled = i == 2;
        pic_set_line(&platform.pic, 5, false);
        pic_set_line(&platform.pic, 5, true);
        ck_assert_msg(deliver(vcpu, 0, ready, enabled) == 0, "KVM_INTERRUPT was called, and %s",
                      ready ? "IF is 0 (if_flag)" : "KVM is not ready for it");
        check_window(true, "the 8259s ask, and the guest can't take it");
        ck_assert_msg(pic_in_service() == 0,
                      "the guest can't take the interrupt, and the 8259s were acknowledged: it "
                      "would be lost, or come after the guest has masked it");
    }
    ck_assert_msg(deliver(vcpu, TIMER, true, true) == 1,
                  "IRQ 5 asks, the guest can take it, and KVM_INTERRUPT was not called once");
    ck_assert_msg(call_find(KVM_INTERRUPT)->irq == BASE + 5,
                  "IRQ 5 was injected as vector 0x%x instead of 0x%x",
                  call_find(KVM_INTERRUPT)->irq, BASE + 5);
    check_window(false, "the only interrupt was injected");
    ck_assert_msg(pic_in_service() == 1 << 5, "IRQ 5 was injected, and the ISR is 0x%x",
                  pic_in_service());
    pic_set_line(&platform.pic, 7, true);
    ck_assert_msg(deliver(vcpu, 0, true, true) == 0, "IRQ 5 is in service, and IRQ 7 was injected");
    check_window(false, "IRQ 7 waits for the EOI of IRQ 5");
    pic_set_line(&platform.pic, 3, true);
    pic_set_line(&platform.pic, 1, true);
    ck_assert_msg(deliver(vcpu, 0, true, true) == 1 && call_find(KVM_INTERRUPT)->irq == BASE + 1,
                  "IRQ 1 and 3 ask: KVM takes one interrupt before an entry, first IRQ 1's");
    check_window(false, "IRQ 1 is in service, so IRQ 3 waits");
    pic_out(PIC_MASTER, OCW2_EOI);
    pic_set_line(&platform.pic, 1, false);
    pic_set_line(&platform.pic, 1, true);
    ck_assert_msg(deliver(vcpu, 0, true, false) == 0, "IF is 0, and KVM_INTERRUPT was called");
    check_window(true, "IRQ 1 asks again");
    pic_set_line(&platform.pic, 1, false);
    pic_set_line(&platform.pic, 3, false);
    deliver(vcpu, 0, true, true);
    check_window(false, "the requests were withdrawn");
    ck_assert_msg(injections() == 2, "a request that was withdrawn was injected");
}
END_TEST

static uint64_t clock_read(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* How long it is until the timer expires, in nanoseconds; 0: it is not set. With timers_late. */
THERE(uint64_t, timer_left, (int fd), (fd))
{
    struct itimerspec time = {0};

    syscall(SYS_timerfd_gettime, fd, &time);
    const uint64_t left =
        (uint64_t)time.it_value.tv_sec * NS_PER_SECOND + (uint64_t)time.it_value.tv_nsec;
    const uint64_t late = (uint64_t)HOUR_S * NS_PER_SECOND;
    return left > late ? left - late : left;
}

static void pit_out(unsigned port, unsigned value)
{
    pit_write(&platform.pit, port, 1, value);
}

/* After platform_deliver the timer is set to pit.next. */
static void check_timer(struct vcpu *vcpu, const char *when)
{
    deliver(vcpu, 0, true, true);
    const uint64_t next = platform.pit.next, from = clock_read(),
                   left = timer_left(platform.timer_fd), to = clock_read();
    ck_assert_msg(platform.timer_at == next,
                  "%s: after platform_deliver timer_at is 0x%llx, and pit.next is 0x%llx", when,
                  (unsigned long long)platform.timer_at, (unsigned long long)next);
    if (next == PIT_NEVER)
        ck_assert_msg(left == 0,
                      "%s: pit.next is PIT_NEVER, and the timer expires in %llu ns: it is disarmed "
                      "then",
                      when, (unsigned long long)left);
    else if (to < next) /* else this process had to wait for too long */
        ck_assert_msg(left >= next - to && left <= next - from,
                      "%s: the timer expires in %llu ns, and pit.next is in %llu ns", when,
                      (unsigned long long)left, (unsigned long long)(next - to));
}

/* As long as pit.next is the same, the timer is. */
static void check_timer_stays(struct vcpu *vcpu)
{
    const uint64_t next = platform.pit.next;
    const unsigned calls_before = timer_calls;

    for (int i = 0; i < 5; i++) {
        deliver(vcpu, i % 2 ? TIMER : 0, true, true);
        ck_assert_msg(timer_calls == calls_before || platform.pit.next != next,
                      "pit.next is as before, and platform_deliver calls timerfd_settime, a system "
                      "call: that is needed only when the time has changed");
    }
}

/* No timer expires here: its thread would raise TIMER_VECTOR between a call and what is checked. */
START_TEST(sets_timer)
{
    static const unsigned modes[] = {0, 2, 3, 4};
    struct vcpu *vcpu = start_platform();

    timers_late = true;
    timer_calls = 0;
    check_timer_stays(vcpu);
    for (int i = 0; i < 8; i++) {
        pit_out(PIT_CONTROL, ACCESS_BOTH << 4 | modes[i % 4] << 1);
        platform.pit.now = clock_read();
        pit_out(PIT_PORT, 0); /* the longest count: 55 ms */
        pit_out(PIT_PORT, 0);
        check_timer(vcpu, "counter 0 was started");
        check_timer_stays(vcpu);
        pit_out(PIT_CONTROL, ACCESS_BOTH << 4);
        pit_out(PIT_PORT, 0);
        check_timer(vcpu, "counter 0 was stopped by a control word");
        check_timer_stays(vcpu);
    }
    timers_late = false; /* platform_stop may need one */
    platform_stop(&platform);
}
END_TEST

/* With automatic EOI a second interrupt may come at once: not before the same entry. */
START_TEST(delivers_again)
{
    struct vcpu *vcpu = start_platform();

    pic_out(PIC_MASTER, ICW1 | ICW1_ICW4);
    pic_out(PIC_MASTER + 1, BASE);
    pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
    pic_out(PIC_MASTER + 1, 1 | ICW4_AUTOMATIC);
    pic_set_line(&platform.pic, 6, true);
    pic_set_line(&platform.pic, 3, true);
    ck_assert_msg(deliver(vcpu, 0, true, true) == 1,
                  "with automatic EOI two lines ask, and KVM_INTERRUPT was called %u times before "
                  "one entry: KVM takes one, and the second replaces the first",
                  injections());
    check_window(true, "IRQ 6 still asks");
    ck_assert_msg(deliver(vcpu, 0, true, true) == 1 && call_find(KVM_INTERRUPT)->irq == BASE + 6,
                  "IRQ 6 was not injected after IRQ 3");
    check_window(false, "both were injected");

    pic_set_line(&platform.pic, 4, false);
    pic_set_line(&platform.pic, 3, false);
    pic_set_line(&platform.pic, 3, true);
    falsified = (struct falsified){.request = KVM_INTERRUPT, .error = ENXIO};
    const uint64_t counted = vcpu->interrupts;
    listen_start();
    enum step step = platform_deliver(vcpu);
    listen_end();
    ck_assert_msg(step == STEP_END && vcpu->status == STATUS_CRASHED,
                  "KVM_INTERRUPT failed, and the vCPU goes on; it must end by vcpu_crash");
    ck_assert_msg(vcpu->interrupts == counted,
                  "KVM_INTERRUPT failed, so nothing was injected, and vcpu->interrupts went from "
                  "%llu to %llu: it counts what was",
                  (unsigned long long)counted, (unsigned long long)vcpu->interrupts);
    ck_assert_msg(said_number(BASE + 3),
                  "KVM_INTERRUPT of vector 0x%x failed, and the message of vcpu_crash does not "
                  "contain the vector: \"%.200s\"",
                  BASE + 3, said);
    check_reason("KVM_INTERRUPT failed", ENXIO);
    check_unlocked("after a failed KVM_INTERRUPT platform_deliver");
}
END_TEST

static atomic_bool halt_returned;
static enum step halt_step;

BOTH static void *halt_thread(void *vcpu)
{
    halt_step = platform_halt(vcpu);
    atomic_store(&halt_returned, true);
    return NULL;
}

THERE_VOID(halt_begin, (struct vcpu * vcpu), (vcpu))
{
    pthread_create(&vcpu->thread, NULL, halt_thread, vcpu);
}

/* It has returned, and what it did comes before all that follows. */
THERE_VOID(halt_end, (struct vcpu * vcpu), (vcpu))
{
    pthread_join(vcpu->thread, NULL);
}

THERE_VOID(raise_there, (struct vcpu * vcpu, int vector), (vcpu, vector))
{
    interrupt_raise(vcpu, vector);
}

THERE_VOID(stop_there, (struct vcpu * vcpu), (vcpu))
{
    atomic_store(&vmm.stop_signal, SIGTERM);
    vcpu_kick(vcpu);
}

/* Waits until the halted thread has gone to sleep this often, or has returned. */
static void halt_sleeps(unsigned times)
{
    for (int ms = 0; ms < PATIENCE && atomic_load(&sleeps) < times; ms++) {
        if (atomic_load(&halt_returned))
            return;
        poll(NULL, 0, 1);
    }
}

/* HLT with IF = 0 ends the vCPU, whatever is pending. */
START_TEST(halts_disabled)
{
    for (unsigned i = 0; i < 8; i++) {
        const bool asserted = i & 1;
        struct vcpu *vcpu = start_interrupts();
        vcpu->state = VCPU_RUNNING;
        vcpu->pending = (i & 2 ? TIMER : 0) | (i & 4 ? KEYBOARD : 0);
        exit_page.run.if_flag = 0;
        if (asserted)
            pic_set_line(&platform.pic, 1 + unit_random() % 7, true);
        vcpu->status = -1;
        enum step step = platform_halt(vcpu);
        ck_assert_msg(step == STEP_END && vcpu->status == 0,
                      "the guest halts with IF = 0 while the 8259s ask for %s, and platform_halt "
                      "returns %s with status %d: that ends the vCPU with status 0, as "
                      "interrupt_halt does",
                      asserted ? "an interrupt" : "nothing",
                      step == STEP_END ? "STEP_END" : "STEP_RUN", vcpu->status);
        check_unlocked("platform_halt");
        platform_stop(&platform);
    }
}
END_TEST

/* The interrupt comes while the vCPU sleeps, by a key or by the timer, and ends HLT. */
static void check_halt_ends(bool by_timer)
{
    struct vcpu *vcpu = start_interrupts();

    start_typing();
    atomic_store(&halt_returned, false);
    atomic_store(&sleeps, 0);
    vcpu->state = VCPU_RUNNING;
    exit_page.run.if_flag = 1;
    if (by_timer) {
        pit_out(PIT_CONTROL, ACCESS_HIGH << 4);
        platform.pit.now = clock_read();
        pit_out(PIT_PORT, 0x60); /* 20 ms */
    }
    halt_begin(vcpu);
    halt_sleeps(1);
    if (!by_timer) {
        atomic_store(&typed, 'k');
        raise_there(vcpu, KEYBOARD_VECTOR);
    }
    halt_sleeps(UINT32_MAX);
    ck_assert_msg(atomic_load(&halt_returned),
                  "a halted vCPU slept, %s, the 8259s ask for the interrupt, and platform_halt "
                  "sleeps on: bring the lines up to date after each interrupt_halt, before you ask "
                  "them",
                  by_timer ? "counter 0's output rose" : "a key came");
    halt_end(vcpu);
    ck_assert_msg(halt_step == STEP_RUN, "%s ended HLT, and platform_halt does not return STEP_RUN",
                  by_timer ? "the timer" : "a key");
    check_locks();
    platform_stop(&platform);
}

START_TEST(halts)
{
    check_halt_ends(false);
    check_halt_ends(true);

    struct vcpu *vcpu = start_interrupts();
    atomic_store(&halt_returned, false);
    atomic_store(&sleeps, 0);
    vcpu->state = VCPU_RUNNING;
    exit_page.run.if_flag = 1;
    halt_begin(vcpu);
    halt_sleeps(1);
    ck_assert_msg(!atomic_load(&halt_returned),
                  "platform_halt returned, and the 8259s ask for nothing");
    ck_assert_msg(atomic_load(&sleeps) >= 1,
                  "a vCPU is halted, nothing happens, and its thread does not sleep until it is "
                  "signalled: interrupt_halt does that");
    raise_there(vcpu, KEYBOARD_VECTOR);
    halt_sleeps(2);
    ck_assert_msg(!atomic_load(&halt_returned),
                  "news of the keyboard came, no interrupt is enabled, and platform_halt returned");
    ck_assert_msg(atomic_load(&sleeps) >= 2,
                  "news of the keyboard came, no interrupt is enabled, and the halted vCPU does "
                  "not sleep again: who clears vcpu->pending?");
    raise_there(vcpu, TIMER_VECTOR);
    halt_sleeps(3);
    ck_assert_msg(!atomic_load(&halt_returned),
                  "news of the timer came, the PIT does not count, and platform_halt returned");
    ck_assert_msg(atomic_load(&sleeps) >= 3,
                  "news of the timer came, the PIT does not count, and the halted vCPU does not "
                  "sleep again: interrupt_halt does that, each time");
    stop_there(vcpu);
    halt_sleeps(UINT32_MAX);
    ck_assert_msg(atomic_load(&halt_returned),
                  "the VMM stops, and a halted vCPU does not return from platform_halt");
    halt_end(vcpu);
    ck_assert_msg(halt_step == STEP_RUN, "the VMM stops: platform_halt returns STEP_RUN, because "
                                         "vcpu_check_stop comes next");
    check_locks();
}
END_TEST

/* ------------------------------------------------------------------ 8.6 the end */

/* These bytes come to the keyboard controller in one exit, as from `rep outsb`. */
static enum step commands(struct vcpu *vcpu, const uint8_t *bytes, unsigned count)
{
    io_make(true, KEYBOARD_PORT, 1, count);
    memcpy(exit_page.page + PAGE_BYTES + 24, bytes, count);
    vcpu->status = -1;
    return linux_io(vcpu);
}

START_TEST(commands_end)
{
    struct vcpu *vcpu = start_platform();
    uint8_t bytes[16];
    int order[256];

    shuffle(order, 256);
    for (int i = 0; i < 256; i++) {
        bytes[0] = (uint8_t)order[i];
        ck_assert_msg(order[i] == KEYBOARD_RESET || commands(vcpu, bytes, 1) == STEP_RUN,
                      "the command 0x%02x at the keyboard controller ends the guest: only "
                      "KEYBOARD_RESET does",
                      order[i]);
    }
    platform_stop(&platform);
    for (unsigned i = 0; i < 24; i++) {
        const unsigned count = 1 + unit_random() % sizeof bytes, reset = unit_random() % count;
        for (unsigned byte = 0; byte < count; byte++)
            bytes[byte] = (uint8_t)(unit_random() % KEYBOARD_RESET);
        vcpu = start_platform();
        enum step step = commands(vcpu, bytes, count);
        ck_assert_msg(step == STEP_RUN, "%u commands, none of them KEYBOARD_RESET, end the guest",
                      count);
        bytes[reset] = KEYBOARD_RESET;
        step = commands(vcpu, bytes, count);
        ck_assert_msg(step == STEP_END && vcpu->status == 0,
                      "KEYBOARD_RESET is command %u of %u in one exit, no panic was printed, and "
                      "the vCPU does not end with status 0",
                      reset + 1, count);
        platform_stop(&platform);
    }
}
END_TEST

/* What Linux has printed when it resets the PC. */
static void log_set(const char *text)
{
    platform.log_bytes = strlen(text);
    memcpy(platform.log, text, platform.log_bytes + 1);
}

static void check_end_of(const char *text, const char *reason, const char *what)
{
    const uint8_t reset = KEYBOARD_RESET;
    struct vcpu *vcpu = start_platform();

    log_set(text);
    listen_start();
    enum step step = commands(vcpu, &reset, 1);
    listen_end();
    const int wanted = reason ? STATUS_CRASHED : 0;
    ck_assert_msg(step == STEP_END && vcpu->status == wanted,
                  "%s, then the guest resets the PC: the vCPU %s with status %d instead of ending "
                  "with %d",
                  what, step == STEP_END ? "ends" : "goes on", vcpu->status, wanted);
    ck_assert_msg(!reason || strstr(said, reason),
                  "%s: the post-mortem does not have all of the log from the first PANIC on", what);
    const char *crashed = strstr(said, "crashed: ");
    ck_assert_msg(
        !reason || (crashed && strncmp(crashed + strlen("crashed: "), reason, strlen(reason)) == 0),
        "%s: the reason of the post-mortem does not begin with the first PANIC", what);
    platform_stop(&platform);
}

/* The kernel's words are not a format, and the last byte of a full log counts as well. */
static void check_words(unsigned bytes)
{
    static const char *const words[] = {"%%", "%", "100% ", "%d %x ", "a", "\n", " ", "z: "};
    char text[LOG_BYTES + 1], what[80];

    snprintf(text, sizeof text, "line\n" PANIC ": %%x 100%% ");
    while (strlen(text) + 16 < bytes)
        strcat(text, words[unit_random() % (sizeof words / sizeof words[0])]);
    while (strlen(text) < bytes)
        strcat(text, (char[]){(char)('0' + unit_random() % 10), '\0'});
    snprintf(what, sizeof what, "%u bytes were printed, the last ones \"%s\"", bytes,
             text + bytes - 8);
    check_end_of(text, strstr(text, PANIC), what);
}

START_TEST(panic_in_log)
{
    char text[LOG_BYTES], time[24];

    for (int i = 0; i < 3; i++) {
        const unsigned number = unit_random();
        snprintf(time, sizeof time, "[%5u.%06u] ", unit_random() % 100, unit_random() % 1000000);
        check_words(80 + unit_random() % 100);
        check_words(LOG_BYTES);
        check_end_of("", NULL, "nothing was printed");
        snprintf(text, sizeof text, "line %u\nKernel panic - not\nsyncing: %u\n", number, number);
        check_end_of(text, NULL, "not all of PANIC's words were printed in a line");
        snprintf(text, sizeof text, PANIC ": reason %u\n", number);
        check_end_of(text, text, "a panic is all that was printed");
        snprintf(text, sizeof text, "line %u\n%s" PANIC ": reason %u\nmore\n", number, time,
                 number);
        check_end_of(text, strstr(text, PANIC), "a panic was printed, with the time before it");
        snprintf(text, sizeof text,
                 "line\n%s" PANIC ": reason %u\n%sCall Trace: %u\n%s---[ end " PANIC
                 ": reason %u ]---\n",
                 time, number, time, unit_random(), time, number);
        check_end_of(text, strstr(text, PANIC),
                     "a panic was printed, and its last line has PANIC "
                     "once more");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("linux");

    unit_add(suite, "bzimage_right", bzimage_right);
    unit_add(suite, "bzimage_wrong", bzimage_wrong);
    unit_add(suite, "bzimage_room", bzimage_room);
    unit_add(suite, "initrd", initrd);
    unit_add(suite, "zero_page", zero_page);
    unit_add(suite, "command_line", command_line);
    unit_add(suite, "load_failure", load_failure);
    unit_add(suite, "state", state);
    unit_add(suite, "enter", enter);
    unit_add(suite, "enter_failure", enter_failure);
    unit_add(suite, "io_operands", io_operands);
    unit_add(suite, "mmio", mmio);
    unit_add(suite, "start_and_stop", start_and_stop);
    unit_add(suite, "start_failure", start_failure);
    unit_add(suite, "delivers", delivers);
    unit_add(suite, "delivers_again", delivers_again);
    unit_add(suite, "sets_timer", sets_timer);
    unit_add(suite, "halts", halts);
    unit_add(suite, "halts_disabled", halts_disabled);
    unit_add(suite, "commands_end", commands_end);
    unit_add(suite, "panic_in_log", panic_in_log);
    return unit_main(suite);
}
