#define _GNU_SOURCE
#include "ends.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool terminal_open(struct ends *ends, const struct job *job)
{
    int unlock = 0;
    ends->terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (ends->terminal < 0 || ioctl(ends->terminal, TIOCSPTLCK, &unlock) != 0)
        return false;
    /* By ioctl, not by name: the name may be another's in this mount namespace (Linux 4.13). */
    ends->slave = ioctl(ends->terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends->slave < 0)
        return false;
    ends_resize(ends, job->rows, job->columns);
    return tcgetattr(ends->slave, &ends->initial) == 0;
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

bool ends_open(struct ends *ends, const struct job *job)
{
    *ends = (struct ends){{-1, -1, -1}, -1, {-1, -1}, -1, -1, {0}};
    const bool *on_terminal = job->terminal;
    if ((on_terminal[0] || on_terminal[1] || on_terminal[2]) && !terminal_open(ends, job))
        return false;
    for (int fd = 0; fd < 3; fd++)
        if (on_terminal[fd] && (ends->program[fd] = fcntl(ends->slave, F_DUPFD_CLOEXEC, 3)) < 0)
            return false;
    if (on_terminal[0])
        ends->input = ends->terminal;
    else if (!pipe_open(&ends->program[0], &ends->input, &ends->input))
        return false;
    for (int which = 0; which < 2; which++)
        if (!on_terminal[which + 1] &&
            !pipe_open(&ends->output[which], &ends->program[which + 1], &ends->output[which]))
            return false;
    if (on_terminal[1])
        ends->output[0] = ends->terminal;
    else if (on_terminal[2])
        ends->output[1] = ends->terminal;
    return true;
}

void ends_started(struct ends *ends)
{
    for (int fd = 0; fd < 3; fd++) {
        close(ends->program[fd]);
        ends->program[fd] = -1;
    }
}

static void close_unless_terminal(const struct ends *ends, int *fd)
{
    if (*fd >= 0 && *fd != ends->terminal)
        close(*fd);
    *fd = -1;
}

void ends_close_input(struct ends *ends)
{
    close_unless_terminal(ends, &ends->input);
}

void ends_close_output(struct ends *ends, int which)
{
    close_unless_terminal(ends, &ends->output[which]);
}

void ends_resize(const struct ends *ends, unsigned short rows, unsigned short columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (ends->terminal >= 0 && ioctl(ends->terminal, TIOCSWINSZ, &size) != 0)
        perror("runner: terminal size");
}

char ends_restored(const struct ends *ends)
{
    struct termios now;
    if (ends->terminal < 0)
        return '-';
    memset(&now, 0, sizeof now);
    if (tcgetattr(ends->slave, &now) != 0)
        return '0';
    return now.c_iflag == ends->initial.c_iflag && now.c_oflag == ends->initial.c_oflag &&
                   now.c_cflag == ends->initial.c_cflag && now.c_lflag == ends->initial.c_lflag &&
                   memcmp(now.c_cc, ends->initial.c_cc, sizeof now.c_cc) == 0
               ? '1'
               : '0';
}

void ends_close_slave(struct ends *ends)
{
    if (ends->slave >= 0)
        close(ends->slave);
    ends->slave = -1;
}

void ends_close(struct ends *ends)
{
    for (int fd = 0; fd < 3; fd++)
        if (ends->program[fd] >= 0)
            close(ends->program[fd]);
    ends_close_input(ends);
    ends_close_output(ends, 0);
    ends_close_output(ends, 1);
    ends_close_slave(ends);
    if (ends->terminal >= 0)
        close(ends->terminal);
}
