/*
 * say.h - how the grader's programs print: a whole line at once, and after its text a number that
 * is computed from it. The code for that is random in each test, and asks for the privilege level:
 * so the line shows that the program ran, in ring 3. grader/core/line_code.py computes the same.
 */
#pragma once

#include "libc.h"

/* The grader writes the code here, over the mark: EAX to EAX; ECX and EDX are free. */
#define LINE_CODE_BYTES 128
#define LINE_CODE_MARK  0xf4 /* its first byte: hlt */

extern const uint8_t line_code[LINE_CODE_BYTES];
asm(".text\n"
    ".balign 16\n"
    "line_code: .ascii \"\\364here is the code\"\n"
    ".fill 111, 1, 0x90");

static char said[200];
static size_t said_bytes;

static void said_add(const char *text, size_t count)
{
    for (size_t i = 0; i < count && said_bytes < sizeof said - 16; i++)
        said[said_bytes++] = text[i];
}

__attribute__((format(printf, 1, 2))) static void said_format(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_format(said_add, format, arguments);
    va_end(arguments);
}

/* A number that only this program's code can compute. */
static inline uint32_t line_number(const char *text, size_t count)
{
    uint32_t number = 0;

    for (size_t i = 0; i < count; i++) {
        number ^= (uint8_t)text[i];
        asm volatile("call line_code" : "+a"(number) : : "ecx", "edx", "cc");
    }
    return number;
}

static inline bool line_coded(void)
{
    return line_code[0] != LINE_CODE_MARK;
}

/* Prints a line; without the grader's code nothing but its text. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;

    said_bytes = 0;
    va_start(arguments, format);
    text_format(said_add, format, arguments);
    va_end(arguments);
    if (line_coded())
        said_format(" [%08x]", line_number(said, said_bytes));
    said_add("\n", 1);
    write(said, said_bytes);
}
