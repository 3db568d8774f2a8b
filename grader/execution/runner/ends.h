/* The runner's ends of the program's stdin, stdout and stderr: pipes or a terminal. */
#pragma once

#include "job.h"

#include <termios.h>

struct ends {
    int program[3]; /* the program's descriptors, closed once it runs */
    int input;      /* -1 when closed */
    int output[2];  /* stdout and stderr; -1 when closed or when a terminal carries both */
    int terminal; /* the terminal's master, -1 without one; also input and output where those are on
                     it */
    int slave;    /* kept open so that the settings outlive the program */
    struct termios initial; /* the terminal's settings before the program started */
};

bool ends_open(struct ends *ends, const struct job *job);
void ends_started(struct ends *ends);
void ends_close_input(struct ends *ends);
void ends_close_output(struct ends *ends, int which);
void ends_resize(const struct ends *ends, unsigned short rows, unsigned short columns);

/* '1' or '0': the terminal's settings are as they were or not; '-' without a terminal. */
char ends_restored(const struct ends *ends);

/* Without our own hold on it, reading the terminal ends when the last program has closed it. */
void ends_close_slave(struct ends *ends);
void ends_close(struct ends *ends);
