/*
 * sched.c - lab 6: processes take turns. The context switch, the scheduler, and the end of a
 * process. kernel.h says what each function must do. Interrupts are off in all of them.
 */
#include "kernel.h"

void process_frame(struct process *process, uint32_t entry, uint32_t stack)
{
    TODO("6.4");
}

void context_switch(struct process *next)
{
    TODO("6.4");
}

void schedule(void)
{
    TODO("6.5");
}

void process_block(const void *reason)
{
    TODO("6.5");
}

void process_wake(const void *reason)
{
    TODO("6.5");
}

void process_sleep(uint32_t count)
{
    TODO("6.5");
}

void scheduler_tick(void)
{
    TODO("6.5");
}

void process_end(struct process *process, int status)
{
    TODO("6.6");
}

int process_wait(int pid, uint32_t flags, int *status)
{
    TODO("6.6");
}

void process_release(struct process *process)
{
    TODO("6.6");
}
