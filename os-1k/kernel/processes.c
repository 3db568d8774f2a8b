/* processes.c - the table of processes. */
#include "kernel.h"

struct process processes[PROCESSES_MAX] = {
    {.pid = IDLE_PID, .state = PROCESS_READY, .name = "idle", .directory = kernel_directory},
};
struct process *current = &processes[0];
uint32_t ticks;

static int last_pid = IDLE_PID;

struct process *process_find(int pid)
{
    for (int i = 0; i < PROCESSES_MAX; i++)
        if (processes[i].state != PROCESS_UNUSED && processes[i].pid == pid)
            return &processes[i];
    return NULL;
}

int process_create(const char *name, const char *argument, int parent)
{
    const struct file *file = file_find(name);

    if (!file)
        return ERROR_NOT_FOUND;
    struct process *process = processes;
    while (process->state != PROCESS_UNUSED)
        if (++process == processes + PROCESSES_MAX)
            return ERROR_PROCESSES;

    *process = (struct process){.pid = last_pid + 1,
                                .parent = parent,
                                .directory = directory_create(),
                                .kernel_stack = page_allocate()};
    text_copy(process->name, name, sizeof process->name);
    uint32_t entry, stack;
    int result = ERROR_MEMORY;
    if (process->directory && process->kernel_stack)
        result = program_load(process->directory, file, argument, &entry, &stack);
    if (result < 0) {
        process_release(process);
        return result;
    }
    process_frame(process, entry, stack);
    process->state = PROCESS_READY;
    return last_pid = process->pid;
}

struct process *process_foreground(void)
{
    struct process *process = process_find(SHELL_PID), *next = process;

    for (; next && next->state != PROCESS_ENDED && next->pid != IDLE_PID;
         next = process_find(process->foreground_pid))
        process = next;
    return process;
}
