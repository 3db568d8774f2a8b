/* A run as requested by the host: what to execute, its input, its limits. */
#pragma once

#include "channel.h"

#include <stdbool.h>
#include <stddef.h>

struct list { /* of strings, NULL-terminated for execve */
    char **items;
    size_t count;
};

/* Higher than any descriptor that the runner has open. */
enum { PORT_FD = 63 };

enum action { ACTION_SEND, ACTION_CLOSE, ACTION_SIGNAL, ACTION_RESIZE };

/* Once `after` has appeared on stream 1 or 2, do the action; data is its bytes, number or "ROWS
 * COLUMNS". */
struct step {
    int stream;
    struct record after;
    enum action action;
    struct record data;
};

struct limits {
    double wall, no_output, after_steps, deadlock, spin, processor; /* seconds; 0: no limit */
    size_t output, memory, processes, file;
};

struct job {
    char *program;
    struct list arguments, environment, outputs;
    char *directory; /* NULL: the scratch folder */
    char *input;
    size_t input_length;
    bool hold_input;
    bool live;           /* interactive: input arrives as records while it runs */
    bool no_kvm_devices; /* it may ask KVM only for memory and processors */
    struct step *steps;
    size_t step_count;
    int port;         /* a device that the program gets as descriptor PORT_FD; 0: none */
    bool terminal[3]; /* which of stdin, stdout, stderr are on a terminal */
    unsigned short rows, columns;
    struct limits limits;
};

/* Add one record to the job. False if the record is unknown. */
bool job_add(struct job *job, struct record *record);
void job_free(struct job *job);
