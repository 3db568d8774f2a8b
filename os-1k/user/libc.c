/* libc.c - what a program of the 1K OS is written with. */
#include "libc.h"

int32_t system_call(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    int32_t result;

    asm volatile("int %1"
                 : "=a"(result)
                 : "i"(SYSTEM_CALL_VECTOR), "a"(number), "b"(a), "c"(b), "d"(c), "S"(d)
                 : "memory");
    return result;
}

/* What printf has put together since the last newline: so lines of two programs don't mix. */
static char line_out[256];
static size_t line_out_bytes;

static void flush(void)
{
    system_call(CALL_WRITE, (uint32_t)line_out, line_out_bytes, 0, 0);
    line_out_bytes = 0;
}

static void line_out_add(const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        line_out[line_out_bytes++] = text[i];
        if (text[i] == '\n' || line_out_bytes == sizeof line_out)
            flush();
    }
}

void printf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_format(line_out_add, format, arguments);
    va_end(arguments);
}

_Noreturn void exit(int status)
{
    flush();
    for (;;)
        system_call(CALL_EXIT, (uint32_t)status, 0, 0, 0);
}

int write(const char *text, size_t count)
{
    flush();
    return system_call(CALL_WRITE, (uint32_t)text, count, 0, 0);
}

int read(char *buffer, size_t count)
{
    flush();
    return system_call(CALL_READ, (uint32_t)buffer, count, 0, 0);
}

void yield(void)
{
    system_call(CALL_YIELD, 0, 0, 0, 0);
}

void sleep(uint32_t milliseconds)
{
    system_call(CALL_SLEEP, milliseconds, 0, 0, 0);
}

uint32_t ticks(void)
{
    return (uint32_t)system_call(CALL_TICKS, 0, 0, 0, 0);
}

int getpid(void)
{
    return system_call(CALL_GETPID, 0, 0, 0, 0);
}

int spawn(const char *name, const char *argument, uint32_t flags)
{
    return system_call(CALL_SPAWN, (uint32_t)name, (uint32_t)argument, flags, 0);
}

int wait(int pid, uint32_t flags, int *status)
{
    return system_call(CALL_WAIT, (uint32_t)pid, (uint32_t)status, flags, 0);
}

int readfile(const char *name, uint32_t offset, void *buffer, size_t count)
{
    return system_call(CALL_READFILE, (uint32_t)name, offset, (uint32_t)buffer, count);
}

int listdir(uint32_t index, struct file_info *info)
{
    return system_call(CALL_LISTDIR, index, (uint32_t)info, 0, 0);
}

int processes(uint32_t index, struct process_info *info)
{
    return system_call(CALL_PROCESSES, index, (uint32_t)info, 0, 0);
}

int pages(void)
{
    return system_call(CALL_PAGES, 0, 0, 0, 0);
}

const char *error_text(int error)
{
    switch (error) {
    case ERROR_CALL:
        return "no such system call";
    case ERROR_ADDRESS:
        return "not the program's own memory";
    case ERROR_NOT_FOUND:
        return "not found";
    case ERROR_PROGRAM:
        return "not a program";
    case ERROR_MEMORY:
        return "out of memory";
    case ERROR_PROCESSES:
        return "too many processes";
    case ERROR_TOO_LONG:
        return "too long";
    case ERROR_INPUT:
        return "a program in the background can't read the keyboard";
    default:
        return "unknown error";
    }
}

#define KEY_CTRL_C    INTERRUPT_KEY
#define KEY_CTRL_D    4 /* the input's end, or at least the line's */
#define KEY_BACKSPACE 8
#define KEY_CTRL_U    21
#define KEY_ESCAPE    27
#define KEY_DELETE    127 /* what a terminal's backspace key sends */

/* Takes the rest of a key's sequence, like ESC [ A for the cursor up, so that it types nothing. */
static void escape_skip(void)
{
    char key;

    if (read(&key, 1) != 1 || (key != '[' && key != 'O'))
        return;
    while (read(&key, 1) == 1 && key < '@')
        continue;
}

int getline(const char *prompt, char line[LINE_MAX])
{
    int length = 0;

    printf("%s", prompt);
    for (;;) {
        char key;
        bool ended = read(&key, 1) != 1 || key == KEY_CTRL_D;
        if (ended && length == 0) {
            printf("\n");
            return LINE_END;
        }
        if (ended || key == '\n' || key == '\r') {
            line[length] = '\0';
            printf("\n");
            return length;
        }
        if (key == KEY_CTRL_C) {
            printf("^C\n");
            return LINE_INTERRUPTED;
        }
        if (key == KEY_ESCAPE)
            escape_skip();
        int erase = key == KEY_CTRL_U ? length : key == KEY_BACKSPACE || key == KEY_DELETE;
        for (; erase > 0 && length > 0; erase--, length--)
            printf("\b \b");
        if (key >= ' ' && key < KEY_DELETE && length < LINE_MAX - 1) {
            line[length++] = key;
            printf("%c", key);
        }
    }
}

bool number_parse(const char *text, uint32_t *number)
{
    while (*text == ' ')
        text++;
    const char *first = text;
    *number = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        uint32_t digit = (uint32_t)(*text - '0');
        if (*number > (UINT32_MAX - digit) / 10)
            return false;
        *number = *number * 10 + digit;
    }
    bool digits = text > first;
    while (*text == ' ')
        text++;
    return digits && *text == '\0';
}
