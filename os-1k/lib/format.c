/* format.c - formatted text. */
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

/* Text on its way to `write`, which is slow: it leaves the program, or even the machine. */
struct sink {
    void (*write)(const char *text, size_t count);
    char text[128];
    size_t used;
};

static void sink_flush(struct sink *sink)
{
    if (sink->used > 0)
        sink->write(sink->text, sink->used);
    sink->used = 0;
}

static void sink_put(struct sink *sink, char character)
{
    if (sink->used == sizeof sink->text)
        sink_flush(sink);
    sink->text[sink->used++] = character;
}

static void sink_pad(struct sink *sink, char character, size_t length, size_t width)
{
    for (; length < width; length++)
        sink_put(sink, character);
}

#define DIGITS_MAX 12 /* of 32 bits, with a sign or 0x, and the final 0 */

/* Writes the number's digits so that they end at digits[DIGITS_MAX]; returns the first of them. */
static char *number_text(char digits[DIGITS_MAX], uint32_t number, uint32_t base)
{
    char *first = digits + DIGITS_MAX - 1;

    *first = '\0';
    do {
        *--first = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0);
    return first;
}

void text_format(void (*write)(const char *text, size_t count), const char *format,
                 va_list arguments)
{
    struct sink sink = {.write = write};

    for (; *format != '\0'; format++) {
        if (*format != '%') {
            sink_put(&sink, *format);
            continue;
        }
        bool left = false, zeros = false;
        for (format++; *format == '-' || *format == '0'; format++)
            *(*format == '-' ? &left : &zeros) = true;
        size_t width = 0;
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (size_t)(*format - '0');

        char digits[DIGITS_MAX];
        const char *text = digits, *sign = "";
        size_t length = 0;
        switch (*format) {
        case 'c':
            digits[0] = (char)va_arg(arguments, int);
            length = 1;
            break;
        case 'd': {
            int number = va_arg(arguments, int);
            sign = number < 0 ? "-" : "";
            text = number_text(digits, number < 0 ? 0 - (uint32_t)number : (uint32_t)number, 10);
            break;
        }
        case 'u':
            text = number_text(digits, va_arg(arguments, uint32_t), 10);
            break;
        case 'x':
            text = number_text(digits, va_arg(arguments, uint32_t), 16);
            break;
        case 'p':
            sign = "0x";
            text = number_text(digits, (uint32_t)(uintptr_t)va_arg(arguments, void *), 16);
            break;
        case 's':
            text = va_arg(arguments, const char *);
            break;
        case '\0':
            sink_flush(&sink);
            return;
        default: /* %%, and what is unknown stands for itself */
            digits[0] = *format;
            length = 1;
        }
        if (length == 0)
            length = strlen(text);
        size_t whole = strlen(sign) + length;
        if (!left && !zeros)
            sink_pad(&sink, ' ', whole, width);
        for (; *sign != '\0'; sign++)
            sink_put(&sink, *sign);
        if (!left && zeros)
            sink_pad(&sink, '0', whole, width);
        for (size_t i = 0; i < length; i++)
            sink_put(&sink, text[i]);
        if (left)
            sink_pad(&sink, ' ', whole, width);
    }
    sink_flush(&sink);
}
