/*
 * lab7_entry_state.c - the start state of long mode against what Intel's processors check at entry;
 * and the checks that are only those of long mode, each against a state that it must refuse.
 */
#include "debug/entry_state.h"
#include "lab7.h"
#include "support.h"

static uint8_t memory[SLOT_BYTES];

static const uint32_t slots[] = {0, SLOT_BYTES, 3 * SLOT_BYTES};

static void long_start(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    struct address_space space = {
        .memory = memory, .base = base, .bytes = sizeof memory, .next_table = TABLES_OFFSET};

    *sregs = entry_reset_state();
    long_tables_build(&space);
    long_gdt_build(&space);
    long_mode_state(&space, HIGHER_HALF_64 + LOAD_DEFAULT, HIGHER_HALF_64 + LOAD_MIN, sregs, regs);
    long_rings_add(&space, sregs);
}

START_TEST(long_mode_may_enter)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    long_start(slots[_i], &sregs, &regs);
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);
}
END_TEST

/* What the guest may go on to: 32-bit code under long mode, and ring 3. */
START_TEST(what_a_guest_becomes_may_enter)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    long_start(0, &sregs, &regs);
    sregs.cs.l = 0;
    sregs.cs.db = 1;
    regs.rip = LOAD_DEFAULT;
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);

    long_start(0, &sregs, &regs);
    const uint64_t *gdt = (uint64_t *)(void *)(memory + GDT_OFFSET);
    sregs.cs = segment_load(gdt, SELECTOR_LONG_USER_CODE);
    sregs.ss = segment_load(gdt, SELECTOR_LONG_USER_DATA);
    sregs.fs.base = sregs.gs.base = HIGHER_HALF_64;
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);
}
END_TEST

static struct kvm_sregs bad;
static struct kvm_regs bad_regs;

/* Each line: one field of a good state changed, and a word of the answer. */
#define REFUSED(change, word)                                                                      \
    do {                                                                                           \
        long_start(0, &bad, &bad_regs);                                                            \
        change;                                                                                    \
        const char *fault = entry_state_fault(&bad, &bad_regs);                                    \
        ck_assert_msg(fault, "%s: entered", #change);                                              \
        ck_assert_msg(strstr(fault, word), "%s: %s", #change, fault);                              \
    } while (0)

#define NOT_CANONICAL 0x800000000000ull

START_TEST(long_mode_refusals)
{
    REFUSED(bad.cs.db = 1, "CS: D/B");
    REFUSED(bad.cs.l = 0, "RIP");
    REFUSED(bad.cs.base = HIGHER_HALF_64, "CS: base");
    REFUSED(bad.ss.base = HIGHER_HALF_64, "SS: base");
    REFUSED(bad.ds.base = HIGHER_HALF_64, "DS: base");
    REFUSED(bad.es.base = HIGHER_HALF_64, "ES: base");
    REFUSED(bad.fs.base = NOT_CANONICAL, "FS: base");
    REFUSED(bad.gs.base = NOT_CANONICAL, "GS: base");
    REFUSED((bad.gs.base = NOT_CANONICAL, bad.gs.unusable = 1), "GS: base");
    REFUSED(bad.tr.type = 3, "TR: type 3 is not a busy");
    REFUSED(bad.tr.type = 9, "TR: type 9 is not a busy");
    REFUSED(bad.tr.base = NOT_CANONICAL, "TR: base");
    REFUSED((bad.ldt.unusable = 0, bad.ldt.base = NOT_CANONICAL), "LDTR: base");
    REFUSED(bad.gdt.base = NOT_CANONICAL, "GDTR");
    REFUSED(bad.idt.base = NOT_CANONICAL, "IDTR");
    REFUSED(bad.cr4 &= ~(uint64_t)CR4_PAE, "PAE");
    REFUSED(bad.cr0 &= ~(uint64_t)CR0_PG, "LMA does not go");
    REFUSED(bad.efer &= ~(uint64_t)EFER_LMA, "LMA does not go");
    REFUSED(bad.efer &= ~(uint64_t)EFER_LME, "LMA does not go");
    REFUSED(bad.efer |= 2, "EFER");
    REFUSED(bad_regs.rip = NOT_CANONICAL, "RIP");
    REFUSED(bad_regs.rflags |= FLAGS_VM, "RFLAGS.VM is 1 in long mode");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("entry state");

    tcase_add_loop_test(tests, long_mode_may_enter, 0, COUNT(slots));
    tcase_add_test(tests, what_a_guest_becomes_may_enter);
    tcase_add_test(tests, long_mode_refusals);
    return run_case(tests, "lab7_entry_state");
}
