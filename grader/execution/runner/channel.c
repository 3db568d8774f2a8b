#include "channel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_MAX = 256 * 1024 * 1024 };

static bool read_all(int fd, char *data, size_t length)
{
    while (length > 0) {
        ssize_t got = read(fd, data, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        data += got;
        length -= (size_t)got;
    }
    return true;
}

static bool write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, data, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        data += put;
        length -= (size_t)put;
    }
    return true;
}

bool record_read(int fd, struct record *record)
{
    char line[RECORD_KEY_MAX + 24];
    size_t used = 0;
    /* A byte at a time: what follows the line is another reader's. Records are few. */
    do {
        if (used == sizeof line - 1 || !read_all(fd, line + used, 1))
            return false;
    } while (line[used++] != '\n');
    line[used] = '\0';
    if (sscanf(line, "%15s %zu", record->key, &record->length) != 2 || record->length > RECORD_MAX)
        return false;
    record->data = malloc(record->length + 1);
    if (!record->data)
        return false;
    record->data[record->length] = '\0';
    if (read_all(fd, record->data, record->length))
        return true;
    record_free(record);
    return false;
}

void record_free(struct record *record)
{
    free(record->data);
    record->data = NULL;
}

bool record_is(const struct record *record, const char *key)
{
    return strcmp(record->key, key) == 0;
}

bool record_write(int fd, const char *key, const void *data, size_t length)
{
    char line[RECORD_KEY_MAX + 24];
    int used = snprintf(line, sizeof line, "%s %zu\n", key, length);
    return write_all(fd, line, (size_t)used) && write_all(fd, data, length);
}

bool record_printf(int fd, const char *key, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (used < 0)
        return false;
    return record_write(fd, key, text, (size_t)used < sizeof text ? (size_t)used : sizeof text - 1);
}
