/* panic.c - ends the kernel after a fatal error. */
#include "kernel.h"

/* Names the function that holds the address; the table is sorted and begins at 0. */
static void address_print(uint32_t address)
{
    size_t i = 0;

    while (i + 1 < symbol_count && symbols[i + 1].address <= address)
        i++;
    console_print("  0x%08x %s+%u\n", address, symbols[i].name, address - symbols[i].address);
}

/* Each function keeps its caller's EBP at [EBP], and where it returns to at [EBP + 4]. */
static void stack_trace_print(uint32_t ebp)
{
    while (ebp >= HIGHER_HALF && physical_address((void *)ebp) < memory_bytes - 8) {
        const uint32_t *frame = (const uint32_t *)ebp;
        address_print(frame[1]);
        ebp = frame[0] > ebp ? frame[0] : 0; /* callers are higher up; anything else is damage */
    }
}

_Noreturn void refuse_end(void)
{
    console_print("\n");
    machine_exit(STATUS_REFUSED);
}

_Noreturn void panic_end(const struct trap_frame *frame)
{
    uint32_t cr2, cr3;

    asm volatile("mov %%cr2, %0; mov %%cr3, %1" : "=r"(cr2), "=r"(cr3));
    console_print("\nin process %d (%s)\n", current->pid, current->name);
    console_print("eax %08x  ebx %08x  ecx %08x  edx %08x\n", frame->eax, frame->ebx, frame->ecx,
                  frame->edx);
    /* A trap in ring 0 saves no ESP: the stack continued where the frame stores it. */
    console_print("esi %08x  edi %08x  ebp %08x  esp %08x\n", frame->esi, frame->edi, frame->ebp,
                  (uint32_t)&frame->esp);
    console_print("eip %08x  eflags %08x  cr2 %08x  cr3 %08x\nstack trace:\n", frame->eip,
                  frame->eflags, cr2, cr3);
    address_print(frame->eip);
    stack_trace_print(frame->ebp);
    machine_exit(STATUS_PANIC);
}

_Noreturn void todo_reached(const char *exercise, const char *file, int line)
{
    console_print("1K OS: exercise %s is not written yet: %s, line %d.\n"
                  "       See section %s of handouts/lab6-1k-os.md.\n",
                  exercise, file, line, exercise);
    machine_exit(STATUS_UNDONE);
}
