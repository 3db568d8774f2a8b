/* lab2_hypercall.c - port accesses decoded and answered, on a kvm_run made by hand, without KVM. */
#include "lab2.h"
#include "support.h"

#define DATA_OFFSET 0x1000
#define GUEST_RIP   0x1234

static union {
    struct kvm_run run;
    uint8_t bytes[0x2000];
} shared;
static struct vmm vmm;
static struct vm vm;
static struct vcpu vcpu;
static FILE *output, *errors;

static void begin(void)
{
    vm_init(&vm, &vmm);
    vcpu_init(&vcpu, 0, 0, &vm, &vmm.guests[0]);
    vmm.guest_count = 1;
    vmm.guests[0].path = "by-hand";
    vcpu.run = &shared.run;
    shared.run.exit_reason = KVM_EXIT_IO;
    shared.run.kvm_valid_regs = KVM_SYNC_X86_REGS; /* so that no ioctl is needed for BL */
    shared.run.s.regs.regs.rip = GUEST_RIP;
    output = capture(STDOUT_FILENO);
    errors = capture(STDERR_FILENO);
}

/* A port access as KVM reports it; `bytes` are the operands of an OUT. */
static void set_access(bool out, uint16_t port, uint8_t size, uint32_t count, const void *bytes)
{
    shared.run.io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    shared.run.io.port = port;
    shared.run.io.size = size;
    shared.run.io.count = count;
    shared.run.io.data_offset = DATA_OFFSET;
    if (bytes)
        memcpy(shared.bytes + DATA_OFFSET, bytes, (size_t)size * count);
}

static struct io_access decoded(bool out, uint16_t port, uint8_t size, uint32_t count,
                                const void *bytes)
{
    set_access(out, port, size, count, bytes);
    return io_decode(&shared.run);
}

static enum step port_access(bool out, uint16_t port, uint8_t size, uint32_t count,
                             const void *bytes)
{
    set_access(out, port, size, count, bytes);
    return hypercall_io(&vcpu);
}

/* The guest writes a hypercall's number, with BL set and other bits of EBX that must not matter. */
static enum step call(uint32_t number, uint8_t size, uint8_t bl)
{
    shared.run.s.regs.regs.rbx = 0xffffff00u | bl;
    return port_access(true, HYPERCALL_PORT, size, 1, &number);
}

static const uint8_t sizes[] = {1, 2, 4};

START_TEST(an_access_is_decoded)
{
    struct io_access io = decoded(true, 0x3f8, sizes[_i], 3, NULL);

    ck_assert(io.out);
    ck_assert_uint_eq(io.port, 0x3f8);
    ck_assert_uint_eq(io.size, sizes[_i]);
    ck_assert_uint_eq(io.count, 3);
    ck_assert_ptr_eq(io.data, shared.bytes + DATA_OFFSET);
    io = decoded(false, 0x3f8, sizes[_i], 3, NULL);
    ck_assert(!io.out);
}
END_TEST

START_TEST(operands_are_as_wide_as_the_access)
{
    static const uint8_t bytes[12] = {0x81, 0x82, 0x83, 0x84, 0x85, 0x86,
                                      0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c};
    struct io_access io = decoded(true, 1, 1, 3, bytes);

    ck_assert_uint_eq(io_operand(&io, 0), 0x81);
    ck_assert_uint_eq(io_operand(&io, 2), 0x83);
    io = decoded(true, 1, 2, 3, bytes);
    ck_assert_uint_eq(io_operand(&io, 0), 0x8281);
    ck_assert_uint_eq(io_operand(&io, 2), 0x8685);
    io = decoded(true, 1, 4, 3, bytes);
    ck_assert_uint_eq(io_operand(&io, 0), 0x84838281);
    ck_assert_uint_eq(io_operand(&io, 2), 0x8c8b8a89);
}
END_TEST

START_TEST(an_answer_leaves_its_neighbours_alone)
{
    uint8_t size = sizes[_i];

    memset(shared.bytes + DATA_OFFSET, 0xee, 16);
    struct io_access io = decoded(false, 1, size, 3, NULL);
    io_answer(&io, 1, 0x44332211);
    ck_assert_mem_eq(io.data + size, "\x11\x22\x33\x44", size);
    for (uint8_t i = 0; i < size; i++) {
        ck_assert_uint_eq(io.data[i], 0xee);
        ck_assert_uint_eq(io.data[2 * size + i], 0xee);
    }
}
END_TEST

START_TEST(putchar_writes_bl)
{
    ck_assert_int_eq(call(HC_PUTCHAR, sizes[_i], 'K'), STEP_RUN);
    ck_assert_int_eq(call(HC_PUTCHAR, sizes[_i], 0xff), STEP_RUN);
    char *text = captured(output, NULL);
    ck_assert_str_eq(text, "K\xff");
    free(text);
}
END_TEST

START_TEST(exit_ends_with_bl)
{
    ck_assert_int_eq(call(HC_EXIT, sizes[_i], 42), STEP_END);
    ck_assert_int_eq(vcpu.status, 42);
}
END_TEST

START_TEST(a_status_that_is_the_vmms_own_is_cut)
{
    ck_assert_int_eq(call(HC_EXIT, 1, 200), STEP_END);
    ck_assert_int_eq(vcpu.status, STATUS_GUEST_MAX);
}
END_TEST

/* A GETCHAR call and the read after it: the answer's bytes, as the guest's register gets them. */
static uint32_t getchar_answer(uint8_t size)
{
    uint32_t answer = 0;

    ck_assert_int_eq(call(HC_GETCHAR, 1, 0), STEP_RUN);
    ck_assert_int_eq(port_access(false, HYPERCALL_PORT, size, 1, NULL), STEP_RUN);
    memcpy(&answer, shared.bytes + DATA_OFFSET, size);
    return answer;
}

START_TEST(getchar_tells_nothing_and_end_apart)
{
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    ck_assert_uint_eq(getchar_answer(4), (uint32_t)GETCHAR_NOTHING);
    ck_assert_int_eq(write(ends[1], "a\xff\0z", 4), 4);
    ck_assert_uint_eq(getchar_answer(4), 'a');
    ck_assert_uint_eq(getchar_answer(4), 0xff);
    ck_assert_uint_eq(getchar_answer(2), 0);
    ck_assert_uint_eq(getchar_answer(1), 'z');
    ck_assert_uint_eq(getchar_answer(2), (uint16_t)GETCHAR_NOTHING);
    close(ends[1]);
    ck_assert_uint_eq(getchar_answer(4), (uint32_t)GETCHAR_END);
    ck_assert_uint_eq(getchar_answer(1), (uint8_t)GETCHAR_END);
}
END_TEST

START_TEST(a_read_without_getchar_is_refused)
{
    ck_assert_int_eq(port_access(false, HYPERCALL_PORT, 1, 1, NULL), STEP_END);
    ck_assert_int_eq(vcpu.status, STATUS_CRASHED);
}
END_TEST

START_TEST(a_string_comes_whole)
{
    ck_assert_int_eq(port_access(true, STRING_PORT, 1, 13, "Hello, guest\n"), STEP_RUN);
    char *text = captured(output, NULL);
    ck_assert_str_eq(text, "Hello, guest\n");
    free(text);
}
END_TEST

static const struct {
    bool out;
    uint16_t port;
    uint8_t size;
    const char *bytes;
} unknown[] = {
    {true, HYPERCALL_PORT, 1, "\x77"},             /* no call has this number */
    {true, HYPERCALL_PORT, 4, "\x00\x01\x00\x00"}, /* 0x100 is not EXIT */
    {true, 0x3f8, 1, "x"},
    {false, 0x60, 1, NULL},
    {false, STRING_PORT, 1, NULL},
    {true, STRING_PORT, 2, "xy"},
};

START_TEST(the_unknown_is_refused_with_its_place)
{
    ck_assert_int_eq(
        port_access(unknown[_i].out, unknown[_i].port, unknown[_i].size, 1, unknown[_i].bytes),
        STEP_END);
    ck_assert_int_eq(vcpu.status, STATUS_CRASHED);
    char *text = captured(errors, NULL);
    ck_assert_msg(strstr(text, "0x1234"), "the guest's address is missing: %s", text);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("hypercalls");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_loop_test(tests, an_access_is_decoded, 0, COUNT(sizes));
    tcase_add_test(tests, operands_are_as_wide_as_the_access);
    tcase_add_loop_test(tests, an_answer_leaves_its_neighbours_alone, 0, COUNT(sizes));
    tcase_add_loop_test(tests, putchar_writes_bl, 0, COUNT(sizes));
    tcase_add_loop_test(tests, exit_ends_with_bl, 0, COUNT(sizes));
    tcase_add_test(tests, a_status_that_is_the_vmms_own_is_cut);
    tcase_add_test(tests, getchar_tells_nothing_and_end_apart);
    tcase_add_test(tests, a_read_without_getchar_is_refused);
    tcase_add_test(tests, a_string_comes_whole);
    tcase_add_loop_test(tests, the_unknown_is_refused_with_its_place, 0, COUNT(unknown));
    return run_case(tests, "lab2_hypercall");
}
