/* lab3_windows.c - where the guests of several vCPUs lie in RAM. */
#include "lab3.h"
#include "support.h"

static struct vmm vmm;
static uint8_t ram[VCPUS_MAX * WINDOW_BYTES];
static uint8_t image[WINDOW_BYTES + 1];

static void begin(void)
{
    capture(STDERR_FILENO);
    memset(image, 0xcc, sizeof image);
    vm_init(&vmm.vms[0], &vmm);
    vmm.vms[0].ram = ram;
    vmm.vms[0].ram_bytes = sizeof ram;
    for (int i = 0; i < VCPUS_MAX; i++) {
        vmm.guests[i] = (struct guest){.path = "guest", .image = image};
        vcpu_init(&vmm.vcpus[i], i, i, &vmm.vms[0], &vmm.guests[i]);
    }
}

START_TEST(windows_lie_side_by_side)
{
    static const uint32_t bases[VCPUS_MAX] = {0x00000, 0x40000, 0x80000, 0xc0000};

    ck_assert_uint_eq(window_base(_i), bases[_i]);
}
END_TEST

/* There is no vCPU to set up here, so window_prepare ends with STATUS_NO_KVM after loading. */
START_TEST(an_image_fills_its_window_and_no_more)
{
    vmm.guests[_i].image_bytes = WINDOW_BYTES;
    ck_assert_int_eq(window_prepare(&vmm.vcpus[_i]), STATUS_NO_KVM);
    for (size_t at = 0; at < sizeof ram; at++) {
        bool inside = at / WINDOW_BYTES == (size_t)_i;
        if (ram[at] != (inside ? 0xcc : 0))
            ck_abort_msg("byte 0x%zx is wrong", at);
    }
}
END_TEST

START_TEST(an_image_larger_than_its_window_is_refused)
{
    vmm.guests[_i].image_bytes = WINDOW_BYTES + 1;
    ck_assert_int_eq(window_prepare(&vmm.vcpus[_i]), STATUS_GUEST_FILE);
    for (size_t at = 0; at < sizeof ram; at++) {
        if (ram[at] != 0)
            ck_abort_msg("byte 0x%zx was written", at);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("windows");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_loop_test(tests, windows_lie_side_by_side, 0, VCPUS_MAX);
    tcase_add_loop_test(tests, an_image_fills_its_window_and_no_more, 0, VCPUS_MAX);
    tcase_add_loop_test(tests, an_image_larger_than_its_window_is_refused, 0, VCPUS_MAX);
    return run_case(tests, "lab3_windows");
}
