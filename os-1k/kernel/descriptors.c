/* descriptors.c - tables for the processor: GDT, task state segment, IDT. */
#include "kernel.h"

/*
 * SDM vol. 3, 8.2.1 "Task-State Segment (TSS)". The kernel switches tasks itself; the processor
 * uses only the stack.
 */
struct task_state {
    uint32_t link, esp0, ss0; /* the last two: the stack for traps from ring 3 */
    uint32_t unused[22];
    uint16_t trace;
    uint16_t io_map; /* offset of the I/O permissions; beyond the segment: no port for ring 3 */
};
static struct task_state task_state = {.ss0 = SELECTOR_KERNEL_DATA, .io_map = sizeof task_state};

/*
 * SDM vol. 3, 3.4.5 "Segment Descriptors". From 0 to 4 GB; privilege levels 0 and 3; marked as
 * accessed, so the processor never writes to them.
 */
static uint64_t gdt[] = {
    [SELECTOR_KERNEL_CODE / 8] = 0x00cf9b000000ffff,
    [SELECTOR_KERNEL_DATA / 8] = 0x00cf93000000ffff,
    [SELECTOR_USER_CODE / 8] = 0x00cffb000000ffff,
    [SELECTOR_USER_DATA / 8] = 0x00cff3000000ffff,
    [SELECTOR_TSS / 8] = 0x0000890000000000 | (sizeof task_state - 1), /* and its address */
};

/* The type byte of an interrupt gate, which clears IF. */
#define GATE_KERNEL 0x8e
#define GATE_USER   0xee /* a program may use it by `int` */

static uint64_t idt[VECTOR_COUNT];

extern const uint8_t trap_entries[VECTOR_COUNT][16]; /* trap_entries.asm */

struct table_register {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

/* SDM vol. 3, 6.11 "IDT Descriptors". */
static uint64_t gate(const uint8_t *entry, uint8_t type)
{
    uint32_t offset = (uint32_t)entry;

    return (offset & 0xffff) | SELECTOR_KERNEL_CODE << 16 | (uint64_t)type << 40 |
           (uint64_t)(offset >> 16) << 48;
}

void descriptors_load(void)
{
    uint64_t base = (uint32_t)&task_state;

    gdt[SELECTOR_TSS / 8] |= (base & 0xffffff) << 16 | (base >> 24) << 56;
    for (int vector = 0; vector < VECTOR_COUNT; vector++)
        idt[vector] = gate(trap_entries[vector], GATE_KERNEL);
    idt[SYSTEM_CALL_VECTOR] = gate(trap_entries[SYSTEM_CALL_VECTOR], GATE_USER);

    struct table_register gdt_register = {sizeof gdt - 1, (uint32_t)gdt};
    struct table_register idt_register = {sizeof idt - 1, (uint32_t)idt};
    asm volatile("lgdt %0\n\t"
                 "lidt %1\n\t"
                 "ljmp %2, $1f\n" /* loads CS from the new table */
                 "1:\n\t"
                 "movw %w3, %%ds\n\t"
                 "movw %w3, %%es\n\t"
                 "movw %w3, %%ss\n\t"
                 "ltr %w4"
                 :
                 : "m"(gdt_register), "m"(idt_register), "i"(SELECTOR_KERNEL_CODE),
                   "r"(SELECTOR_KERNEL_DATA), "r"(SELECTOR_TSS)
                 : "memory");
}

void trap_stack_set(uint32_t stack)
{
    task_state.esp0 = stack;
}
