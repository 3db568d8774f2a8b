/*
 * cheat.h - what the hostile modules share. Each of them is a learner's file that tries to get
 * points without doing its exercise, or to harm who grades it. `make cheats` shows that it fails.
 */
#pragma once

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lab8.h> /* the contract: in this folder are headers of the same names */

/* The attempt itself: each cheat has its own. Called wherever the VMM or a unit test calls the
 * module. */
static void cheat(void);

/* The last argument of this program's command line: the guest's file. */
static inline const char *guest_path(void)
{
    static char line[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t count = read(fd, line, sizeof line - 2);

    close(fd);
    char *last = line;
    for (char *word = line; word < line + count; word += strlen(word) + 1)
        last = word;
    return last;
}

/* The guest's file in memory; its size. */
static inline size_t guest_bytes(unsigned char *bytes, size_t size)
{
    int fd = open(guest_path(), O_RDONLY);
    ssize_t count = read(fd, bytes, size);

    close(fd);
    return count > 0 ? (size_t)count : 0;
}
