/* Relays I/O between the program, the steps of its job, and the host. */
#pragma once

#include "endpoints.h"
#include "job.h"

/* Captured output of one stream, kept only if the job has steps. */
struct captured {
    char *data;
    size_t length, searched;
};

struct relay {
    int channel; /* to the host */
    int command; /* to the supervisor */
    const struct job *job;
    struct endpoints endpoints;
    struct captured captured[2];
    char *input; /* for the program's stdin */
    size_t input_length, input_taken;
    bool input_ending; /* close stdin once all input is written */
    size_t steps_done, output_bytes;
    double progress; /* the time of the last output or step */
    bool flooded;    /* output exceeded the job's limit */
    bool host_gone;
};

/* CLOCK_MONOTONIC in seconds. */
double clock_now(void);

void relay_send(struct relay *relay, const char *key, const void *data, size_t length);

/* The program runs: queue the job's input; signals go through the supervisor's `command`. */
void relay_begin(struct relay *relay, int command);

/* Read from stdout (0) or stderr (1), which is readable, and pass it on. */
void relay_output_take(struct relay *relay, int which);

/* Take all steps that are due. */
void relay_steps_take(struct relay *relay);

/* Whether there is input that is not written yet. */
bool relay_input_waits(const struct relay *relay);

/* Write to the program's stdin, which is writable. */
void relay_input_flush(struct relay *relay);

/* Read and execute a record from the host. */
void relay_host_obey(struct relay *relay);

void relay_free(struct relay *relay);
