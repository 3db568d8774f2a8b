#define _GNU_SOURCE
#include "endpoints.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool terminal_open(struct endpoints *endpoints, const struct job *job)
{
    int unlock = 0;
    endpoints->terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (endpoints->terminal < 0 || ioctl(endpoints->terminal, TIOCSPTLCK, &unlock) != 0)
        return false;
    /* By ioctl, not by name: in this mount namespace the name may mean another terminal (Linux
     * 4.13). */
    endpoints->slave = ioctl(endpoints->terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (endpoints->slave < 0)
        return false;
    endpoints_resize(endpoints, job->rows, job->columns);
    return tcgetattr(endpoints->slave, &endpoints->initial) == 0;
}

static bool pipe_open(int *reading, int *writing, int *ours)
{
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0)
        return false;
    *reading = both[0];
    *writing = both[1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

bool endpoints_open(struct endpoints *endpoints, const struct job *job)
{
    *endpoints = (struct endpoints){{-1, -1, -1}, -1, {-1, -1}, -1, -1, {0}};
    const bool *on_terminal = job->terminal;
    if ((on_terminal[0] || on_terminal[1] || on_terminal[2]) && !terminal_open(endpoints, job))
        return false;
    for (int fd = 0; fd < 3; fd++)
        if (on_terminal[fd] &&
            (endpoints->program[fd] = fcntl(endpoints->slave, F_DUPFD_CLOEXEC, 3)) < 0)
            return false;
    if (on_terminal[0])
        endpoints->input = endpoints->terminal;
    else if (!pipe_open(&endpoints->program[0], &endpoints->input, &endpoints->input))
        return false;
    for (int which = 0; which < 2; which++)
        if (!on_terminal[which + 1] &&
            !pipe_open(&endpoints->output[which], &endpoints->program[which + 1],
                       &endpoints->output[which]))
            return false;
    if (on_terminal[1])
        endpoints->output[0] = endpoints->terminal;
    else if (on_terminal[2])
        endpoints->output[1] = endpoints->terminal;
    return true;
}

void endpoints_started(struct endpoints *endpoints)
{
    for (int fd = 0; fd < 3; fd++) {
        close(endpoints->program[fd]);
        endpoints->program[fd] = -1;
    }
}

static void close_unless_terminal(const struct endpoints *endpoints, int *fd)
{
    if (*fd >= 0 && *fd != endpoints->terminal)
        close(*fd);
    *fd = -1;
}

void endpoints_close_input(struct endpoints *endpoints)
{
    close_unless_terminal(endpoints, &endpoints->input);
}

void endpoints_close_output(struct endpoints *endpoints, int which)
{
    close_unless_terminal(endpoints, &endpoints->output[which]);
}

void endpoints_resize(const struct endpoints *endpoints, unsigned short rows,
                      unsigned short columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (endpoints->terminal >= 0 && ioctl(endpoints->terminal, TIOCSWINSZ, &size) != 0)
        perror("runner: terminal size");
}

char endpoints_restored(const struct endpoints *endpoints)
{
    struct termios now;
    if (endpoints->terminal < 0)
        return '-';
    memset(&now, 0, sizeof now);
    if (tcgetattr(endpoints->slave, &now) != 0)
        return '0';
    return now.c_iflag == endpoints->initial.c_iflag && now.c_oflag == endpoints->initial.c_oflag &&
                   now.c_cflag == endpoints->initial.c_cflag &&
                   now.c_lflag == endpoints->initial.c_lflag &&
                   memcmp(now.c_cc, endpoints->initial.c_cc, sizeof now.c_cc) == 0
               ? '1'
               : '0';
}

void endpoints_close_slave(struct endpoints *endpoints)
{
    if (endpoints->slave >= 0)
        close(endpoints->slave);
    endpoints->slave = -1;
}

void endpoints_close(struct endpoints *endpoints)
{
    for (int fd = 0; fd < 3; fd++)
        if (endpoints->program[fd] >= 0)
            close(endpoints->program[fd]);
    endpoints_close_input(endpoints);
    endpoints_close_output(endpoints, 0);
    endpoints_close_output(endpoints, 1);
    endpoints_close_slave(endpoints);
    if (endpoints->terminal >= 0)
        close(endpoints->terminal);
}
