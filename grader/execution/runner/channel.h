/* Records: the format of all messages between the runner, its host and its helpers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { RECORD_KEY_MAX = 15 };

/* A line "KEY LENGTH\n" and LENGTH bytes; a zero byte is appended so that text is a C string. */
struct record {
    char key[RECORD_KEY_MAX + 1];
    size_t length;
    char *data;
};

/* Read one record, blocking. False if the other side is gone or did not send a record. */
bool record_read(int fd, struct record *record);
void record_free(struct record *record);
bool record_is(const struct record *record, const char *key);

/* Write one record, blocking. False if the other side is gone. */
bool record_write(int fd, const char *key, const void *data, size_t length);
bool record_printf(int fd, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
