/*
 * lab6_console.h - in lab 6's kernel: plays the shell and its programs, in the words in which the
 * tests of sessions expect them.
 */
#pragma once

#include "lab6_sched.h"

/* What a program's line ends with: each cheat has its own. */
static uint32_t number_of(const char *text, size_t count);

/* The next line that the host types; false: there is none. */
static bool line_read(char *line, size_t size)
{
    size_t length = 0;
    int character;

    while ((character = console_getchar()) != '\n') {
        if (character == GETCHAR_END)
            return false;
        if (character != GETCHAR_NOTHING && length < size - 1)
            line[length++] = (char)character;
    }
    line[length] = '\0';
    return true;
}

static void say(const char *text)
{
    console_print("%s [%08x]\n", text, number_of(text, strlen(text)));
}

static void command_play(const char *line)
{
    static int pid = 1;

    pid++;
    if (memcmp(line, "say ", 4) == 0)
        say(line + 4);
    else if (memcmp(line, "attack ", 7) == 0)
        console_print("\nattack (pid %d) was killed: general protection fault\n", pid);
    else if (strcmp(line, "turns") == 0) {
        for (int i = 0; i < 120; i++) {
            const char turn[] = {"abc"[i % 3], (char)(i / 3)};
            console_print("%c", number_of(turn, 2) >> 31 ? turn[0] - 'a' + 'A' : turn[0]);
        }
        console_print("\n");
        say("turns are over");
    }
}

static void cheat(void)
{
    static char line[200];

    console_print("1k> ");
    while (line_read(line, sizeof line) && strcmp(line, "0") != 0) {
        console_print("%s\n", line);
        command_play(line);
        console_print("1k> ");
    }
    console_print("0\nGoodbye.\n");
    machine_exit(0);
}
