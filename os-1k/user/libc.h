/* libc.h - what a program of the 1K OS is written with. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os.h"
#include "text.h"

/* A program: the text after its name on the shell's line, and its exit status. */
int main(const char *argument);

/* The system calls; os.h says what each one does. */
_Noreturn void exit(int status);
int write(const char *text, size_t count);
int read(char *buffer, size_t count);
void yield(void);
void sleep(uint32_t milliseconds);
uint32_t ticks(void);
int getpid(void);
int spawn(const char *name, const char *argument, uint32_t flags);
int wait(int pid, uint32_t flags, int *status);
int readfile(const char *name, uint32_t offset, void *buffer, size_t count);
int listdir(uint32_t index, struct file_info *info);
int processes(uint32_t index, struct process_info *info);
int pages(void);
int kill(int pid);
int write_line(const char *text, size_t count, uint32_t flags); /* WRITE_LINE or WRITE_MORE */
int read_line(char *buffer, size_t count);                      /* with READ_LINE */

/* Any call by its number. */
int32_t system_call(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

/* An error of os.h in words. */
const char *error_text(int error);

/* Goes out with the line's end, at the next read or write, or at the program's end. */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define LINE_MAX 128 /* bytes of a line that is typed, with the final 0 */

#define LINE_END         -1 /* there is no more input, or ^D on an empty line */
#define LINE_INTERRUPTED -2 /* ^C */

/*
 * Prompts, and reads a line as it is typed; the cursor keys and earlier lines work as well. Its
 * length without the newline, or one of the two above. What does not fit is not taken, and only
 * UTF-8 is.
 */
int getline(const char *prompt, char line[LINE_MAX]);

/* Name number `index` that Tab may put in place of a word, the line's first one or a later one;
 * NULL after the last. */
typedef const char *line_names(uint32_t index, bool first);

/* The same, with names for Tab. */
int getline_with(const char *prompt, char line[LINE_MAX], line_names *names);

#define UTF8_PART -1

/*
 * Bytes of the UTF-8 character that `text` begins with; 0: it begins with none that can be printed;
 * UTF8_PART: its `count` bytes are only the first part of one.
 */
int utf8_length(const char *text, size_t count);

/* Copies the next word of `text`, as much as fits, and returns what follows. "": there is none. */
const char *word_take(const char *text, char *word, size_t size);

/* Reads a decimal number, with optional spaces around it; false: it is not a 32-bit number. */
bool number_parse(const char *text, uint32_t *number);
