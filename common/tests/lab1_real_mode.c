/* lab1_real_mode.c - the real-mode start state, and releasing what was never created. */
#include "lab1.h"
#include "support.h"

/* A vCPU as after reset: SDM vol. 3, table 10-1. */
static struct kvm_sregs reset_sregs(void)
{
    struct kvm_sregs sregs;

    memset(&sregs, 0, sizeof sregs);
    sregs.cs = (struct kvm_segment){.base = RESET_CS_BASE,
                                    .limit = 0xffff,
                                    .selector = RESET_CS_SELECTOR,
                                    .type = 11,
                                    .present = 1,
                                    .s = 1};
    sregs.ds = (struct kvm_segment){.limit = 0xffff, .type = 3, .present = 1, .s = 1};
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    sregs.cr0 = RESET_CR0;
    return sregs;
}

static const uint32_t bases[] = {0x00000, 0x40000, 0x80000, 0xc0000, 0xffff0};

START_TEST(every_segment_is_based_at_the_window)
{
    struct kvm_sregs sregs = reset_sregs();
    struct kvm_regs regs;
    const struct kvm_segment *const segments[] = {&sregs.cs, &sregs.ds, &sregs.es,
                                                  &sregs.fs, &sregs.gs, &sregs.ss};

    real_mode_state(bases[_i], &sregs, &regs);
    for (size_t i = 0; i < COUNT(segments); i++) {
        ck_assert_uint_eq(segments[i]->base, bases[_i]);
        ck_assert_uint_eq(segments[i]->selector, bases[_i] >> 4);
        ck_assert_uint_eq(segments[i]->limit, 0xffff);
        ck_assert_uint_eq(segments[i]->present, 1);
    }
    ck_assert_uint_eq(sregs.cs.type, 11);
    ck_assert_uint_eq(sregs.ds.type, 3);
    ck_assert_uint_eq(sregs.cr0 & 1, 0);
}
END_TEST

START_TEST(execution_begins_at_offset_0)
{
    struct kvm_sregs sregs = reset_sregs();
    struct kvm_regs regs;

    memset(&regs, 0xa5, sizeof regs);
    real_mode_state(0x40000, &sregs, &regs);
    ck_assert_uint_eq(regs.rip, 0);
    ck_assert_uint_eq(regs.rflags, 2);
    ck_assert_uint_gt(regs.rsp, 0xff00);
    ck_assert_uint_le(regs.rsp, 0xffff);
    ck_assert_uint_eq(regs.rax | regs.rbx | regs.rcx | regs.rdx, 0);
}
END_TEST

START_TEST(what_was_not_created_can_be_destroyed)
{
    static struct vmm vmm;
    struct vm vm;
    struct vcpu vcpu;

    vm_init(&vm, &vmm);
    vcpu_init(&vcpu, 0, 0, &vm, &vmm.guests[0]);
    for (int twice = 0; twice < 2; twice++) {
        vcpu_destroy(&vcpu);
        vm_destroy(&vm);
    }
    ck_assert_int_eq(vm.kvm_fd, -1);
    ck_assert_int_eq(vm.fd, -1);
    ck_assert_int_eq(vcpu.fd, -1);
    ck_assert_ptr_null(vm.ram);
    ck_assert_ptr_null(vcpu.run);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("real mode");

    tcase_add_loop_test(tests, every_segment_is_based_at_the_window, 0, COUNT(bases));
    tcase_add_test(tests, execution_begins_at_offset_0);
    tcase_add_test(tests, what_was_not_created_can_be_destroyed);
    return run_case(tests, "lab1_real_mode");
}
