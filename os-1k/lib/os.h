/*
 * os.h - what the kernel and its programs agree on. A program puts the call's number into EAX, its
 * arguments into EBX, ECX, EDX and ESI, and executes `int 0x80`; EAX then holds the result. A
 * negative result is one of the errors below.
 */
#pragma once

#include <stdint.h>

#define SYSTEM_CALL_VECTOR 0x80

enum system_call {
    CALL_EXIT,     /* (status) never returns */
    CALL_WRITE,    /* (text, bytes, WRITE_... flags) to the console; bytes written */
    CALL_READ,     /* (buffer, bytes, READ_... flags) waits for at least one key; 0: end of input */
    CALL_YIELD,    /* () lets the others run first */
    CALL_SLEEP,    /* (milliseconds) */
    CALL_TICKS,    /* () timer interrupts since the start */
    CALL_GETPID,   /* () */
    CALL_SPAWN,    /* (name, argument, SPAWN_... flags) starts a program of the archive; its pid */
    CALL_WAIT,     /* (pid or WAIT_ANY, &status, WAIT_... flags) for a child's end; its pid */
    CALL_READFILE, /* (name, offset, buffer, bytes) bytes read; 0: at the file's end */
    CALL_LISTDIR,  /* (index, struct file_info *) 0, or ERROR_NOT_FOUND after the last */
    CALL_PROCESSES, /* (place in the table, struct process_info *) 0 or ERROR_NOT_FOUND */
    CALL_PAGES,     /* () free pages of memory */
    CALL_KILL,      /* (pid) ends a process, but not idle and not the shell; 0 or ERROR_NOT_FOUND */
    SYSTEM_CALLS
};

/*
 * A program that edits a line writes all of it with WRITE_LINE, or what is added with WRITE_MORE,
 * and reads keys with READ_LINE. If another process writes in between, the line is cleared first,
 * and the next read returns ERROR_OUTPUT: the program must write all of its line again.
 */
#define WRITE_LINE 1
#define WRITE_MORE 2
#define READ_LINE  1

#define SPAWN_FOREGROUND 1 /* flag: the keyboard is the child's until it ends */

#define WAIT_ANY     -1
#define WAIT_NO_HANG 1 /* flag: 0 at once if no such child has ended yet */

#define ERROR_CALL      -1 /* no system call has this number */
#define ERROR_ADDRESS   -2 /* a pointer to memory that is not the program's own */
#define ERROR_NOT_FOUND -3 /* no such file, child or entry */
#define ERROR_PROGRAM   -4 /* the file is not a program */
#define ERROR_MEMORY    -5 /* no page is free */
#define ERROR_PROCESSES -6 /* the process table is full */
#define ERROR_TOO_LONG  -7 /* a name or argument is too long */
#define ERROR_INPUT     -8 /* a program in the background can't read the keyboard */
#define ERROR_OUTPUT    -9 /* another process has written: the edited line was cleared */

/* The status of a program that did not end by itself. */
#define STATUS_KILLED      -1 /* by a fault */
#define STATUS_INTERRUPTED -2 /* by Ctrl-C or CALL_KILL */

#define FILE_NAME_MAX    100 /* bytes, with the final 0 */
#define ARGUMENT_MAX     128
#define PROCESS_NAME_MAX 16

#define INTERRUPT_KEY 3 /* Ctrl-C */

struct file_info {
    char name[FILE_NAME_MAX];
    uint32_t bytes;
};

enum process_state {
    PROCESS_UNUSED,
    PROCESS_READY,    /* runs, or would if its turn came */
    PROCESS_BLOCKED,  /* until process_wake */
    PROCESS_SLEEPING, /* until a certain tick */
    PROCESS_ENDED     /* until its parent has waited for it */
};

struct process_info {
    int32_t pid, parent;
    uint32_t state; /* enum process_state */
    uint32_t ticks; /* timer interrupts that found it running */
    char name[PROCESS_NAME_MAX];
};
