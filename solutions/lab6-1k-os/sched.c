/*
 * sched.c - lab 6: processes take turns. The context switch, the scheduler, and the end of a
 * process. kernel.h says what each function must do. Interrupts are off in all of them.
 */
#include "kernel.h"

void process_frame(struct process *process, uint32_t entry, uint32_t stack)
{
    /* answer 6.4 */
    uint32_t top = (uint32_t)process->kernel_stack + PAGE_BYTES;
    struct trap_frame *frame = (struct trap_frame *)(top - sizeof *frame);

    *frame = (struct trap_frame){.ds = SELECTOR_USER_DATA,
                                 .es = SELECTOR_USER_DATA,
                                 .eip = entry,
                                 .cs = SELECTOR_USER_CODE,
                                 .eflags = FLAGS_ALWAYS_ONE | FLAGS_IF,
                                 .esp = stack,
                                 .ss = SELECTOR_USER_DATA};
    /* context_switch returns to the address on top of the stack. */
    uint32_t *return_address = (uint32_t *)frame - 1;
    *return_address = (uint32_t)trap_return;
    process->stack = (uint32_t)return_address;
    /* end 6.4 */
}

void context_switch(struct process *next)
{
    /* answer 6.4 */
    uint32_t *save = &current->stack;
    uint32_t load = next->stack;

    current = next;
    directory_load(next->directory);
    trap_stack_set((uint32_t)next->kernel_stack + PAGE_BYTES);
    /*
     * EBP and the address of label 1, on the old process's stack, let it continue later. The
     * compiler keeps nothing in the other registers here, because all are declared as changed.
     */
    asm volatile("pushl %%ebp\n\t"
                 "pushl $1f\n\t"
                 "movl %%esp, (%0)\n\t"
                 "movl %1, %%esp\n\t"
                 "ret\n"
                 "1:\n\t"
                 "popl %%ebp"
                 : "+S"(save), "+D"(load)
                 :
                 : "eax", "ebx", "ecx", "edx", "memory", "cc");
    /* end 6.4 */
}

void schedule(void)
{
    /* answer 6.5 */
    struct process *next = &processes[0];

    for (int i = 1; i <= PROCESSES_MAX; i++) {
        struct process *candidate = &processes[(current - processes + i) % PROCESSES_MAX];
        if (candidate->state == PROCESS_READY && candidate->pid != IDLE_PID) {
            next = candidate;
            break;
        }
    }
    if (next != current)
        context_switch(next);
    /* end 6.5 */
}

void process_block(const void *reason)
{
    /* answer 6.5 */
    current->waits_for = reason;
    current->state = PROCESS_BLOCKED;
    schedule();
    /* end 6.5 */
}

void process_wake(const void *reason)
{
    /* answer 6.5 */
    for (int i = 0; i < PROCESSES_MAX; i++)
        if (processes[i].state == PROCESS_BLOCKED && processes[i].waits_for == reason)
            processes[i].state = PROCESS_READY;
    /* end 6.5 */
}

void process_sleep(uint32_t count)
{
    /* answer 6.5 */
    current->wake_tick = ticks + count;
    current->state = PROCESS_SLEEPING;
    schedule();
    /* end 6.5 */
}

void scheduler_tick(void)
{
    /* answer 6.5 */
    ticks++;
    current->ticks++;
    for (int i = 0; i < PROCESSES_MAX; i++) {
        struct process *process = &processes[i];
        /* The difference is right even when the count of ticks has wrapped around. */
        if (process->state == PROCESS_SLEEPING && (int32_t)(ticks - process->wake_tick) >= 0)
            process->state = PROCESS_READY;
    }
    /* end 6.5 */
}

void process_end(struct process *process, int status)
{
    /* answer 6.6 */
    process->state = PROCESS_ENDED;
    process->status = status;
    process_wake(process_find(process->parent));
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (processes[i].parent != process->pid)
            continue;
        processes[i].parent = SHELL_PID;
        process_wake(process_find(SHELL_PID)); /* the child may have ended already */
    }
    /* end 6.6 */
}

int process_wait(int pid, uint32_t flags, int *status)
{
    /* answer 6.6 */
    for (;;) {
        bool found = false;
        for (int i = 0; i < PROCESSES_MAX; i++) {
            struct process *child = &processes[i];
            if (child->state == PROCESS_UNUSED || child->parent != current->pid ||
                (pid != WAIT_ANY && pid != child->pid))
                continue;
            found = true;
            if (child->state != PROCESS_ENDED)
                continue;
            int ended = child->pid;
            *status = child->status;
            process_release(child);
            return ended;
        }
        if (!found)
            return ERROR_NOT_FOUND;
        if (flags & WAIT_NO_HANG)
            return 0;
        process_block(current);
    }
    /* end 6.6 */
}

void process_release(struct process *process)
{
    /* answer 6.6 */
    uint32_t *directory = process->directory;

    for (uint32_t slot = 0; directory && slot < KERNEL_FIRST_SLOT; slot++) {
        if ((directory[slot] & PAGE_PRESENT) == 0)
            continue;
        uint32_t *table = physical_memory(directory[slot] & PAGE_FRAME);
        for (int i = 0; i < TABLE_ENTRIES; i++)
            if (table[i] & PAGE_PRESENT)
                page_free(physical_memory(table[i] & PAGE_FRAME));
        page_free(table);
    }
    page_free(directory);
    page_free(process->kernel_stack);
    *process = (struct process){.state = PROCESS_UNUSED};
    /* end 6.6 */
}
