/* system_calls.c - the services for programs. What they hand over is checked before it is used. */
#include "kernel.h"

/* Arguments: call->ebx, ecx, edx, esi in the order of os.h. */
typedef int32_t system_call_handler(const struct trap_frame *call);

/* A call without arguments that only returns a number. */
#define NUMBER_CALL(name, number)                                                                  \
    static int32_t name(const struct trap_frame *call)                                             \
    {                                                                                              \
        return (int32_t)(number);                                                                  \
    }
NUMBER_CALL(call_ticks, (ticks & INT32_MAX))
NUMBER_CALL(call_getpid, current->pid)
NUMBER_CALL(call_pages, free_pages)

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
    line_claim(call->edx);
    console_write((const char *)call->ebx, call->ecx);
    return (int32_t)call->ecx;
}

static int32_t call_read(const struct trap_frame *call)
{
    if (!user_range(call->ebx, call->ecx, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    if (process_foreground() != current)
        return ERROR_INPUT;
    return keyboard_read((uint8_t *)call->ebx, call->ecx, call->edx);
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
    int result = user_string(name, call->ebx, sizeof name);

    if (result < 0)
        return result;
    if (!user_range(call->edx, call->esi, PAGE_WRITABLE))
        return ERROR_ADDRESS;
    const struct file *file = file_find(name);
    if (!file)
        return ERROR_NOT_FOUND;
    uint32_t left = call->ecx < file->bytes ? file->bytes - call->ecx : 0;
    uint32_t bytes = call->esi < left ? call->esi : left;
    memcpy((void *)call->edx, file->data + file->bytes - left, bytes);
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
    const struct process *from = &processes[call->ebx];
    *info = (struct process_info){from->pid, from->parent, from->state, from->ticks, ""};
    text_copy(info->name, from->name, sizeof info->name);
    return 0;
}

static int32_t call_kill(const struct trap_frame *call)
{
    struct process *process = process_find((int)call->ebx);

    if (!process || process->state == PROCESS_ENDED || process->pid <= SHELL_PID)
        return ERROR_NOT_FOUND;
    process_end(process, STATUS_INTERRUPTED);
    return 0;
}

static system_call_handler *const handlers[SYSTEM_CALLS] = {
    [CALL_EXIT] = call_exit,       [CALL_WRITE] = call_write,
    [CALL_READ] = call_read,       [CALL_YIELD] = call_yield,
    [CALL_SLEEP] = call_sleep,     [CALL_TICKS] = call_ticks,
    [CALL_GETPID] = call_getpid,   [CALL_SPAWN] = call_spawn,
    [CALL_WAIT] = call_wait,       [CALL_READFILE] = call_readfile,
    [CALL_LISTDIR] = call_listdir, [CALL_PROCESSES] = call_processes,
    [CALL_PAGES] = call_pages,     [CALL_KILL] = call_kill,
};

int32_t system_call(const struct trap_frame *frame)
{
    return frame->eax < SYSTEM_CALLS ? handlers[frame->eax](frame) : ERROR_CALL;
}
