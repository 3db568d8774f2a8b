/*
 * said.h - what the module says: the judge of a unit test hears it, keeps what a test asks about,
 * passes it on, and looks for words in it. Part of apart.h.
 */
#pragma once

#include <ctype.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Standard error of the module's process is a pipe to the judge, in every test and all the time: so
 * the module can't find out when the judge listens, and with it which call has to fail. The judge
 * passes on what comes, to the real standard error, while the call still runs: the grader takes a
 * program for hung that prints nothing.
 */
static PRIVATE int said_pipe = -1;
static PRIVATE char said[16384];  /* what came since listen_start */
static PRIVATE size_t said_bytes; /* of it, where zeros may be among them */
static PRIVATE enum { NOT_LISTENING, LISTENING, HOLDING } listening;
static atomic_bool heard; /* the judge has read something, or is about to */

BOTH static inline void said_pass_on(const char *text, size_t bytes)
{
    for (long part; bytes > 0; text += part, bytes -= (size_t)part)
        if ((part = syscall(SYS_write, STDERR_FILENO, text, bytes)) <= 0)
            return;
}

/* Reads what is there, and waits for nothing. */
BOTH static inline void said_hear(void)
{
    char text[4096];
    int bytes = 0;

    if (said_pipe < 0 || syscall(SYS_ioctl, said_pipe, FIONREAD, &bytes) != 0)
        return;
    while (bytes > 0) {
        atomic_store(&heard, true);
        const long part = syscall(SYS_read, said_pipe, text, sizeof text);
        if (part <= 0)
            return;
        bytes -= (int)part;
        const size_t room = sizeof said - 1 - said_bytes;
        if (listening != NOT_LISTENING) {
            const size_t kept = (size_t)part < room ? (size_t)part : room;
            memcpy(said + said_bytes, text, kept);
            said_bytes += kept;
            said[said_bytes] = '\0';
        }
        if (listening != HOLDING)
            said_pass_on(text, (size_t)part);
    }
}

static inline void listen_start(void)
{
    said_hear();
    said[said_bytes = 0] = '\0';
    listening = LISTENING;
}

/* The same; nothing is passed on before listen_end, and after listen_drop nothing of it at all. */
static inline void listen_hold(void)
{
    listen_start();
    listening = HOLDING;
}

BOTH static inline void listen_end(void)
{
    said_hear();
    if (listening == HOLDING)
        said_pass_on(said, said_bytes);
    listening = NOT_LISTENING;
}

static inline void listen_drop(void)
{
    said_hear();
    listening = NOT_LISTENING;
}

static inline bool is_word(char character)
{
    return isalnum((unsigned char)character);
}

/* This text is in `said` as a word: "0x00ABC" is the word abc, and so is "ABCh"; "1abc" is not. */
static inline bool said_word(const char *word)
{
    for (const char *at = said; *at;) {
        const char *end = at;
        while (is_word(*end))
            end++;
        if (end == at) {
            at++;
            continue;
        }
        const char *start = at + (at[0] == '0' && tolower(at[1]) == 'x' ? 2 : 0);
        while (*start == '0' && start + 1 < end)
            start++;
        const size_t bytes = strlen(word);
        const size_t found = (size_t)(end - start);
        if (strncasecmp(start, word, bytes) == 0 &&
            (found == bytes || (found == bytes + 1 && tolower(start[bytes]) == 'h')))
            return true;
        at = end;
    }
    return false;
}

static inline bool said_hexadecimal(uint64_t number)
{
    char word[24];

    snprintf(word, sizeof word, "%llx", (unsigned long long)number);
    return said_word(word);
}

/* The number was named, hexadecimal or decimal. */
static inline bool said_number(uint64_t number)
{
    char word[24];

    snprintf(word, sizeof word, "%llu", (unsigned long long)number);
    return said_hexadecimal(number) || said_word(word);
}
