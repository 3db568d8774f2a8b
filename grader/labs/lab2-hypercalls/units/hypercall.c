/* hypercall.c - lab 2's module function by function, on exits made by hand. */
#include <setjmp.h>

#include "../../unit.h"
#include "lab2.h"

#define AT_CONSOLE 2ul        /* meanwhile: at the next output of the stage's console */
#define NOWHERE    0x40000000 /* past the RAM of every test */

MODULE(struct io_access, io_decode, (struct kvm_run * run), (run))
MODULE(uint32_t, io_operand, (const struct io_access *io, uint32_t index), (io, index), KEEP(*io))
MODULE_VOID(io_answer, (const struct io_access *io, uint32_t index, uint32_t value),
            (io, index, value), KEEP(*io))
MODULE(int, vcpu_registers, (struct vcpu * vcpu, struct kvm_regs *regs), (vcpu, regs),
       see_vcpu(vcpu), SEE(*regs))

static const uint8_t sizes[] = {1, 2, 4};

/* A kvm_run with room for data after it; more than KVM maps, so that counts and offsets are large.
 */
#define FAR_OFFSET 0x10000 /* more than 16 bits */
union io_page {
    struct kvm_run run;
    uint8_t bytes[FAR_OFFSET + 20 * PAGE_BYTES];
};
static union io_page page, other_page; /* of the vCPU in question; of another one */
static PRIVATE union io_page made;     /* `page` as the judge has made it */

/* An exit for `count` operands of `size` bytes, random ones, at a random place in the page. */
static uint8_t *make_io(bool out, uint16_t port, uint8_t size, uint32_t count)
{
    memset(&made, 0, sizeof made);
    memset(made.bytes + PAGE_BYTES, 0xa5, sizeof made.bytes - PAGE_BYTES); /* no operand's part */
    made.run.exit_reason = KVM_EXIT_IO;
    made.run.io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    made.run.io.port = port;
    made.run.io.size = size;
    made.run.io.count = count;
    made.run.io.data_offset = (unit_random() % 2 ? FAR_OFFSET : PAGE_BYTES) + unit_random() % 512;
    for (uint32_t i = 0; i < size * count; i++)
        made.bytes[made.run.io.data_offset + i] = (uint8_t)unit_random();
    page = made;
    return page.bytes + made.run.io.data_offset;
}

START_TEST(decode)
{
    for (int i = 0; i < 20; i++) {
        const bool out = unit_random() & 1;
        const uint16_t port = (uint16_t)unit_random();
        const uint8_t size = sizes[unit_random() % 3];
        const uint32_t count = i % 2 ? 1 + unit_random() % 100 : unit_random(); /* of any size */
        uint8_t *data = make_io(out, port, size, i % 2 ? count : 1);
        made.run.io.count = page.run.io.count = count;
        struct io_access io = io_decode(&page.run);
        ck_assert_msg(io.out == out, "an exit with io.direction %u is decoded as %s",
                      made.run.io.direction, io.out ? "out" : "in");
        ck_assert_msg(io.port == port, "port 0x%x is decoded as 0x%x", port, io.port);
        ck_assert_msg(io.size == size, "size %u is decoded as %u", size, io.size);
        ck_assert_msg(io.count == count, "count %u is decoded as %u", count, io.count);
        ck_assert_msg(io.data == data,
                      "data is not io.data_offset (%llu) bytes after the start of kvm_run",
                      made.run.io.data_offset);
    }
}
END_TEST

/* Of size 4 they have more bytes than 16 bits can count. */
enum { OPERANDS = 17000 };

START_TEST(operands)
{
    const uint32_t places[] = {
        0,           1,           2,   127, 128,
        254,         255,         256, 257, 258 + unit_random() % (OPERANDS - 260),
        0x10000 / 4, OPERANDS - 1};

    for (size_t i = 0; i < sizeof sizes; i++) {
        const uint8_t size = sizes[i];
        uint8_t *data =
            copy_at_end(make_io(true, HYPERCALL_PORT, size, OPERANDS), (size_t)OPERANDS * size);
        const struct io_access io = {true, HYPERCALL_PORT, size, OPERANDS, data};
        for (size_t place = 0; place < 40; place++) {
            const uint32_t index =
                place < sizeof places / sizeof places[0] ? places[place] : unit_random() % OPERANDS;
            uint32_t expected = 0;
            for (uint8_t byte = size; byte > 0; byte--)
                expected =
                    expected << 8 | made.bytes[made.run.io.data_offset + index * size + byte - 1u];
            uint32_t got = io_operand(&io, index);
            ck_assert_msg(got == expected,
                          "operand %u of size %u is 0x%x instead of 0x%x (zero-extended)", index,
                          size, got, expected);
        }
    }
}
END_TEST

START_TEST(answers)
{
    const uint32_t places[] = {0,           1,           2,
                               127,         128,         255,
                               256,         257,         258 + unit_random() % (OPERANDS - 260),
                               0x10000 / 4, OPERANDS - 1};
    enum { PLACES = sizeof places / sizeof places[0] };
    int order[PLACES * sizeof sizes];

    shuffle(order, PLACES * sizeof sizes);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const uint8_t size = sizes[(unsigned)order[i] % sizeof sizes];
        const uint32_t index = places[(unsigned)order[i] / sizeof sizes], value = unit_random();
        uint8_t *data = make_io(false, HYPERCALL_PORT, size, OPERANDS);
        const struct io_access io = {false, HYPERCALL_PORT, size, OPERANDS, data};
        io_answer(&io, index, value);
        ck_assert_msg(memcmp(data + index * size, &value, size) == 0,
                      "the answer 0x%x of size %u is not at its place in the data, as operand %u",
                      value, size, index);
        memcpy(made.bytes + made.run.io.data_offset + index * size, &value, size);
        ck_assert_msg(memcmp(&page, &made, sizeof page) == 0,
                      "the answer of size %u to operand %u changes what is beside it", size, index);
    }
}
END_TEST

/* struct kvm_regs as numbers: the order is KVM's. */
union registers {
    struct kvm_regs regs;
    uint64_t numbers[sizeof(struct kvm_regs) / sizeof(uint64_t)];
};
static const char *const register_names[] = {"RAX", "RBX", "RCX", "RDX", "RSI", "RDI",
                                             "RSP", "RBP", "R8",  "R9",  "R10", "R11",
                                             "R12", "R13", "R14", "R15", "RIP", "RFLAGS"};
enum { REGISTERS = sizeof register_names / sizeof register_names[0] };

START_TEST(registers)
{
    static const uint32_t valid[] = {0, KVM_SYNC_X86_SREGS, KVM_SYNC_X86_REGS,
                                     KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS};
    enum { VALID = sizeof valid / sizeof valid[0] };
    struct vm vm;
    struct vcpu vcpu;
    union registers expected, got;
    int order[VALID];

    start_created(&vm, &vcpu);
    vcpu.run = &page.run; /* of both processes: what KVM maps is the module's own */
    shuffle(order, VALID);
    for (size_t i = 0; i < VALID; i++) {
        const uint32_t copied = valid[order[i]];
        for (size_t number = 0; number < REGISTERS; number++) {
            expected.numbers[number] = (uint64_t)unit_random() << 32 | unit_random();
            got.numbers[number] = unit_random();
        }
        expected.regs.rflags = 0x2 | (expected.regs.rflags & 0xcd5); /* what a sum may set */
        kernel(vcpu.fd, KVM_SET_REGS, &expected.regs);
        kernel(vcpu.fd, KVM_GET_REGS, &expected.regs);
        memset(&page.run.s.regs, 0xa5, sizeof page.run.s.regs); /* what KVM did not hand over */
        if (copied & KVM_SYNC_X86_REGS)
            page.run.s.regs.regs = expected.regs;
        page.run.kvm_valid_regs = copied;
        ck_assert_msg(vcpu_registers(&vcpu, &got.regs) == 0, "vcpu_registers does not return 0");
        for (size_t number = 0; number < REGISTERS; number++)
            ck_assert_msg(got.numbers[number] == expected.numbers[number],
                          "kvm_valid_regs is %u, %s KVM_SYNC_X86_REGS: %s is 0x%llx instead of "
                          "0x%llx%s",
                          copied, copied & KVM_SYNC_X86_REGS ? "with" : "without",
                          register_names[number], (unsigned long long)got.numbers[number],
                          (unsigned long long)expected.numbers[number],
                          copied & KVM_SYNC_X86_REGS ? "" : "; it takes KVM_GET_REGS there");
    }
}
END_TEST

static jmp_buf too_much; /* where a handler is left that does not end */
static bool endless;     /* it was */

/* hypercall_io on the exit in `page`; what it prints goes to print_fd. */
THERE(enum step, hypercall_heard, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu))
{
    const int real_stdout = dup(STDOUT_FILENO);

    vcpu->run = &page.run;
    fflush(stdout);
    dup2(print_fd, STDOUT_FILENO);
    enum step step = STEP_RUN;
    if (setjmp(too_much) == 0)
        step = hypercall_io(vcpu);
    else
        endless = true;
    dup2(real_stdout, STDOUT_FILENO);
    close(real_stdout);
    return step;
}

static PRIVATE char printed[0x20000];
static PRIVATE size_t printed_bytes;

/* The same; what it printed is in `printed`. */
static enum step run_hypercall(struct vcpu *vcpu)
{
    enum step step = hypercall_heard(vcpu);
    ssize_t count = pread(print_fd, printed, sizeof printed, 0);

    printed_bytes = count > 0 ? (size_t)count : 0;
    if (ftruncate(print_fd, 0) < 0 || lseek(print_fd, 0, SEEK_SET) < 0)
        ck_abort_msg("the unit program can't cut its own file");
    return step;
}

/* The RIP of registers that were not read. */
static uint64_t spoilt_rip(void)
{
    uint64_t rip;

    memcpy(&rip, junk + offsetof(struct kvm_regs, rip), sizeof rip);
    return rip;
}

/* An access that needs the registers, of which none can be read. */
struct unread {
    uint16_t port;
    uint8_t number;
    const char *what;
};

static void check_unread(struct vcpu *vcpu, const struct unread *access)
{
    make_io(true, access->port, 1, 1)[0] = access->number;
    vcpu->status = 0;
    listen_start();
    enum step step = run_hypercall(vcpu);
    listen_end();
    ck_assert_msg(step == STEP_END && vcpu->status == STATUS_CRASHED,
                  "KVM_GET_REGS failed at %s, and %s: when vcpu_registers does not return 0, "
                  "return vcpu_end(vcpu, STATUS_CRASHED)",
                  access->what,
                  step == STEP_END ? "the status is not STATUS_CRASHED" : "the vCPU runs on");
    ck_assert_msg(!said_number(spoilt_rip()) && !said_number((uint32_t)spoilt_rip()),
                  "KVM_GET_REGS failed at %s, and the message gives an RIP that was never read",
                  access->what);
}

/* As check_works: the call in `page`. */
static void check_serves(struct vcpu *vcpu, const char *call)
{
    ck_assert_msg(run_hypercall(vcpu) == STEP_RUN,
                  "after %s, where nothing fails, the vCPU does not run on: it must before its "
                  "failures can be tested",
                  call);
}

static void start_unread(struct vm *vm, struct vcpu *vcpu)
{
    struct kvm_regs regs;

    start_created(vm, vcpu);
    check_works("vcpu_registers", vcpu_registers(vcpu, &regs));
    make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_PUTCHAR;
    check_serves(vcpu, "PUTCHAR");
    falsified.request = KVM_GET_REGS;
    falsified.error = unit_error();
}

START_TEST(registers_failed)
{
    static const struct unread known[] = {{HYPERCALL_PORT, HC_EXIT, "EXIT"},
                                          {HYPERCALL_PORT, HC_PUTCHAR, "PUTCHAR"},
                                          {HYPERCALL_PORT, HC_WRITE, "WRITE"}};
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_regs regs;

    start_unread(&vm, &vcpu);
    listen_start();
    int status = vcpu_registers(&vcpu, &regs);
    listen_end();
    ck_assert_msg(
        status == STATUS_CRASHED,
        "KVM_GET_REGS failed, and vcpu_registers returned %d instead of STATUS_CRASHED (%d)",
        status, STATUS_CRASHED);
    ck_assert_msg(said[0] != '\0',
                  "KVM_GET_REGS failed, and vcpu_registers said nothing: fail() says it");
    check_reason("KVM_GET_REGS failed in vcpu_registers", falsified.error);
    check_met("vcpu_registers", "a KVM_GET_REGS that fails");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        check_unread(&vcpu, &known[i]);
}
END_TEST

START_TEST(unknown_unread)
{
    static const struct unread unknown[] = {{HYPERCALL_PORT, HC_WRITE + 1, "an unknown call"},
                                            {STRING_PORT + 1, 0, "an unknown port"}};
    struct vm vm;
    struct vcpu vcpu;

    start_unread(&vm, &vcpu);
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        check_unread(&vcpu, &unknown[i]);
}
END_TEST

/* ------------------------------------------------------------------ the stage's functions */

static char console[4096]; /* what stage.console_write got of vCPU 0, not of another one */
static size_t console_bytes;
static unsigned typed; /* how many characters stage.getchar has given */

BOTH static void console_keep(struct vcpu *vcpu, const char *bytes, size_t count)
{
    meanwhile_run(AT_CONSOLE);
    if (vcpu->id != 0)
        return;
    if (console_bytes + count > sizeof console)
        longjmp(too_much, 1);
    memcpy(console + console_bytes, bytes, count);
    console_bytes += count;
}

static int typing; /* what comes next; 0: A, B, C and so on */

BOTH static int type_next(struct vcpu *vcpu)
{
    const int letter = 'A' + (int)typed++;

    return typing ? typing : letter;
}

/* As later labs have it. */
static void stage_change(void)
{
    struct stage changed = stage;

    changed.console_write = console_keep;
    changed.getchar = type_next;
    stage_set(&changed);
}

START_TEST(console_stage)
{
    static const uint8_t special[] = {0, '\n', '\r', 0x7f, 0x80, 0xff};
    enum { CHARACTERS = 24 };
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_regs regs;
    int order[CHARACTERS];

    start_created(&vm, &vcpu);
    stage_change();
    kernel(vcpu.fd, KVM_GET_REGS, &regs);
    shuffle(order, CHARACTERS);
    for (int i = 0; i < CHARACTERS; i++) {
        const uint8_t character =
            order[i] < (int)sizeof special ? special[order[i]] : (uint8_t)unit_random();
        regs.rbx = (uint64_t)unit_random() << 32 | unit_random() << 8 | character;
        kernel(vcpu.fd, KVM_SET_REGS, &regs);
        make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_PUTCHAR;
        console_bytes = 0;
        enum step step = run_hypercall(&vcpu);
        ck_assert_msg(step == STEP_RUN, "after PUTCHAR the vCPU does not run on");
        ck_assert_msg(printed_bytes == 0,
                      "PUTCHAR of 0x%02x went to standard output past stage.console_write, where "
                      "lab 3 has a function of its own",
                      character);
        ck_assert_msg(console_bytes == 1 && (uint8_t)console[0] == character,
                      "stage.console_write got %zu characters, the first of them 0x%02x, instead "
                      "of one, BL, 0x%02x%s",
                      console_bytes, console_bytes ? (uint8_t)console[0] : 0, character,
                      character ? "" : " (a 0 is a character like any other)");
    }
}
END_TEST

/*
 * An exit with PUTCHARs, then an exit that has EXIT among them. Where they go is console_stage's
 * question.
 */
static void check_each_operand(struct vcpu *vcpu, uint8_t size, uint32_t count)
{
    const uint32_t end = unit_random() % (count < 256 ? count : 256);
    uint8_t *data = make_io(true, HYPERCALL_PORT, size, count);

    memset(data, 0, (size_t)size * count);
    for (uint32_t i = 0; i < count; i++)
        data[i * size] = HC_PUTCHAR;
    console_bytes = 0;
    enum step step = run_hypercall(vcpu);
    ck_assert_msg(!endless,
                  "one exit had io.count = %u operands of size %u, each a PUTCHAR, and "
                  "hypercall_io does not come to their end",
                  count, size);
    ck_assert_msg(step == STEP_RUN && console_bytes + printed_bytes == count,
                  "one exit had io.count = %u operands of size %u, each a PUTCHAR, and %zu "
                  "characters were printed%s",
                  count, size, console_bytes + printed_bytes,
                  step == STEP_RUN ? "" : "; the vCPU does not run on");
    data[end * size] = HC_EXIT;
    console_bytes = 0;
    step = run_hypercall(vcpu);
    ck_assert_msg(step == STEP_END && !endless,
                  "one exit had io.count = %u operands of size %u, number %u of them EXIT, and "
                  "the vCPU runs on",
                  count, size, end);
    ck_assert_msg(console_bytes + printed_bytes == end,
                  "one exit had %u times PUTCHAR, then EXIT, then PUTCHAR again, of size %u, "
                  "and %zu characters were printed: nothing comes after EXIT",
                  end, size, console_bytes + printed_bytes);
}

START_TEST(each_operand)
{
    enum { CASES = 2 * sizeof sizes };
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_regs regs;
    int order[CASES];

    start_created(&vm, &vcpu);
    stage_change();
    kernel(vcpu.fd, KVM_GET_REGS, &regs);
    regs.rbx = 'a';
    kernel(vcpu.fd, KVM_SET_REGS, &regs);
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) /* more than a byte counts, and fewer */
        check_each_operand(&vcpu, sizes[order[i] / 2],
                           order[i] % 2 ? 257 + unit_random() % 300 : 2 + unit_random() % 255);
}
END_TEST

/*
 * The guest calls WRITE in this state, the rest of which is as after reset, but that 32-bit code
 * may have pages of 4 MB (CR4.PSE; it need not). KVM hands over the registers that are `valid`
 * (kvm_valid_regs).
 */
struct write_state {
    uint32_t cr0; /* 0 or CR0_PE */
    bool code_32;
    uint32_t ds_base, esi, ecx;
};

static void make_write(struct vcpu *vcpu, struct write_state state, uint32_t valid)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_WRITE;
    kernel(vcpu->fd, KVM_GET_SREGS, &sregs);
    kernel(vcpu->fd, KVM_GET_REGS, &regs);
    sregs.ds.base = state.ds_base;
    sregs.ds.selector = state.cr0 & CR0_PE ? SELECTOR_KERNEL_DATA : (uint16_t)(state.ds_base >> 4);
    sregs.cs.db = state.code_32;
    sregs.cr0 = (sregs.cr0 & ~(uint64_t)CR0_PE) | state.cr0;
    sregs.cr4 = state.code_32 ? sregs.cr4 | CR4_PSE : sregs.cr4 & ~(uint64_t)CR4_PSE;
    regs.rsi = state.esi;
    regs.rcx = state.ecx;
    ck_assert_msg(kernel(vcpu->fd, KVM_SET_SREGS, &sregs) == 0 &&
                      kernel(vcpu->fd, KVM_SET_REGS, &regs) == 0,
                  "the grader's own vCPU could not be set up: see make doctor");
    memset(&page.run.s.regs, 0xa5, sizeof page.run.s.regs); /* what KVM did not hand over */
    page.run.kvm_valid_regs = valid;
    if (valid & KVM_SYNC_X86_REGS)
        page.run.s.regs.regs = regs;
    if (valid & KVM_SYNC_X86_SREGS)
        page.run.s.regs.sregs = sregs;
}

static struct vm other_vm;
static struct vcpu other;

/* The other vCPU's thread: a call of its own, one operand. */
BOTH static void other_calls(void)
{
    hypercall_io(&other);
}

/* A VM with one vCPU and random RAM; of that the judge has a copy. */
static PRIVATE uint8_t random_ram[1 << 20];

static void start_random(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    random_fill(random_ram, sizeof random_ram);
    memcpy(vm->ram, random_ram, sizeof random_ram);
}

/* Another vCPU makes the same call in the middle of this one's. */
START_TEST(vcpus_apart)
{
    static const unsigned long moments[] = {AT_CONSOLE, KVM_GET_SREGS, AFTER(KVM_GET_SREGS),
                                            AFTER(KVM_GET_REGS), AT_TRANSLATE};
    struct vm vm;
    struct vcpu vcpu;
    const uint8_t number = HC_PUTCHAR;

    start_created(&other_vm, &other);
    other.id = 1;
    make_write(&other, (struct write_state){0, false, 0x10000, 0x100, 1}, 0);
    other_page = page;
    const uint64_t number_at = made.run.io.data_offset;
    other.run = &other_page.run;
    start_random(&vm, &vcpu);
    stage_change();
    make_write(&vcpu, (struct write_state){0, false, 0x20000, 0xf80, 0x100}, 0);
    run_hypercall(&vcpu);
    ck_assert_msg(console_bytes == 0x100 && memcmp(console, random_ram + 0x20f80, 0x100) == 0,
                  "a WRITE does not pass its 256 bytes to stage.console_write, though no other "
                  "vCPU calls: it must before calls can be mixed up");
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        make_write(&vcpu, (struct write_state){0, false, 0x20000, 0xf80, 0x100}, 0);
        console_bytes = 0;
        meanwhile = other_calls;
        meanwhile_at = moments[i];
        run_hypercall(&vcpu);
        const bool own = memcmp(console, random_ram + 0x20f80, 0x100) == 0;
        ck_assert_msg(console_bytes == 0x100 && own,
                      "while a WRITE of 256 bytes was served, another vCPU's thread made one, and "
                      "of the first %zu bytes were printed%s: what belongs to a call must be in "
                      "local variables, not in static ones",
                      console_bytes, console_bytes == 0x100 ? ", but not its own" : "");
    }
    memset(make_io(true, HYPERCALL_PORT, 1, 3), number, 3);
    console_bytes = 0;
    run_hypercall(&vcpu);
    ck_assert_msg(console_bytes == 3,
                  "three PUTCHARs of one exit do not pass three characters to "
                  "stage.console_write, though no other vCPU calls: they must before calls can be "
                  "mixed up");
    other_page.bytes[number_at] = number;
    console_bytes = 0;
    meanwhile = other_calls;
    meanwhile_at = AT_CONSOLE;
    run_hypercall(&vcpu);
    ck_assert_msg(console_bytes == 3 && console[0] == 0 && console[2] == 0,
                  "while three PUTCHARs of one exit were served, another vCPU's thread made one, "
                  "and of the three %zu were printed: what belongs to a call must be in local "
                  "variables, not in static ones",
                  console_bytes);
}
END_TEST

/* What a string of `bytes` passed on. */
static void check_on_stage(const char *what, const char *expected, size_t bytes)
{
    ck_assert_msg(console_bytes != 0 && printed_bytes == 0,
                  "of %s of %zu bytes %zu went to stage.console_write, and %zu to standard output",
                  what, bytes, console_bytes, printed_bytes);
    ck_assert_msg(console_bytes == bytes, "%s has %zu bytes, and stage.console_write got %zu", what,
                  bytes, console_bytes);
    for (size_t i = 0; i < bytes; i++)
        ck_assert_msg(console[i] == expected[i],
                      "%s has %zu bytes, and byte %zu of what stage.console_write got is 0x%02x "
                      "instead of 0x%02x",
                      what, bytes, i, (uint8_t)console[i], (uint8_t)expected[i]);
    console_bytes = 0;
}

#define PATTERN_BYTES 256 /* in RAM over and over: where a string begins, other tests ask */

START_TEST(strings_stage)
{
    enum { STRINGS = 12 };
    struct vm vm;
    struct vcpu vcpu;
    int order[STRINGS];
    char expected[2 * PAGE_BYTES];

    start_created(&vm, &vcpu);
    stage_change();
    for (size_t i = 0; i < PATTERN_BYTES; i++)
        expected[i] = (char)(1 + unit_random() % 255);
    for (size_t i = PATTERN_BYTES; i < sizeof expected; i++)
        expected[i] = expected[i - PATTERN_BYTES];
    for (size_t i = 0; i < vm.ram_bytes; i += PATTERN_BYTES)
        memcpy(vm.ram + i, expected, PATTERN_BYTES);
    shuffle(order, STRINGS);
    for (int i = 0; i < STRINGS; i++) {
        const uint32_t bytes = 1 + unit_random() % (order[i] < STRINGS / 2 ? 20 : 1500);
        if (order[i] % 2) {
            uint8_t *data = make_io(true, STRING_PORT, 1, bytes);
            memcpy(data, expected, bytes);
            run_hypercall(&vcpu);
            check_on_stage("a string", expected, bytes);
        } else {
            make_write(&vcpu, (struct write_state){0, false, 0x20000, 0, bytes}, 0);
            run_hypercall(&vcpu);
            check_on_stage("a WRITE", expected, bytes);
        }
    }
}
END_TEST

/* The guest calls GETCHAR. */
static void call_getchar(struct vcpu *vcpu)
{
    const bool again = vcpu->getchar_called;

    make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_GETCHAR;
    ck_assert_msg(run_hypercall(vcpu) == STEP_RUN, "after GETCHAR%s the vCPU does not run on",
                  again ? ", called again before a read," : "");
}

/* The guest reads the answer; 0: it died. */
static uint32_t read_answer(struct vcpu *vcpu)
{
    uint32_t answer;
    uint8_t *data = make_io(false, HYPERCALL_PORT, sizeof answer, 1);

    if (run_hypercall(vcpu) != STEP_RUN)
        return 0;
    memcpy(&answer, data, sizeof answer);
    return answer;
}

static uint64_t beyond_at, beyond_bytes; /* of a string that can't be read, from RAM's start on */

/* The VMM's own would end it, without a word about the guest's call. */
BOTH static void console_try(struct vcpu *vcpu, const char *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        const ssize_t written = write(STDOUT_FILENO, bytes + done, count - done);
        if (written < 0) {
            beyond_at = (uintptr_t)bytes - (uintptr_t)vcpu->vm->ram;
            beyond_bytes = count;
            longjmp(too_much, 1);
        }
        done += (size_t)written;
    }
}

/* What must end the guest does so, by vcpu_crash; what that printed stays in `said`. */
static void check_refused(struct vcpu *vcpu, const char *what)
{
    vcpu->status = 0;
    listen_hold();
    enum step step = run_hypercall(vcpu);
    listen_end();
    ck_assert_msg(
        beyond_bytes == 0,
        "%s, and stage.console_write got 0x%llx bytes from RAM's start + 0x%llx on, which "
        "can't be read: RAM has 0x%zx bytes",
        what, (unsigned long long)beyond_bytes, (unsigned long long)beyond_at, vcpu->vm->ram_bytes);
    ck_assert_msg(step == STEP_END && vcpu->status == STATUS_CRASHED, "%s, and the guest went on",
                  what);
    static const char before[] = "(guest) crashed: ";
    const char *found = strstr(said, before);
    ck_assert_msg(found, "%s, and the guest ended without a post-mortem: vcpu_crash prints it",
                  what);
    const size_t skipped = found ? (size_t)(found - said) + sizeof before - 1 : 0;
    memmove(said, said + skipped, said_bytes + 1 - skipped); /* the module's own words: one line */
    said[strcspn(said, "\n")] = '\0';
    ck_assert_msg(said[0] != '\0', "%s, and the message of vcpu_crash is empty", what);
}

/* A read that is one too many. */
static void check_read_refused(struct vcpu *vcpu, uint8_t size, const char *after)
{
    char what[200];

    snprintf(what, sizeof what, "the guest made a read of size %u of HYPERCALL_PORT %s", size,
             after);
    make_io(false, HYPERCALL_PORT, size, 1);
    check_refused(vcpu, what);
}

START_TEST(uncalled_read)
{
    static const struct {
        int answer;
        const char *after;
    } cases[] = {
        {'x', "twice after one GETCHAR, which a character answered"},
        {GETCHAR_NOTHING, "twice after one GETCHAR, which GETCHAR_NOTHING answered: that is an "
                          "answer, too"},
        {GETCHAR_END, "twice after one GETCHAR, which GETCHAR_END answered: that is an answer, "
                      "too"},
    };
    enum { CASES = sizeof cases / sizeof cases[0] * sizeof sizes };
    struct vm vm;
    struct vcpu vcpu;
    int order[CASES];

    start_created(&vm, &vcpu);
    stage_change();
    shuffle(order, CASES);
    for (int i = 0; i < CASES; i++) {
        const uint8_t size = sizes[(unsigned)order[i] % sizeof sizes];
        const size_t of = (unsigned)order[i] / sizeof sizes;
        check_read_refused(&vcpu, size, "and had not called GETCHAR");
        typing = cases[of].answer;
        call_getchar(&vcpu);
        make_io(false, HYPERCALL_PORT, size, 1);
        check_serves(&vcpu, "GETCHAR and the read of its answer");
        check_read_refused(&vcpu, size, cases[of].after);
    }
}
END_TEST

START_TEST(getchar_steps)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    start_created(&other_vm, &other); /* as with --isolate: its index is 0, too */
    other.id = 1;
    stage_change();
    call_getchar(&vcpu);
    read_answer(&vcpu);
    ck_assert_msg(typed != 0, "the answer did not come from stage.getchar, where lab 4 has a "
                              "function of its own");
    typed = 0;
    call_getchar(&vcpu);
    call_getchar(&vcpu);
    uint32_t answer = read_answer(&vcpu);
    ck_assert_msg(typed == 1 && answer == 'A',
                  "two calls of GETCHAR and one read took %u characters, and the read got "
                  "0x%x instead of the first, 0x%x: take it at the IN",
                  typed, answer, 'A');
    call_getchar(&vcpu);
    answer = read_answer(&other);
    ck_assert_msg(answer == 0 && typed == 1,
                  "one vCPU called GETCHAR, another one read and was answered: each has a note of "
                  "its own, vcpu->getchar_called");
    ck_assert_msg(read_answer(&vcpu) == 'B',
                  "one vCPU called GETCHAR, and its read was not answered after a read of "
                  "another vCPU: each has a note of its own, vcpu->getchar_called");
    call_getchar(&vcpu);
    make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_PUTCHAR;
    run_hypercall(&vcpu);
    ck_assert_msg(read_answer(&vcpu) == 'C',
                  "GETCHAR and then PUTCHAR were called, and the read was not answered: the note "
                  "of GETCHAR stays until it is");
    call_getchar(&vcpu);
    const uint32_t reads = 3 + unit_random() % 9;
    make_io(false, HYPERCALL_PORT, 1, reads);
    listen_hold();
    enum step step = run_hypercall(&vcpu);
    listen_end();
    ck_assert_msg(step == STEP_END && typed == 4,
                  "one GETCHAR was called, then one exit had %u reads (io.count): the first is "
                  "answered, the second ends the guest; %u characters were taken",
                  reads, typed - 3);
    unsigned crashes = 0;
    for (const char *at = said; (at = strstr(at, "(guest) crashed: ")); at++)
        crashes++;
    ck_assert_msg(crashes == 1,
                  "one GETCHAR was called, then one exit had %u reads (io.count): the second ends "
                  "the guest, and nothing comes after it; there are %u post-mortems",
                  reads, crashes);
}
END_TEST

/* ------------------------------------------------------------------ strings */

/* The note of a GETCHAR stays until it is answered, and none comes by itself. */
static void check_note(const struct vcpu *vcpu, bool called, const char *what)
{
    ck_assert_msg(vcpu->getchar_called == called,
                  "vcpu->getchar_called was %d, and is %d after %s: that is not its affair", called,
                  vcpu->getchar_called, what);
}

START_TEST(string_count)
{
    enum { STRINGS = 9 };
    struct vm vm;
    struct vcpu vcpu;
    int order[STRINGS];

    start_created(&vm, &vcpu);
    shuffle(order, STRINGS);
    for (int i = 0; i < STRINGS; i++) {
        const uint32_t count = order[i] == 0       ? 1
                               : order[i] == 2     ? PAGE_BYTES + 1 + unit_random() % PAGE_BYTES
                               : order[i] == 4     ? 0x10000 + 1 + unit_random() % PAGE_BYTES
                               : order[i] % 2 != 0 ? 2 + unit_random() % 255
                                                   : 257 + unit_random() % 1000;
        uint8_t *data = make_io(true, STRING_PORT, 1, count),
                *string = made.bytes + (data - page.bytes);
        const uint32_t zero = unit_random() % count; /* a character like any other */
        const bool called = unit_random() & 1;
        data[zero] = string[zero] = 0;
        vcpu.getchar_called = called;
        enum step step = run_hypercall(&vcpu);
        ck_assert_msg(step == STEP_RUN, "after a string the vCPU does not run on");
        ck_assert_msg(printed_bytes == count,
                      "one exit had io.count = %u characters for STRING_PORT, one of them 0, and "
                      "%zu were printed",
                      count, printed_bytes);
        ck_assert_msg(memcmp(printed, string, count) == 0,
                      "the characters printed are not those of the exit, one after the other");
        check_note(&vcpu, called, "a string");
    }
}
END_TEST

/* What a WRITE has to print is `bytes` of RAM at `linear`, in pages that changed places. */
static void check_write(struct vcpu *vcpu, const char *what, uint32_t linear, uint32_t bytes)
{
    const bool called = vcpu->getchar_called = unit_random() & 1;
    enum step step = run_hypercall(vcpu);

    check_note(vcpu, called, "a WRITE");
    ck_assert_msg(step == STEP_RUN && printed_bytes == bytes,
                  "%s: a WRITE of %u bytes at linear address 0x%x printed %zu%s", what, bytes,
                  linear, printed_bytes, step == STEP_RUN ? "" : ", and the vCPU does not run on");
    for (uint32_t i = 0; i < bytes; i++)
        ck_assert_msg((uint8_t)printed[i] == random_ram[((linear + i) & ~HIGHER_HALF) ^ PAGE_BYTES],
                      "%s: a WRITE at linear address 0x%x printed the wrong bytes from 0x%x on",
                      what, linear, linear + i);
}

/* RAM over and over in 4 GB, again in pages that changed places; above that is nothing. */
BOTH static bool translate_round(uint64_t linear, uint64_t *phys)
{
    *phys = (linear % sizeof random_ram) ^ PAGE_BYTES;
    return linear <= UINT32_MAX;
}

static void write_round(struct vcpu *vcpu)
{
    const uint32_t before = 1 + unit_random() % (2 * PAGE_BYTES);
    const uint32_t bytes = before + PAGE_BYTES + unit_random() % PAGE_BYTES;

    translate_instead = translate_round;
    make_write(vcpu, (struct write_state){CR0_PE, true, 0, -before, bytes}, 0);
    enum step step = run_hypercall(vcpu);
    translate_instead = NULL;
    ck_assert_msg(step == STEP_RUN && printed_bytes == bytes,
                  "32-bit code, a WRITE of %u bytes that starts %u before 4 GB printed %zu%s: it "
                  "continues at address 0 (a linear address has 32 bits)",
                  bytes, before, printed_bytes,
                  step == STEP_RUN ? "" : ", and the vCPU does not run on");
    for (uint32_t i = 0; i < bytes; i++)
        ck_assert_msg((uint8_t)printed[i] ==
                          random_ram[((i - before) % sizeof random_ram) ^ PAGE_BYTES],
                      "32-bit code, a WRITE that starts %u bytes before 4 GB printed the wrong "
                      "bytes from number %u on: it continues at address 0 (a linear address has 32 "
                      "bits)",
                      before, i);
}

/* Lengths and addresses whose highest bit counts. */
static void write_far(struct vcpu *vcpu)
{
    const uint32_t offset = unit_random() % 0x10000, bytes = 0x8000 | unit_random() % 0x8000;
    const uint32_t base = 0x10000000 | unit_random() % 0x10000000, start = unit_random() % 0x10000;

    make_write(vcpu, (struct write_state){0, false, 0x10000, offset, bytes}, 0);
    check_write(vcpu, "16-bit code, with the highest bit of CX set (a length has no sign)",
                0x10000 + offset, bytes);
    make_write(vcpu, (struct write_state){CR0_PE, true, base, start - base, 200}, 0);
    check_write(vcpu,
                "32-bit code, DS's base plus ESI is more than 4 GB (a linear address has 32 bits: "
                "what the sum has above them is cut off)",
                start, 200);
    write_round(vcpu);
}

static uint32_t mapped_first, mapped_end; /* the linear addresses that translate_part finds */

BOTH static bool translate_part(uint64_t linear, uint64_t *phys)
{
    *phys = linear ^ PAGE_BYTES;
    return linear >= mapped_first && linear < mapped_end;
}

/* Only the pages of the string are mapped; of a string without characters, none. */
static void write_mapped(struct vcpu *vcpu)
{
    translate_instead = translate_part;
    for (unsigned i = 0; i < 12; i++) {
        const bool code_32 = i % 2;
        const uint32_t pages = i / 2 % 3, page_number = 16 + unit_random() % 200,
                       end = (page_number + pages) * PAGE_BYTES,
                       bytes =
                           pages ? (pages - 1) * PAGE_BYTES + 1 + unit_random() % PAGE_BYTES : 0,
                       start = end - bytes, base = (start - unit_random() % 0x1000) & ~15u,
                       upper = code_32 ? 0 : unit_random() << 16;
        char what[160];
        mapped_first = page_number * PAGE_BYTES;
        mapped_end = end;
        snprintf(
            what, sizeof what,
            pages ? "%u-bit code, vcpu_translate finds the pages of the string and no other: it "
                    "ends with the last byte of a page"
                  : "%u-bit code, vcpu_translate finds no page, and the string has no characters: "
                    "so none is outside",
            code_32 ? 32 : 16);
        make_write(vcpu,
                   (struct write_state){code_32 ? CR0_PE : 0, code_32, base, upper | (start - base),
                                        upper | bytes},
                   0);
        check_write(vcpu, what, start, bytes);
    }
    translate_instead = NULL;
}

START_TEST(write_pages)
{
    struct vm vm;
    struct vcpu vcpu;
    const uint32_t base = 0x10000, offset = PAGE_BYTES - 1 - unit_random() % 100;
    const uint32_t bytes = 2 * PAGE_BYTES + unit_random() % 200;
    const uint32_t last = 0xffff - unit_random() % 100, garbage = (unit_random() | 1) << 16;

    start_random(&vm, &vcpu);
    pages_swapped = true;
    make_write(&vcpu, (struct write_state){0, false, base, offset, bytes}, 0);
    check_write(
        &vcpu,
        "16-bit code, over three pages (ask vcpu_translate again for each; a character may be 0)",
        base + offset, bytes);
    make_write(&vcpu, (struct write_state){0, false, base, last, 200}, KVM_SYNC_X86_SREGS);
    check_write(&vcpu, "16-bit code, over offset 0xffff (it does not wrap around)", base + last,
                200);
    make_write(&vcpu, (struct write_state){CR0_PE, false, base, garbage | offset, bytes},
               KVM_SYNC_X86_REGS);
    check_write(&vcpu,
                "16-bit code in protected mode (sregs.cs.db is 0, DS's base not its selector "
                "times 16)",
                base + offset, bytes);
    make_write(&vcpu,
               (struct write_state){CR0_PE, true, base, HIGHER_HALF + 0x30000 + offset, bytes},
               KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
    check_write(&vcpu, "32-bit code, at an address that vcpu_translate finds in RAM",
                HIGHER_HALF + base + 0x30000 + offset, bytes);
    make_write(&vcpu, (struct write_state){CR0_PE, true, 0, NOWHERE, 0}, 0);
    check_write(&vcpu, "no bytes, so any address is right", NOWHERE, 0);
    write_far(&vcpu);
    write_mapped(&vcpu);
}
END_TEST

/* While a WRITE is served, vcpu_translate finds this many pages more, then none. */
static unsigned pages_left;

BOTH static void page_is_translated(void)
{
    pages_missing = pages_left == 0;
    if (pages_left-- > 0) { /* the next time again */
        meanwhile = page_is_translated;
        meanwhile_at = AT_TRANSLATE;
    }
}

/* A WRITE in this state ends the guest. */
static void check_write_refused(struct vcpu *vcpu, struct write_state state, const char *what)
{
    char call[400];

    make_write(vcpu, state, 0);
    snprintf(call, sizeof call, "%s (DS's base 0x%x, ESI 0x%x, ECX 0x%x)", what, state.ds_base,
             state.esi, state.ecx);
    check_refused(vcpu, call);
}

/* Lengths that are negative if they are taken for numbers with a sign, or whose sum overflows. */
static void write_long_outside(struct vcpu *vcpu)
{
    const uint32_t lengths[] = {0x80000000, UINT32_MAX, 0x80000000 | unit_random(),
                                0x40000000 | unit_random() % 0x40000000};
    enum { LENGTHS = sizeof lengths / sizeof lengths[0] };
    int order[LENGTHS];

    shuffle(order, LENGTHS);
    for (int i = 0; i < LENGTHS; i++) {
        const uint32_t bytes = lengths[order[i]], to_end = 1 + unit_random() % (2 * PAGE_BYTES);
        char what[200];
        snprintf(what, sizeof what,
                 "32-bit code made a WRITE with ECX = 0x%x (a length has no sign, and all of ECX "
                 "counts), most of it past RAM",
                 bytes);
        check_write_refused(
            vcpu,
            (struct write_state){CR0_PE, true, 0, (uint32_t)vcpu->vm->ram_bytes - to_end, bytes},
            what);
    }
}

static uint64_t far_away;

/* An address above 4 GB, of which the lower 32 bits alone are in RAM. */
BOTH static bool translate_far(uint64_t linear, uint64_t *phys)
{
    *phys = (linear ^ PAGE_BYTES) + far_away;
    return true;
}

static void write_far_outside(struct vcpu *vcpu)
{
    for (int i = 0; i < 6; i++) {
        char what[200];
        const uint32_t linear = unit_random() % (1 << 19);
        far_away = i ? 1ull << (32 + unit_random() % 20) : 1ull << 32;
        snprintf(what, sizeof what,
                 "vcpu_translate found a WRITE's page at 0x%llx (all 64 bits of *phys count), far "
                 "past RAM",
                 (unsigned long long)(linear ^ PAGE_BYTES) + far_away);
        translate_instead = translate_far;
        check_write_refused(vcpu, (struct write_state){CR0_PE, true, 0, linear, 20}, what);
        translate_instead = NULL;
        make_write(vcpu, (struct write_state){CR0_PE, true, 0, linear, 20}, 0);
        check_serves(vcpu, "a WRITE whose bytes are all in RAM");
    }
}

/* RAM ends where vm->ram_bytes says. */
static void write_smaller_ram(struct vcpu *vcpu)
{
    const size_t all = vcpu->vm->ram_bytes;
    const uint32_t end = (32 + unit_random() % 100) * PAGE_BYTES, bytes = 1 + unit_random() % 200;

    vcpu->vm->ram_bytes = end;
    make_write(vcpu, (struct write_state){CR0_PE, true, 0, end - bytes, bytes}, 0);
    check_serves(vcpu, "a WRITE whose bytes are the last ones of RAM");
    check_write_refused(vcpu, (struct write_state){CR0_PE, true, 0, end - bytes, bytes + 1},
                        "a WRITE ended one byte past RAM, which has vm->ram_bytes bytes");
    vcpu->vm->ram_bytes = all;
}

START_TEST(write_outside)
{
    struct vm vm;
    struct vcpu vcpu;
    const uint32_t inside = 1 + unit_random() % 100, outside = 1 + unit_random() % 100;

    start_created(&vm, &vcpu);
    struct stage changed = stage;
    changed.console_write = console_try;
    stage_set(&changed);
    memset(vm.ram, 'x', vm.ram_bytes);
    const uint32_t end = (uint32_t)vm.ram_bytes, last_page = end - PAGE_BYTES;
    make_write(&vcpu, (struct write_state){0, false, last_page, PAGE_BYTES - inside, inside}, 0);
    enum step step = run_hypercall(&vcpu);
    ck_assert_msg(step == STEP_RUN && printed_bytes == inside,
                  "a WRITE of %u bytes ends with the last byte of RAM, and was refused: all of it "
                  "is there",
                  inside);
    check_write_refused(
        &vcpu, (struct write_state){0, false, last_page, PAGE_BYTES - inside, inside + outside},
        "a WRITE began in RAM and ended past it, in the VMM's own memory");
    make_write(&vcpu, (struct write_state){CR0_PE, true, 0, PAGE_BYTES, 0x10000 + inside}, 0);
    step = run_hypercall(&vcpu);
    ck_assert_msg(step == STEP_RUN && printed_bytes == 0x10000 + inside,
                  "32-bit code made a WRITE of %u bytes (all of ECX counts), all of it in RAM, and "
                  "%zu were printed",
                  0x10000 + inside, printed_bytes);
    check_write_refused(
        &vcpu, (struct write_state){CR0_PE, true, 0, end - PAGE_BYTES, 0x10000 + inside},
        "32-bit code made a WRITE of over 64 KB (all of ECX counts) that ended past "
        "RAM");
    check_write_refused(&vcpu, (struct write_state){0, false, 0xffff0, 0x10 + outside, inside},
                        "16-bit code made a WRITE at 1 MB, where RAM ends (DS's base plus SI has "
                        "more than 20 bits)");
    check_write_refused(&vcpu, (struct write_state){CR0_PE, true, 0, 0u - inside, inside},
                        "a WRITE ended with the last byte of 4 GB, far past RAM");
    write_smaller_ram(&vcpu);
    write_long_outside(&vcpu);
    write_far_outside(&vcpu);
    pages_left = 2 + unit_random() % 4; /* one of them now */
    page_is_translated();
    check_write_refused(
        &vcpu, (struct write_state){CR0_PE, true, 0, PAGE_BYTES, 5 * PAGE_BYTES + inside},
        "vcpu_translate returned true for a WRITE's first page, and then false, because "
        "a later page is not mapped");
    meanwhile = NULL;
    pages_missing = true;
    check_write_refused(&vcpu, (struct write_state){CR0_PE, true, 0, PAGE_BYTES, inside},
                        "vcpu_translate returned false, because a page of the WRITE is not mapped");
}
END_TEST

/* If KVM does not copy the segment registers, they have to be read; that can also fail. */
START_TEST(write_failed)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    pages_swapped = true;
    make_write(&vcpu, (struct write_state){0, false, 0x10000, 0x100, 20}, KVM_SYNC_X86_REGS);
    check_serves(&vcpu, "WRITE");
    falsified.request = KVM_GET_SREGS;
    falsified.error = unit_error();
    translations = 0;
    check_refused(&vcpu, "KVM_GET_SREGS failed in a WRITE");
    check_met("WRITE", "a KVM_GET_SREGS that fails");
    check_reason("KVM_GET_SREGS failed in a WRITE", falsified.error);
    ck_assert_msg(translations == 0 && printed_bytes == 0,
                  "KVM_GET_SREGS failed in a WRITE, and it was served all the same, with whatever "
                  "was in the variable for the registers");
    falsified.error = 0;
    check_serves(&vcpu, "WRITE");
}
END_TEST

/* ------------------------------------------------------------------ unknown accesses */

/* In real mode, in 32-bit code or in long mode: every bit counts. */
static uint64_t unknown_rip(void)
{
    const uint64_t rip = (uint64_t)unit_random() << 32 | unit_random();

    switch (unit_random() % 4) {
    case 0:
        return 0x1000 + rip % 0xe000;
    case 1:
        return 0x80000000 | rip % 0x80000000;
    case 2:
        return HIGHER_HALF_64 | rip % 0x80000000;
    default:
        return 0x100000 + rip % 0x7fffff000000;
    }
}

/* An access that no guest may make, at a random address; `number`: of the call, at that port. */
static void check_unknown(struct vcpu *vcpu, bool out, uint16_t port, uint8_t size, uint32_t number)
{
    struct kvm_regs regs;
    char what[200];

    kernel(vcpu->fd, KVM_GET_REGS, &regs);
    regs.rip = unknown_rip();
    kernel(vcpu->fd, KVM_SET_REGS, &regs);
    uint8_t *data = make_io(out, port, size, 1);
    if (port == HYPERCALL_PORT) {
        memcpy(data, &number, size);
        snprintf(what, sizeof what, "the guest called number 0x%x, of size %u%s", number, size,
                 number > UINT8_MAX && (uint8_t)number <= HC_WRITE
                     ? ", of which the low byte alone would be a call"
                     : "");
    } else {
        number = port;
        snprintf(what, sizeof what, "the guest made an %s port 0x%x, of size %u",
                 out ? "out to" : "in from", port, size);
    }
    check_refused(vcpu, what);
    ck_assert_msg(said_number(number), "%s, and the message of vcpu_crash does not say so: \"%s\"",
                  what, said);
    ck_assert_msg(said_hexadecimal(regs.rip),
                  "%s at address 0x%llx, and the message of vcpu_crash does not give that RIP: "
                  "\"%s\"",
                  what, regs.rip, said);
    if (unit_random() % 4 == 0) {
        make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_PUTCHAR;
        check_serves(vcpu, "PUTCHAR");
    }
}

#define UNKNOWN       24             /* accesses of a kind */
#define UNKNOWN_PORTS (UNKNOWN + 15) /* the last: for each bit of a port but the lowest */

START_TEST(unknown_calls)
{
    enum { BITS = 8 + 16 + 32 };
    struct vm vm;
    struct vcpu vcpu;
    int order[BITS];

    start_created(&vm, &vcpu);
    shuffle(order, BITS);
    for (int i = 0; i < BITS; i++) { /* a call's number, but for one bit */
        const size_t of = order[i] < 8 ? 0 : order[i] < 8 + 16 ? 1 : 2;
        const unsigned bit = (unsigned)order[i] - (of == 0 ? 0 : of == 1 ? 8 : 8 + 16);
        if (bit > 1)
            check_unknown(&vcpu, true, HYPERCALL_PORT, sizes[of], 1u << bit | unit_random() % 4);
    }
    for (unsigned i = 0; i < UNKNOWN; i++) {
        const uint8_t size = sizes[unit_random() % sizeof sizes];
        uint32_t number = HC_WRITE + 1 + unit_random() % (i % 2 ? 60 : 252);
        if (size > 1 && i % 4 > 1) /* the low byte is that of a call */
            number = (1 + unit_random() % (i % 8 > 3 ? 6 : 255)) << 8 | unit_random() % 4;
        if (size > 2 && i % 3 == 0)
            number |= unit_random() << 16;
        check_unknown(&vcpu, true, HYPERCALL_PORT, size, number);
    }
}
END_TEST

/* A port that is neither of the two: one of them but for a bit, any, a low one, or next to them. */
static uint16_t unknown_port(unsigned kind)
{
    if (kind >= UNKNOWN)
        return (HYPERCALL_PORT | (uint16_t)(unit_random() & 1)) ^
               (uint16_t)(2u << (kind - UNKNOWN));
    const uint16_t low = (uint16_t)(unit_random() % HYPERCALL_PORT);
    const uint16_t high = (uint16_t)(STRING_PORT + 1 + unit_random() % (UINT16_MAX - STRING_PORT));

    switch (kind % 8) {
    case 0:
        return HYPERCALL_PORT - 1;
    case 1:
        return STRING_PORT + 1;
    case 2:
        return kind % 16 == 2 ? 0 : UINT16_MAX;
    default:
        return kind % 2 ? low : high;
    }
}

START_TEST(unknown_ports)
{
    struct vm vm;
    struct vcpu vcpu;
    int order[UNKNOWN_PORTS];

    start_created(&vm, &vcpu);
    shuffle(order, UNKNOWN_PORTS);
    for (int i = 0; i < UNKNOWN_PORTS; i++)
        check_unknown(&vcpu, true, unknown_port((unsigned)order[i]),
                      sizes[unit_random() % sizeof sizes], 0);
}
END_TEST

START_TEST(unknown_reads)
{
    struct vm vm;
    struct vcpu vcpu;
    int order[UNKNOWN_PORTS];

    start_created(&vm, &vcpu);
    shuffle(order, UNKNOWN_PORTS);
    for (int i = 0; i < UNKNOWN_PORTS; i++)
        check_unknown(&vcpu, false,
                      order[i] < (int)sizeof sizes ? STRING_PORT : unknown_port((unsigned)order[i]),
                      order[i] < (int)sizeof sizes ? sizes[order[i]]
                                                   : sizes[unit_random() % sizeof sizes],
                      0);
}
END_TEST

START_TEST(unknown_sizes)
{
    struct vm vm;
    struct vcpu vcpu;
    int order[8];

    start_created(&vm, &vcpu);
    shuffle(order, 8);
    for (int i = 0; i < 8; i++) {
        check_unknown(&vcpu, true, STRING_PORT, order[i] % 2 ? 2 : 4, 0);
        make_io(true, STRING_PORT, 1, 1 + unit_random() % 4);
        check_serves(&vcpu, "a string");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hypercall");

    unit_add(suite, "decode", decode);
    unit_add(suite, "operands", operands);
    unit_add(suite, "answers", answers);
    unit_add(suite, "registers", registers);
    unit_add(suite, "registers_failed", registers_failed);
    unit_add(suite, "unknown_unread", unknown_unread);
    unit_add(suite, "console_stage", console_stage);
    unit_add(suite, "each_operand", each_operand);
    unit_add(suite, "vcpus_apart", vcpus_apart);
    unit_add(suite, "strings_stage", strings_stage);
    unit_add(suite, "uncalled_read", uncalled_read);
    unit_add(suite, "getchar_steps", getchar_steps);
    unit_add(suite, "string_count", string_count);
    unit_add(suite, "write_pages", write_pages);
    unit_add(suite, "write_outside", write_outside);
    unit_add(suite, "write_failed", write_failed);
    unit_add(suite, "unknown_calls", unknown_calls);
    unit_add(suite, "unknown_ports", unknown_ports);
    unit_add(suite, "unknown_reads", unknown_reads);
    unit_add(suite, "unknown_sizes", unknown_sizes);
    return unit_main(suite);
}
