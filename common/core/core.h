/* core.h - functions of common/core/ for each other, the stages and the tests. */
#pragma once

#include "vmm.h"

/*
 * Fills `options` and the guests' paths from the command line; prints and exits on --help and
 * --version. 0 or STATUS_USAGE.
 */
int options_parse(struct vmm *vmm, int argc, char **argv);

/* A size or address like 4096, 0x1000, 64K, 16M or 1G; false: not a number, or over `max`. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);

#define RAM_DEFAULT       (16u << 20)
#define RAM_DEFAULT_LINUX (256u << 20)

/* Reads a guest's file of at most `max` bytes and finds its kind. 0 or STATUS_GUEST_FILE. */
int guest_read(struct guest *guest, enum guest_kind flat, size_t max);

/*
 * The next byte of standard input, GETCHAR_NOTHING or GETCHAR_END; never waits. The source of
 * HC_GETCHAR until lab 4.
 */
int stdin_getchar(struct vcpu *vcpu);

/*
 * From now on stdout_write buffers, unless standard output is a terminal. Called before the first
 * thread is created.
 */
void output_start(void);

/* Writes what is buffered, unless this thread is just doing that. */
void output_flush(void);

/* Taken by the thread that ends the program and never released: a second one waits silently. */
void ending_lock(void);

/* Until lab 3 there is one guest, in the window at 0, on the program's only thread. */
int one_guest_prepare(struct vcpu *vcpu);
int one_guest_run(struct vmm *vmm);
