/*
 * lab5_entry_state.c - the start states of real mode and of paging against what Intel's processors
 * check at entry; and the checks themselves, each against a state that it must refuse.
 */
#include "debug/entry_state.h"
#include "lab5.h"
#include "support.h"

static uint8_t memory[SLOT_BYTES];

static const uint32_t windows[] = {0x00000, 0x40000, 0x80000, 0xc0000};
static const uint32_t slots[] = {0, SLOT_BYTES, 3 * SLOT_BYTES};

static void paging_start(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs)
{
    struct address_space space = {
        .memory = memory, .base = base, .bytes = sizeof memory, .next_table = TABLES_OFFSET};

    *sregs = entry_reset_state();
    gdt_build(&space);
    directory_build(&space);
    paging_state(&space, HIGHER_HALF + LOAD_DEFAULT, HIGHER_HALF + LOAD_DEFAULT, sregs, regs);
}

START_TEST(real_mode_may_enter)
{
    struct kvm_sregs sregs = entry_reset_state();
    struct kvm_regs regs;

    real_mode_state(windows[_i], &sregs, &regs);
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);
}
END_TEST

START_TEST(paging_may_enter)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    paging_start(slots[_i], &sregs, &regs);
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);
}
END_TEST

/* The GDT in memory must give the same when the guest loads its segments again. */
START_TEST(protected_mode_without_paging_may_enter)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    paging_start(0, &sregs, &regs);
    sregs.cr0 &= ~(uint64_t)CR0_PG;
    ck_assert_pstr_eq(entry_state_fault(&sregs, &regs), NULL);
}
END_TEST

static struct kvm_sregs bad;
static struct kvm_regs bad_regs;

/* Each line: one field of a good state changed, and a word of the answer. */
#define REFUSED(mode, change, word)                                                                \
    do {                                                                                           \
        mode;                                                                                      \
        change;                                                                                    \
        const char *fault = entry_state_fault(&bad, &bad_regs);                                    \
        ck_assert_msg(fault, "%s: entered", #change);                                              \
        ck_assert_msg(strstr(fault, word), "%s: %s", #change, fault);                              \
    } while (0)

#define REAL   (bad = entry_reset_state(), real_mode_state(0x40000, &bad, &bad_regs))
#define PAGING paging_start(0, &bad, &bad_regs)

START_TEST(real_mode_refusals)
{
    REFUSED(REAL, bad.cs.base = 0xffff0000, "CS: base");
    REFUSED(REAL, bad.cs.selector = 0, "CS: base");
    REFUSED(REAL, bad.ss.base = 0, "SS: base");
    REFUSED(REAL, bad.ds.selector = 0x4001, "DS: base");
    REFUSED(REAL, bad.es.limit = 0xfffff, "ES: limit");
    REFUSED(REAL, bad.fs.base++, "FS: base");
    REFUSED(REAL, bad.gs.base = 0, "GS: base");
    REFUSED(REAL, bad.tr.type = 9, "TR: type");
    REFUSED(REAL, bad.cr0 |= CR0_PG, "PG");
    REFUSED(REAL, bad_regs.rflags = 0, "bit 1");
    REFUSED(REAL, bad_regs.rflags |= 0x20000, "RFLAGS.VM");
}
END_TEST

START_TEST(paging_refusals)
{
    REFUSED(PAGING, bad.cs.type = 10, "CS: type");
    REFUSED(PAGING, bad.cs.type = 3, "CS: type");
    REFUSED(PAGING, bad.cs.unusable = 1, "CS: type");
    REFUSED(PAGING, bad.cs.dpl = 3, "CS: DPL");
    REFUSED(PAGING, (bad.cs.type = 15, bad.cs.dpl = 3), "CS: DPL");
    REFUSED(PAGING, bad.cs.s = 0, "CS: S");
    REFUSED(PAGING, bad.cs.present = 0, "CS: P");
    REFUSED(PAGING, bad.cs.g = 0, "CS: G is 0");
    REFUSED(PAGING, bad.cs.limit = 0xfffff000, "CS: G is 1");
    REFUSED(PAGING, bad.cs.l = 1, "CS: L");
    REFUSED(PAGING, bad.cs.base = 1ull << 32, "CS: base");
    REFUSED(PAGING, bad.ss.selector |= 3, "SS: RPL");
    REFUSED(PAGING, bad.ss.type = 2, "SS: type");
    REFUSED(PAGING, bad.ss.type = 11, "SS: type");
    REFUSED(PAGING, (bad.ss.selector |= 3, bad.cs.selector |= 3), "SS: DPL");
    REFUSED(PAGING, bad.ss.present = 0, "SS: P");
    REFUSED(PAGING, bad.ss.g = 0, "SS: G is 0");
    REFUSED(PAGING, bad.ds.type = 2, "DS: type 2 is not accessed");
    REFUSED(PAGING, bad.es.type = 9, "ES: type 9");
    REFUSED(PAGING, bad.fs.selector |= 3, "FS: DPL");
    REFUSED(PAGING, bad.gs.s = 0, "GS: S");
    REFUSED(PAGING, bad.gs.present = 0, "GS: P");
    REFUSED(PAGING, bad.ds.limit = 0xffffefff + 1, "DS: G is 1");
    REFUSED(PAGING, bad.tr.unusable = 1, "TR: marked unusable");
    REFUSED(PAGING, bad.tr.selector |= 4, "TR: selector");
    REFUSED(PAGING, bad.tr.type = 9, "TR: type 9 is not a busy");
    REFUSED(PAGING, bad.tr.s = 1, "TR: S");
    REFUSED(PAGING, bad.tr.present = 0, "TR: P");
    REFUSED(PAGING, bad.tr.g = 1, "TR: G is 1");
    REFUSED(PAGING, (bad.ldt.unusable = 0, bad.ldt.type = 0), "LDTR: type");
    REFUSED(PAGING, (bad.ldt.unusable = 0, bad.ldt.type = 2), "LDTR: P");
    REFUSED(PAGING, (bad.ldt.unusable = 0, bad.ldt.selector = 4), "LDTR: selector");
    REFUSED(PAGING, bad.gdt.base = 1ull << 47, "GDTR");
    REFUSED(PAGING, bad.idt.base = 1ull << 47, "IDTR");
    REFUSED(PAGING, bad.cr0 &= ~1ull, "PG");
    REFUSED(PAGING, bad.cr0 |= CR0_NW, "NW");
    REFUSED(PAGING, bad.cr0 |= 1ull << 32, "CR0");
    REFUSED(PAGING, bad.cr3 |= 1ull << 40, "CR3");
    REFUSED(PAGING, bad.cr4 |= 0x2000, "CR4");
    REFUSED(PAGING, bad.efer = EFER_LMA, "LMA does not go");
    REFUSED(PAGING, bad.efer = EFER_LME, "LMA does not go");
    REFUSED(PAGING, bad.efer = EFER_LMA | EFER_LME, "PAE");
    REFUSED(PAGING, bad_regs.rip = 1ull << 32, "RIP");
    REFUSED(PAGING, bad_regs.rflags = 0, "bit 1");
    REFUSED(PAGING, bad_regs.rflags |= 8, "reserved");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("entry state");

    tcase_add_loop_test(tests, real_mode_may_enter, 0, COUNT(windows));
    tcase_add_loop_test(tests, paging_may_enter, 0, COUNT(slots));
    tcase_add_test(tests, protected_mode_without_paging_may_enter);
    tcase_add_test(tests, real_mode_refusals);
    tcase_add_test(tests, paging_refusals);
    return run_case(tests, "lab5_entry_state");
}
