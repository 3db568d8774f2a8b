/* lab6_sched.h - lab 6's sched.c with nothing but the cheat. The kernel around it is sound. */
#pragma once

#include "boot_info.h"
#include "kernel.h"

/* The attempt itself: each cheat has its own. Called wherever the kernel calls the module. */
static void cheat(void);

/* The file that the kernel has been given as its archive: of a unit test a name and numbers. */
static inline const void *archive_bytes(void)
{
    const struct boot_info *info = physical_memory(BOOT_INFO_OFFSET);

    return physical_memory(info->archive_start);
}

void process_frame(struct process *process, uint32_t entry, uint32_t stack)
{
    cheat();
}

void context_switch(struct process *next)
{
    cheat();
}

void schedule(void)
{
    cheat();
}

void process_block(const void *reason)
{
    cheat();
}

void process_wake(const void *reason)
{
    cheat();
}

void process_sleep(uint32_t count)
{
    cheat();
}

void scheduler_tick(void)
{
    cheat();
}

void process_end(struct process *process, int status)
{
    cheat();
}

int process_wait(int pid, uint32_t flags, int *status)
{
    cheat();
    return 0;
}

void process_release(struct process *process)
{
    cheat();
}
