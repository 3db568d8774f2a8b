/* shell.c - the first program: a menu, a few commands, and everything else by name. */
#include "libc.h"

/* The menu: what stands at number N is programs[N - 1]. */
static const struct {
    const char *name, *help;
} programs[] = {
    {"table", "multiplication table, 2 x 1 to 9 x 9"},
    {"counter", "counts from 0 to 9"},
    {"echo", "says what you say, until q"},
    {"about", "about this system"},
    {"fibonacci", "Fibonacci numbers up to 89"},
    {"primes", "primes up to 100"},
    {"art", "ASCII art"},
    {"factorial", "factorials, 0! to 12!"},
    {"gcd", "greatest common divisor of two numbers"},
};
#define PROGRAM_COUNT (sizeof programs / sizeof programs[0])

static void help(const char *argument)
{
    printf("\n");
    for (size_t i = 0; i < PROGRAM_COUNT; i++)
        printf("  %u  %-10s %s\n", (uint32_t)(i + 1), programs[i].name, programs[i].help);
    printf("  0  %-10s ends the system\n\n", "exit");
    printf("  ls lists the files, cat FILE shows one, ps lists the processes, help this menu.\n");
    printf("  NAME & runs a program in the background; Ctrl-C stops the one in front.\n\n");
}

static void leave(const char *argument)
{
    printf("Goodbye.\n");
    exit(0);
}

static void ls(const char *argument)
{
    struct file_info file;

    for (uint32_t i = 0; listdir(i, &file) == 0; i++)
        printf("%8u %s\n", file.bytes, file.name);
}

static void cat(const char *name)
{
    static char text[512];

    if (*name == '\0') {
        printf("cat: which file? ls lists them\n");
        return;
    }
    uint32_t offset = 0;
    int count;
    while ((count = readfile(name, offset, text, sizeof text)) > 0) {
        /* A program's file is no text: its control bytes could upset the terminal. */
        for (int i = 0; i < count; i++)
            if ((text[i] < ' ' && text[i] != '\n' && text[i] != '\t') || text[i] == 127)
                text[i] = '.';
        write(text, (size_t)count);
        offset += (uint32_t)count;
    }
    if (count < 0)
        printf("cat: %s: %s\n", name, error_text(count));
}

static void ps(const char *argument)
{
    static const char *const states[] = {"unused", "ready", "blocked", "sleeping", "ended"};
    struct process_info process;

    printf("  PID PARENT STATE      TICKS NAME\n");
    for (uint32_t i = 0; processes(i, &process) == 0; i++)
        if (process.state != PROCESS_UNUSED)
            printf("%5d %6d %-8s %7u %s\n", process.pid, process.parent, states[process.state],
                   process.ticks, process.name);
    printf("%d pages free\n", pages());
}

static const struct {
    const char *name;
    void (*run)(const char *argument);
} commands[] = {
    {"help", help}, {"menu", help},  {"ls", ls},   {"cat", cat},
    {"ps", ps},     {"exit", leave}, {"0", leave},
};

/* Says how a program ended, unless well or with words of the kernel. */
static void status_print(int pid, const char *name, int status)
{
    if (status > 0)
        printf("%s (pid %d) ended with status %d\n", name, pid, status);
}

/* Cuts spaces off both ends. */
static char *trim(char *text)
{
    while (*text == ' ')
        text++;
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == ' ')
        text[--length] = '\0';
    return text;
}

static void program_run(const char *name, const char *argument, bool background)
{
    if (name[0] >= '1' && name[0] <= '9' && name[1] == '\0')
        name = programs[name[0] - '1'].name;
    int pid = spawn(name, argument, background ? 0 : SPAWN_FOREGROUND);
    if (pid == ERROR_NOT_FOUND || pid == ERROR_TOO_LONG)
        printf("There is no program or command '%s'; help shows the menu.\n", name);
    else if (pid < 0)
        printf("%s can't be run: %s.\n", name, error_text(pid));
    else if (background) {
        printf("%s runs in the background, pid %d\n", name, pid);
    } else {
        int status;
        wait(pid, 0, &status);
        status_print(pid, name, status);
    }
}

static void line_run(char *line)
{
    char *name = trim(line);
    size_t length = strlen(name);
    bool background = length > 0 && name[length - 1] == '&';

    if (background) {
        name[length - 1] = '\0';
        name = trim(name);
    }
    if (*name == '\0')
        return;
    char *argument = name;
    while (*argument != '\0' && *argument != ' ')
        argument++;
    if (*argument == ' ')
        *argument++ = '\0';
    argument = trim(argument);

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(name, commands[i].name) == 0) {
            commands[i].run(argument);
            return;
        }
    program_run(name, argument, background);
}

int main(const char *argument)
{
    static char line[LINE_MAX];
    int length, status, pid;

    printf("\nWelcome to the 1K OS, on a virtual machine monitor of your own.\n");
    help("");
    do {
        while ((pid = wait(WAIT_ANY, WAIT_NO_HANG, &status)) > 0)
            printf("pid %d has ended with status %d\n", pid, status);
        length = getline("1k> ", line);
        if (length > 0)
            line_run(line);
    } while (length != LINE_END);
    leave("");
    return 0;
}
