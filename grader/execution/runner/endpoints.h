/* The runner's ends of the program's stdin, stdout and stderr: pipes or a terminal. */
#pragma once

#include "job.h"

#include <termios.h>

struct endpoints {
    int program[3]; /* the program's descriptors, closed once it runs */
    int input;      /* -1 when closed */
    int output[2];  /* stdout and stderr; -1 when closed or when a terminal carries both */
    int terminal;   /* the terminal's master, -1 if none; also input and output if they are on it */
    int slave;      /* kept open so that the settings outlive the program */
    struct termios initial; /* the terminal's settings before the program started */
};

bool endpoints_open(struct endpoints *endpoints, const struct job *job);
void endpoints_started(struct endpoints *endpoints);
void endpoints_close_input(struct endpoints *endpoints);
void endpoints_close_output(struct endpoints *endpoints, int which);
void endpoints_resize(const struct endpoints *endpoints, unsigned short rows,
                      unsigned short columns);

/* '1' if the terminal's settings are restored, '0' if not, '-' without a terminal. */
char endpoints_restored(const struct endpoints *endpoints);

/* Afterwards, reading the terminal ends when the last program has closed it. */
void endpoints_close_slave(struct endpoints *endpoints);
void endpoints_close(struct endpoints *endpoints);
