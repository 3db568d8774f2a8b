/* lab1_translate.c - which registers vcpu_translate goes by. */
#include "given.h"
#include "support.h"

static struct kvm_run run;
static struct vcpu vcpu;

/* A vCPU without KVM: to ask for its registers fails. */
static void setup(void)
{
    static struct vm vm;
    static struct guest guest;

    vcpu_init(&vcpu, 0, 0, &vm, &guest);
    vcpu.run = &run;
    run.s.regs.sregs.cr0 = RESET_CR0; /* real mode */
}

static bool translates(void)
{
    uint64_t phys = 0;
    const bool mapped = vcpu_translate(&vcpu, 0x12345, &phys, NULL);

    ck_assert(!mapped || phys == 0x12345);
    return mapped;
}

START_TEST(those_handed_over_with_an_exit)
{
    run.kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    vcpu.exit.reason = KVM_EXIT_IO;
    ck_assert(translates());
}
END_TEST

START_TEST(no_others_before_the_first_exit)
{
    run.kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    ck_assert(!translates());
}
END_TEST

START_TEST(no_others_where_kvm_hands_none_over)
{
    run.kvm_valid_regs = KVM_SYNC_X86_REGS;
    vcpu.exit.reason = KVM_EXIT_IO;
    ck_assert(!translates());
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("vcpu_translate");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, those_handed_over_with_an_exit);
    tcase_add_test(tests, no_others_before_the_first_exit);
    tcase_add_test(tests, no_others_where_kvm_hands_none_over);
    return run_case(tests, "translate");
}
