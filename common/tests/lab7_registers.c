/* lab7_registers.c - a vCPU's registers in long mode, as text and as addresses. */
#include "debug/debug.h"
#include "lab7.h"
#include "support.h"

static const struct kvm_sregs long_mode = {
    .cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE, .efer = EFER_LME | EFER_LMA, .cs = {.l = 1}};
static const struct kvm_sregs paging = {
    .cr0 = CR0_PE | CR0_PG, .cs = {.base = 0x1000}, .ss = {.base = 0x3000}};
static const struct kvm_regs regs = {.r8 = 0x1111111111111118,
                                     .r15 = 0x111111111111111f,
                                     .rip = 0xffffffff80100000,
                                     .rsp = 0xffffffff8002fff8};

static char *printed(const struct kvm_sregs *sregs)
{
    FILE *said = capture(STDERR_FILENO);

    registers_print(3, &regs, sregs);
    return captured(said, NULL);
}

START_TEST(r8_to_r15_are_printed_in_long_mode_alone)
{
    char *text = printed(&long_mode);

    ck_assert_ptr_nonnull(strstr(text, "vcpu3: r8=1111111111111118 r9=0000000000000000 r10="));
    ck_assert_ptr_nonnull(strstr(text, " r15=111111111111111f\n"));
    ck_assert_ptr_nonnull(strstr(text, "vcpu3: rip=ffffffff80100000 "));
    free(text);
    text = printed(&paging);
    ck_assert_ptr_null(strstr(text, "r8="));
    free(text);
}
END_TEST

START_TEST(addresses_have_64_bits_and_no_base_only_in_64_bit_code)
{
    struct kvm_sregs compatible = long_mode;

    ck_assert_uint_eq(instruction_address(&regs, &long_mode), 0xffffffff80100000);
    compatible.ss.base = 0x3000; /* which counts outside of 64-bit code alone */
    ck_assert_uint_eq(stack_address(&regs, &compatible), 0xffffffff8002fff8);
    compatible.cs.l = 0;
    ck_assert_uint_eq(instruction_address(&regs, &compatible), 0x80100000);
    ck_assert_uint_eq(stack_address(&regs, &compatible), 0x80032ff8);
    ck_assert_uint_eq(instruction_address(&regs, &paging), 0x80101000);
    ck_assert_uint_eq(stack_address(&regs, &paging), 0x80032ff8);
}
END_TEST

START_TEST(code_of_32_bits_in_long_mode_has_a_name)
{
    struct kvm_sregs compatible = long_mode;

    ck_assert_str_eq(cpu_mode_name(&long_mode), "long mode");
    compatible.cs.l = 0;
    ck_assert_str_eq(cpu_mode_name(&compatible), "long mode, 16- or 32-bit code (CS.L is 0)");
    ck_assert_str_eq(cpu_mode_name(&paging), "protected mode with 32-bit paging");
}
END_TEST

START_TEST(the_stack_for_traps_is_shown_with_its_walk)
{
    static uint8_t memory[SLOT_BYTES];
    static struct guest guest = {.kind = GUEST_ELF64};
    static struct vm vm = {.ram = memory, .ram_bytes = sizeof memory};
    static struct vcpu vcpu = {.vm = &vm, .guest = &guest};
    struct address_space space = {
        .memory = memory, .bytes = sizeof memory, .next_table = TABLES_OFFSET};
    struct kvm_sregs sregs = {.efer = 0};
    struct kvm_regs start;
    const uint64_t rsp0 = HIGHER_HALF_64 + SLOT_BYTES;

    long_tables_build(&space);
    long_gdt_build(&space);
    long_mode_state(&space, HIGHER_HALF_64, HIGHER_HALF_64, &sregs, &start);
    long_rings_add(&space, &sregs);
    FILE *said = capture(STDERR_FILENO);
    kernel_state_print(&vcpu, &start, &sregs); /* rsp0 is 0: this guest has no ring 3 */
    memcpy(memory + TSS_OFFSET + 4, &rsp0, sizeof rsp0);
    kernel_state_print(&vcpu, &start, &sregs);
    char *text = captured(said, NULL);
    ck_assert_pstr_eq(
        text,
        "  stack for traps out of ring 3: TSS.rsp0 ffffffff80400000\n"
        "  page walk of 0xffffffff803ffff8: cr3 00002000, PML4[511] = 0000000000005007, "
        "PDPT[510] = 0000000000006007, PD[1] = 0000000000200083: at 0x3ffff8, writable, kernel, "
        "executable\n");
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("registers in long mode");

    tcase_add_test(tests, r8_to_r15_are_printed_in_long_mode_alone);
    tcase_add_test(tests, addresses_have_64_bits_and_no_base_only_in_64_bit_code);
    tcase_add_test(tests, code_of_32_bits_in_long_mode_has_a_name);
    tcase_add_test(tests, the_stack_for_traps_is_shown_with_its_walk);
    return run_case(tests, "lab7_registers");
}
