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
    if (line_out_bytes > 0)
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

int write_line(const char *text, size_t count, uint32_t flags)
{
    flush();
    return system_call(CALL_WRITE, (uint32_t)text, count, flags, 0);
}

int read(char *buffer, size_t count)
{
    flush();
    return system_call(CALL_READ, (uint32_t)buffer, count, 0, 0);
}

int read_line(char *buffer, size_t count)
{
    flush();
    return system_call(CALL_READ, (uint32_t)buffer, count, READ_LINE, 0);
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

int kill(int pid)
{
    return system_call(CALL_KILL, (uint32_t)pid, 0, 0, 0);
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
    case ERROR_OUTPUT:
        return "another process has written";
    default:
        return "unknown error";
    }
}

int utf8_length(const char *text, size_t count)
{
    /* The lowest character of each length; of two bytes without the control characters. */
    static const uint32_t lowest[] = {0, 0, 0xa0, 0x800, 0x10000};
    const unsigned char *bytes = (const unsigned char *)text;
    uint32_t character = bytes[0];

    if (character < 0x80)
        return character >= ' ' && character < 127;
    if (character < 0xc0 || character >= 0xf8)
        return 0;
    int length = character < 0xe0 ? 2 : character < 0xf0 ? 3 : 4;
    character &= 0x7fu >> length;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == count)
            return UTF8_PART;
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    bool surrogate = character >= 0xd800 && character < 0xe000;
    return character >= lowest[length] && character < 0x110000 && !surrogate ? length : 0;
}

const char *word_take(const char *text, char *word, size_t size)
{
    size_t length = 0;

    while (*text == ' ')
        text++;
    for (; *text != '\0' && *text != ' '; text++)
        if (length < size - 1)
            word[length++] = *text;
    word[length] = '\0';
    return text;
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
