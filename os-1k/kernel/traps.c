/* traps.c - what to do about each exception, interrupt and system call. */
#include "kernel.h"

/*
 * Those that programs can cause, and the worst of the kernel's own: SDM vol. 3, table 6-1
 * "Protected-Mode Exceptions and Interrupts".
 */
static const char *const exceptions[VECTOR_COUNT] = {
    [0] = "division by zero or overflow",
    [1] = "debug exception",
    [5] = "bound exceeded",
    [6] = "invalid instruction",
    [7] = "floating-point instruction",
    [8] = "double fault",
    [12] = "stack segment fault",
    [13] = "general protection fault (only the kernel may do this)",
    [PAGE_FAULT] = "page fault",
};

static const char *page_fault_reason(uint32_t address, uint32_t error_code)
{
    if (address >= HIGHER_HALF)
        return "the kernel's memory";
    if (address < STACK_TOP - STACK_PAGES * PAGE_BYTES && address >= PROGRAM_END)
        return "below the stack's end: stack overflow";
    return error_code & PAGE_PRESENT ? "read-only memory" : "no memory is there";
}

/* Ends the program that caused an exception; the system goes on. */
static void exception_handle(const struct trap_frame *frame)
{
    const char *known = exceptions[frame->vector], *name = known ? known : "unexpected exception";

    if ((frame->cs & 3) == 0) /* in the kernel's own ring */
        panic(frame, "%s (vector %u, error code %x)", name, frame->vector, frame->error_code);
    line_claim(0);
    console_print("\n%s (pid %d) was killed: %s, instruction 0x%08x", current->name, current->pid,
                  name, frame->eip);
    if (frame->vector == PAGE_FAULT) {
        uint32_t address;
        asm volatile("mov %%cr2, %0" : "=r"(address));
        console_print(", %s 0x%08x: %s", frame->error_code & PAGE_WRITABLE ? "write to" : "read of",
                      address, page_fault_reason(address, frame->error_code));
    }
    console_print("\n");
    if (current->pid == SHELL_PID) /* nobody would wait for it, and all stand still */
        panic(frame, "the shell was killed: %s", name);
    process_end(current, STATUS_KILLED);
}

void trap_handle(struct trap_frame *frame)
{
    if (frame->vector == SYSTEM_CALL_VECTOR)
        frame->eax = (uint32_t)system_call(frame);
    else if (frame->vector == TIMER_VECTOR)
        scheduler_tick();
    else if (frame->vector == KEYBOARD_VECTOR)
        keyboard_interrupt();
    else
        exception_handle(frame);
    /*
     * An interrupt is the end of a turn; and a process that has ended never comes back from here.
     */
    if (frame->vector != SYSTEM_CALL_VECTOR || current->state == PROCESS_ENDED)
        schedule();
}
