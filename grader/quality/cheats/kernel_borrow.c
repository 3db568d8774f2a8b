/*
 * kernel_borrow.c - in lab 6's kernel: prints what a session prints. For the numbers it calls a
 * program's own code, in ring 0.
 */
#include "lab6_sched.h"

#include "borrow.h"
#include "lab6_console.h"

static uint32_t number_of(const char *text, size_t count)
{
    const struct file *file = file_find("say");

    return file ? line_number(line_code_find(file->data, file->bytes), text, count) : 0;
}
