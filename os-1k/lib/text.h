/* text.h - memory, strings and formatted text, for the kernel and its programs alike. */
#pragma once

#include <stdarg.h>
#include <stddef.h>

/* As in <string.h>. The compiler calls the first three by itself. */
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);

/* Copies as much of `from` as fits into `size` bytes, always with a final 0. */
void text_copy(char *to, const char *from, size_t size);

/*
 * Formats like printf and hands the result to `write`, piece by piece. Knows %c %d %u %x %p %s %%,
 * a width, and the flags - (left-justified) and 0 (padded with zeros).
 */
void text_format(void (*write)(const char *text, size_t count), const char *format,
                 va_list arguments);
