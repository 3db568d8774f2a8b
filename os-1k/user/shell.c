/* shell.c - the first program: a menu, a few commands, and everything else by name. */
#include "libc.h"

/* The menu: what stands at number N is programs[N - 1]. */
static const struct {
    const char *name, *help;
} programs[] = {
    {"table", "multiplication table, 2 x 1 to 9 x 9"},
    {"counter", "counts from 0 to 9"},
    {"echo", "echoes your input, until q"},
    {"about", "about this system"},
    {"fibonacci", "Fibonacci numbers up to 89"},
    {"primes", "primes up to 100"},
    {"art", "ASCII art"},
    {"factorial", "factorials, 0! to 12!"},
    {"gcd", "greatest common divisor of two numbers"},
};
#define PROGRAM_COUNT (sizeof programs / sizeof programs[0])

static void menu(const char *argument)
{
    printf("\n");
    for (size_t i = 0; i < PROGRAM_COUNT; i++)
        printf("  %u  %-10s %s\n", (uint32_t)(i + 1), programs[i].name, programs[i].help);
    printf("  0  %-10s ends the system\n\n", "exit");
    printf("Type a number or a name; help lists commands and keys.\n\n");
}

static void help(const char *argument)
{
    menu("");
    printf("Commands\n");
    printf("  ls           lists the files        ps        lists the processes\n");
    printf("  cat FILE...  shows files            kill PID  ends a process\n");
    printf("  menu         shows the menu         NAME &    runs NAME in the background\n");
    printf("  Two programs to try: spin computes forever, fault reads the kernel's memory.\n\n");
    printf("Keys\n");
    printf("  Left, Right, Home, End, Ctrl-A, Ctrl-E  move the cursor\n");
    printf("  Up, Down     earlier lines          Tab       completes a name\n");
    printf("  Ctrl-U       erases up to here      Ctrl-K    erases from here\n");
    printf("  Ctrl-W       erases a word          Ctrl-L    clears the screen\n");
    printf("  Ctrl-C       ends the foreground program\n");
    printf("  Ctrl-D       ends the system, when the line is empty\n\n");
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

/* Prints one file. A program's file is not text: what can't be printed is shown as a dot. */
static void file_print(const char *name)
{
    static char text[512], out[512];
    uint32_t offset = 0;
    int count;

    while ((count = readfile(name, offset, text, sizeof text)) > 0) {
        size_t done = 0, size = (size_t)count;
        while (done < size) {
            int length = utf8_length(text + done, size - done);
            if (length == UTF8_PART && done > 0)
                break; /* the rest of it comes with the next bytes */
            bool blank = text[done] == '\n' || text[done] == '\t';
            memcpy(out + done, length > 0 || blank ? text + done : ".",
                   length > 0 ? (size_t)length : 1);
            done += length > 0 ? (size_t)length : 1;
        }
        write(out, done);
        offset += (uint32_t)done;
    }
    if (count < 0)
        printf("cat: %s: %s\n", name, error_text(count));
}

static void cat(const char *names)
{
    static char name[FILE_NAME_MAX];

    if (*names == '\0')
        printf("cat: which file? ls lists them\n");
    while (*names != '\0') {
        names = word_take(names, name, sizeof name);
        file_print(name);
    }
}

/* Ends the process with this number, a child of whomever it is. */
static void kill_process(const char *text)
{
    uint32_t pid;

    if (*text == '\0')
        printf("kill: which process? ps lists them\n");
    else if (!number_parse(text, &pid))
        printf("kill: '%s' is not a process number; ps lists them\n", text);
    else if (pid == 0 || (int)pid == getpid())
        printf("kill: idle and the shell can't be killed\n");
    else if (kill((int)pid) < 0)
        printf("kill: there is no process %u; ps lists them\n", pid);
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
    {"help", help}, {"menu", menu},         {"ls", ls},      {"cat", cat},
    {"ps", ps},     {"kill", kill_process}, {"exit", leave},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static bool is_program(const char *name)
{
    static const char elf[] = "\177ELF";
    char first[sizeof elf - 1];

    return readfile(name, 0, first, sizeof first) == sizeof first &&
           memcmp(first, elf, sizeof first) == 0;
}

/* For Tab: as a line's first word a command or a program, after it any file. */
static const char *name_number(uint32_t index, bool first)
{
    static struct file_info file;

    if (first && index < COMMAND_COUNT)
        return commands[index].name;
    uint32_t left = first ? index - COMMAND_COUNT : index;
    for (uint32_t i = 0; listdir(i, &file) == 0; i++) {
        if (first && !is_program(file.name))
            continue;
        if (left-- == 0)
            return file.name;
    }
    return NULL;
}

/* How a program in the background has ended. */
static void end_print(int pid, int status)
{
    if (status == STATUS_INTERRUPTED)
        printf("pid %d was killed\n", pid);
    else if (status != STATUS_KILLED) /* the kernel has said why */
        printf("pid %d has ended with status %d\n", pid, status);
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
        if (status > 0)
            printf("%s (pid %d) ended with status %d\n", name, pid, status);
    }
}

static void line_run(char *line)
{
    char *text = trim(line);
    size_t length = strlen(text);
    bool background = length > 0 && text[length - 1] == '&';

    if (background) {
        text[length - 1] = '\0';
        text = trim(text);
    }
    if (*text == '\0')
        return;
    const char *name = text;
    char *argument = text;
    while (*argument != '\0' && *argument != ' ')
        argument++;
    if (*argument == ' ')
        *argument++ = '\0';
    argument = trim(argument);
    if (name[0] >= '0' && name[0] <= '9' && name[1] == '\0')
        name = name[0] == '0' ? "exit" : programs[name[0] - '1'].name;

    for (size_t i = 0; i < COMMAND_COUNT; i++)
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

    printf("\nWelcome to the 1K OS, on your own virtual machine monitor.\n");
    menu("");
    do {
        while ((pid = wait(WAIT_ANY, WAIT_NO_HANG, &status)) > 0)
            end_print(pid, status);
        length = getline_with("1k> ", line, name_number);
        if (length > 0)
            line_run(line);
    } while (length != LINE_END);
    leave("");
    return 0;
}
