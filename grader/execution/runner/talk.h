/* What passes between the program, the steps of its job, and the host. */
#pragma once

#include "ends.h"
#include "job.h"

/* What one of the program's streams has said: kept only where a step waits for something in it. */
struct heard {
    char *data;
    size_t length, searched;
};

struct talk {
    int channel; /* to the host */
    int command; /* to the keeper */
    const struct job *job;
    struct ends ends;
    struct heard heard[2];
    char *input; /* for the program's stdin */
    size_t input_length, input_taken;
    bool input_ending; /* close stdin once all is taken */
    size_t steps_done, output_bytes;
    double progress; /* the time of the last output or step */
    bool flooded;    /* more was printed than the job allows */
    bool host_gone;
};

/* CLOCK_MONOTONIC in seconds. */
double clock_now(void);

void talk_tell(struct talk *talk, const char *key, const void *data, size_t length);

/* The program runs: give it the job's input, and signals through the keeper's `command`. */
void talk_begin(struct talk *talk, int command);

/* Read from stdout (0) or stderr (1), which has something, and pass it on. */
void talk_output_take(struct talk *talk, int which);

/* Take all steps whose time has come. */
void talk_steps_take(struct talk *talk);

/* Whether there is input that the program has not taken. */
bool talk_input_waits(const struct talk *talk);

/* Write to the program's stdin, which has room. */
void talk_input_flush(struct talk *talk);

/* Do what the host says, which has said something. */
void talk_host_obey(struct talk *talk);

void talk_free(struct talk *talk);
