/* hypercall.c - lab 2's module function by function, on exits made by hand. */
#include "unit.h"

static const uint8_t sizes[] = {1, 2, 4};

/* A kvm_run with room for data behind it, as KVM maps it. */
static union {
    struct kvm_run run;
    uint8_t bytes[2 * PAGE_BYTES];
} page;

/* An exit for `count` operands of `size` bytes, random ones, at a random place in the page. */
static uint8_t *make_io(bool out, uint16_t port, uint8_t size, uint32_t count)
{
    memset(&page, 0, sizeof page);
    page.run.exit_reason = KVM_EXIT_IO;
    page.run.io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    page.run.io.port = port;
    page.run.io.size = size;
    page.run.io.count = count;
    page.run.io.data_offset = PAGE_BYTES + unit_random() % 512;
    uint8_t *data = page.bytes + page.run.io.data_offset;
    for (uint32_t i = 0; i < size * count; i++)
        data[i] = (uint8_t)(unit_random() | 0x80);
    return data;
}

START_TEST(decode)
{
    for (int i = 0; i < 20; i++) {
        const bool out = unit_random() & 1;
        const uint16_t port = (uint16_t)unit_random();
        const uint8_t size = sizes[unit_random() % 3];
        const uint32_t count = 1 + unit_random() % 100;
        uint8_t *data = make_io(out, port, size, count);
        struct io_access io = io_decode(&page.run);
        ck_assert_msg(io.out == out, "an exit with io.direction %u is decoded as %s",
                      page.run.io.direction, io.out ? "out" : "in");
        ck_assert_msg(io.port == port, "port 0x%x is decoded as 0x%x", port, io.port);
        ck_assert_msg(io.size == size, "size %u is decoded as %u", size, io.size);
        ck_assert_msg(io.count == count, "count %u is decoded as %u", count, io.count);
        ck_assert_msg(io.data == data,
                      "data is not io.data_offset (%llu) bytes behind the start of kvm_run",
                      page.run.io.data_offset);
    }
}
END_TEST

START_TEST(operands)
{
    for (size_t i = 0; i < sizeof sizes; i++) {
        const uint8_t size = sizes[i];
        uint8_t *data = make_io(true, HYPERCALL_PORT, size, 8);
        const struct io_access io = {true, HYPERCALL_PORT, size, 8, data};
        for (uint32_t index = 0; index < 8; index++) {
            uint32_t expected = 0;
            for (uint8_t byte = size; byte > 0; byte--)
                expected = expected << 8 | data[index * size + byte - 1u];
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
    for (size_t i = 0; i < sizeof sizes; i++) {
        const uint8_t size = sizes[i];
        uint8_t *data = make_io(false, HYPERCALL_PORT, size, 8);
        const struct io_access io = {false, HYPERCALL_PORT, size, 8, data};
        const uint32_t index = 1 + unit_random() % 6, value = unit_random();
        uint8_t before[8 * 4];
        memcpy(before, data, sizeof before);
        io_answer(&io, index, value);
        ck_assert_msg(memcmp(data + index * size, &value, size) == 0,
                      "the answer 0x%x of size %u is not at its place in the data", value, size);
        ck_assert_msg(memcmp(data, before, index * size) == 0 &&
                          memcmp(data + (index + 1) * size, before + (index + 1) * size, size) == 0,
                      "the answer of size %u changes the operands beside it", size);
    }
}
END_TEST

START_TEST(registers)
{
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_regs regs, got = {0};

    start_created(&vm, &vcpu);
    kernel(vcpu.fd, KVM_GET_REGS, &regs);
    regs.rbx = unit_random();
    regs.rcx = unit_random();
    kernel(vcpu.fd, KVM_SET_REGS, &regs);
    vcpu.run->kvm_valid_regs = 0;
    ck_assert_msg(vcpu_registers(&vcpu, &got) == 0, "vcpu_registers does not return 0");
    ck_assert_msg(got.rbx == regs.rbx && got.rcx == regs.rcx,
                  "a KVM without KVM_CAP_SYNC_REGS (kvm_valid_regs is 0): RBX is 0x%llx instead of "
                  "0x%llx; it takes KVM_GET_REGS there",
                  got.rbx, regs.rbx);
}
END_TEST

/* hypercall_io on the exit in `page`; what it printed is in `said`. */
static enum step run_hypercall(struct vcpu *vcpu)
{
    const int real_stdout = dup(STDOUT_FILENO);

    vcpu->run = &page.run;
    fflush(stdout);
    dup2(listen_fd, STDOUT_FILENO);
    enum step step = hypercall_io(vcpu);
    dup2(real_stdout, STDOUT_FILENO);
    ssize_t count = pread(listen_fd, said, sizeof said - 1, 0);
    said[count > 0 ? count : 0] = '\0';
    ck_assert(ftruncate(listen_fd, 0) == 0 && lseek(listen_fd, 0, SEEK_SET) == 0);
    return step;
}

START_TEST(string_count)
{
    struct vm vm;
    struct vcpu vcpu;
    const uint32_t count = 100 + unit_random() % 1000;
    uint8_t *data = make_io(true, STRING_PORT, 1, count);

    for (uint32_t i = 0; i < count; i++)
        data[i] = (uint8_t)('a' + data[i] % 26);
    start_created(&vm, &vcpu);
    enum step step = run_hypercall(&vcpu);
    ck_assert_msg(step == STEP_RUN, "after a string the vCPU does not run on");
    ck_assert_msg(strlen(said) == count,
                  "one exit had io.count = %u characters for STRING_PORT, and %zu were printed",
                  count, strlen(said));
    ck_assert_msg(memcmp(said, data, count) == 0,
                  "the characters printed are not those of the exit, one after the other");
}
END_TEST

/* The guest calls WRITE with these registers; the rest of its state is as after reset. */
static void make_write(struct vcpu *vcpu, uint32_t ds_base, bool code_32, uint32_t esi,
                       uint32_t ecx)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    make_io(true, HYPERCALL_PORT, 1, 1)[0] = HC_WRITE;
    kernel(vcpu->fd, KVM_GET_SREGS, &sregs);
    kernel(vcpu->fd, KVM_GET_REGS, &regs);
    sregs.ds.base = ds_base;
    sregs.ds.selector = (uint16_t)(ds_base >> 4);
    sregs.cs.db = code_32; /* which comes in protected mode only */
    sregs.cr0 = code_32 ? sregs.cr0 | 1 : sregs.cr0;
    regs.rsi = esi;
    regs.rcx = ecx;
    kernel(vcpu->fd, KVM_SET_SREGS, &sregs);
    kernel(vcpu->fd, KVM_SET_REGS, &regs);
    page.run.s.regs.regs = regs; /* for those who take them from there without asking */
    page.run.s.regs.sregs = sregs;
}

/* What it has to print of RAM at `linear` is `bytes` long and lies in pages that changed places. */
static void check_write(const struct vm *vm, uint32_t linear, uint32_t bytes, enum step step)
{
    ck_assert_msg(step == STEP_RUN && strlen(said) == bytes,
                  "a WRITE of %u bytes at linear address 0x%x printed %zu%s", bytes, linear,
                  strlen(said), step == STEP_RUN ? "" : ", and the vCPU does not run on");
    for (uint32_t i = 0; i < bytes; i++)
        ck_assert_msg((uint8_t)said[i] == vm->ram[(linear + i) ^ PAGE_BYTES],
                      "a WRITE at linear address 0x%x printed the wrong bytes from 0x%x on: ask "
                      "vcpu_translate again for each page, for the next one may lie elsewhere",
                      linear, linear + i);
}

START_TEST(write_pages)
{
    struct vm vm;
    struct vcpu vcpu;
    const uint32_t base = 0x10000, offset = PAGE_BYTES - 1 - unit_random() % 100;
    const uint32_t bytes = 2 * PAGE_BYTES + unit_random() % 200;

    start_created(&vm, &vcpu);
    for (size_t i = 0; i < vm.ram_bytes; i++)
        vm.ram[i] = (uint8_t)('a' + unit_random() % 26);
    pages_swapped = true;
    make_write(&vcpu, base, false, offset, bytes);
    check_write(&vm, base + offset, bytes, run_hypercall(&vcpu));
    make_write(&vcpu, base, true, 0x30000 + offset, bytes);
    check_write(&vm, base + 0x30000 + offset, bytes, run_hypercall(&vcpu));
}
END_TEST

START_TEST(write_outside)
{
    struct vm vm;
    struct vcpu vcpu;
    const uint32_t inside = 1 + unit_random() % 100, outside = 1 + unit_random() % 100;

    start_created(&vm, &vcpu);
    memset(vm.ram, 'x', vm.ram_bytes);
    make_write(&vcpu, (uint32_t)vm.ram_bytes - PAGE_BYTES, false, PAGE_BYTES - inside, inside);
    enum step step = run_hypercall(&vcpu);
    ck_assert_msg(step == STEP_RUN && strlen(said) == inside,
                  "a WRITE of %u bytes ends with the last byte of RAM, and was refused: all of it "
                  "is there",
                  inside);
    make_write(&vcpu, (uint32_t)vm.ram_bytes - PAGE_BYTES, false, PAGE_BYTES - inside,
               inside + outside);
    step = run_hypercall(&vcpu);
    ck_assert_msg(
        step == STEP_END && vcpu.status == STATUS_DIED,
        "a WRITE of %u bytes began %u bytes before the end of RAM, and the guest went on: "
        "what lies behind is the VMM's own memory",
        inside + outside, inside);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hypercall");

    unit_add(suite, "decode", decode);
    unit_add(suite, "operands", operands);
    unit_add(suite, "answers", answers);
    unit_add(suite, "registers", registers);
    unit_add(suite, "string_count", string_count);
    unit_add(suite, "write_pages", write_pages);
    unit_add(suite, "write_outside", write_outside);
    return unit_main(suite);
}
