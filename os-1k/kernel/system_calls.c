/* system_calls.c - the services for programs. What they hand over is checked before it is used. */
#include "kernel.h"

/* Arguments: call->ebx, ecx, edx, esi in the order of os.h. */
typedef int32_t system_call_handler(const struct trap_frame *call);

static int32_t call_exit(const struct trap_frame *call)
{
    if (current->pid == SHELL_PID)
        machine_exit((int)call->ebx);
    process_end(current, (int)call->ebx);
    return 0;
}

static int32_t call_write(const struct trap_frame *call)
{
    if (!user_range(call->ebx, call->ecx, 0))
        return ERROR_ADDRESS;
    console_write((const char *)call->ebx, call->ecx);
    return (int32_t)call->ecx;
}

static int32_t call_read(const struct trap_frame *call)
{
    if (!user_range(call->ebx, call->ecx, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    if (process_foreground() != current)
        return ERROR_INPUT;
    return (int32_t)keyboard_read((uint8_t *)call->ebx, call->ecx);
}

static int32_t call_yield(const struct trap_frame *call)
{
    schedule();
    return 0;
}

/* A tick has already partly passed: one more makes it at least the time that was asked for. */
static int32_t call_sleep(const struct trap_frame *call)
{
    uint32_t milliseconds = call->ebx < INT32_MAX ? call->ebx : INT32_MAX - 1;

    process_sleep(milliseconds / tick_ms + 1);
    return 0;
}

static int32_t call_ticks(const struct trap_frame *call)
{
    return (int32_t)(ticks & INT32_MAX);
}

static int32_t call_getpid(const struct trap_frame *call)
{
    return current->pid;
}

static int32_t call_spawn(const struct trap_frame *call)
{
    char name[FILE_NAME_MAX], argument[ARGUMENT_MAX];
    int result = user_string(name, call->ebx, sizeof name);

    if (result == 0)
        result = user_string(argument, call->ecx, sizeof argument);
    if (result == 0)
        result = process_create(name, argument, current->pid);
    if (result > 0 && call->edx & SPAWN_FOREGROUND)
        current->foreground_pid = result;
    return result;
}

static int32_t call_wait(const struct trap_frame *call)
{
    if (!user_range(call->ecx, sizeof(int), PAGE_WRITABLE))
        return ERROR_ADDRESS;
    return process_wait((int)call->ebx, call->edx, (int *)call->ecx);
}

static int32_t call_readfile(const struct trap_frame *call)
{
    char name[FILE_NAME_MAX];
    uint32_t offset = call->ecx, bytes = call->esi;
    int result = user_string(name, call->ebx, sizeof name);

    if (result < 0)
        return result;
    if (!user_range(call->edx, bytes, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    const struct file *file = file_find(name);
    if (!file)
        return ERROR_NOT_FOUND;
    if (offset > file->bytes)
        offset = file->bytes;
    if (bytes > file->bytes - offset)
        bytes = file->bytes - offset;
    memcpy((void *)call->edx, file->data + offset, bytes);
    return (int32_t)bytes;
}

static int32_t call_listdir(const struct trap_frame *call)
{
    struct file_info *info = (struct file_info *)call->ecx;

    if (!user_range(call->ecx, sizeof *info, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    if (call->ebx >= file_count)
        return ERROR_NOT_FOUND;
    text_copy(info->name, files[call->ebx].name, sizeof info->name);
    info->bytes = files[call->ebx].bytes;
    return 0;
}

static int32_t call_processes(const struct trap_frame *call)
{
    struct process_info *info = (struct process_info *)call->ecx;

    if (!user_range(call->ecx, sizeof *info, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    if (call->ebx >= PROCESSES_MAX)
        return ERROR_NOT_FOUND;
    const struct process *process = &processes[call->ebx];
    *info =
        (struct process_info){process->pid, process->parent, process->state, process->ticks, ""};
    text_copy(info->name, process->name, sizeof info->name);
    return 0;
}

static int32_t call_pages(const struct trap_frame *call)
{
    return (int32_t)free_pages;
}

static system_call_handler *const handlers[SYSTEM_CALLS] = {
    [CALL_EXIT] = call_exit,       [CALL_WRITE] = call_write,
    [CALL_READ] = call_read,       [CALL_YIELD] = call_yield,
    [CALL_SLEEP] = call_sleep,     [CALL_TICKS] = call_ticks,
    [CALL_GETPID] = call_getpid,   [CALL_SPAWN] = call_spawn,
    [CALL_WAIT] = call_wait,       [CALL_READFILE] = call_readfile,
    [CALL_LISTDIR] = call_listdir, [CALL_PROCESSES] = call_processes,
    [CALL_PAGES] = call_pages,
};

int32_t system_call(const struct trap_frame *frame)
{
    return frame->eax < SYSTEM_CALLS ? handlers[frame->eax](frame) : ERROR_CALL;
}
