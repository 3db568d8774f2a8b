/* console.c - characters in and out: the VMM's hypercalls. */
#include "kernel.h"

/* One exit to the VMM, however many characters. */
void console_write(const char *text, size_t count)
{
    asm volatile("outl %%eax, %%dx"
                 :
                 : "a"(HC_WRITE), "S"(text), "c"(count), "d"(HYPERCALL_PORT)
                 : "memory");
}

void console_print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_format(console_write, format, arguments);
    va_end(arguments);
}

int console_getchar(void)
{
    int character;

    asm volatile("outl %%eax, %%dx; inl %%dx, %%eax"
                 : "=a"(character)
                 : "a"(HC_GETCHAR), "d"(HYPERCALL_PORT));
    return character;
}

_Noreturn void machine_exit(int status)
{
    asm volatile("outl %%eax, %%dx" : : "a"(HC_EXIT), "b"(status), "d"(HYPERCALL_PORT) : "memory");
    __builtin_unreachable();
}
