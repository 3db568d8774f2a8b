#define _GNU_SOURCE
#include "processes.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct process {
    pid_t pid, parent;
    char name[20];
    char state;         /* as proc(5): R running, S sleeping, D in the kernel, T stopped, Z ended */
    double cpu, waited; /* seconds: its own, and of the children that it has waited for */
    size_t memory;
    bool below; /* a descendant of the process that is asked for */
};

struct table {
    struct process *rows;
    size_t count;
};

/* Read a "stat" file (proc(5)). Its name may contain any character, a newline as well: it ends at
 * the last bracket. */
static bool stat_read(const char *path, struct process *process)
{
    char line[1024];
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    line[fread(line, 1, sizeof line - 1, file)] = '\0';
    fclose(file);
    char *open = strchr(line, '(');
    char *close = strrchr(line, ')');
    if (!open || !close)
        return false;
    *close = '\0';
    snprintf(process->name, sizeof process->name, "%.16s", open + 1);
    process->pid = (pid_t)atol(line);
    long parent, pages;
    unsigned long user, system;
    long waited_user, waited_system;
    if (sscanf(close + 2,
               "%c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld %*d %*d %*d %*d %*u %*u "
               "%ld",
               &process->state, &parent, &user, &system, &waited_user, &waited_system, &pages) != 7)
        return false;
    process->parent = (pid_t)parent;
    process->cpu = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    process->waited = (double)(waited_user + waited_system) / (double)sysconf(_SC_CLK_TCK);
    process->memory = (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
    return true;
}

static int compare_pids(const void *a, const void *b)
{
    pid_t left = ((const struct process *)a)->pid, right = ((const struct process *)b)->pid;
    return (left > right) - (left < right);
}

/* A child may have a lower pid than its parent (pids wrap, orphans change parents): repeat until
 * nothing is new. */
static void mark_descendants(struct table *table, pid_t root)
{
    qsort(table->rows, table->count, sizeof *table->rows, compare_pids);
    for (bool found = true; found;) {
        found = false;
        for (size_t i = 0; i < table->count; i++) {
            struct process *child = &table->rows[i], key = {.pid = child->parent};
            if (child->below)
                continue;
            struct process *parent =
                bsearch(&key, table->rows, table->count, sizeof key, compare_pids);
            if (child->parent == root || (parent && parent->below))
                found = child->below = true;
        }
    }
}

/* All processes of the machine, with the descendants of root marked. The caller frees rows. */
static struct table table_read(pid_t root)
{
    struct table table = {0};
    size_t room = 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return table;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[sizeof entry->d_name + 16];
        struct process process = {0};
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (!stat_read(path, &process))
            continue;
        if (table.count == room) {
            room = room ? room * 2 : 128;
            struct process *rows = realloc(table.rows, room * sizeof *rows);
            if (!rows)
                break;
            table.rows = rows;
        }
        table.rows[table.count++] = process;
    }
    closedir(proc);
    if (table.rows)
        mark_descendants(&table, root);
    return table;
}

size_t processes_on_machine(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? info.procs : 0;
}

struct usage processes_measure(pid_t root)
{
    struct usage usage = {0};
    struct table table = table_read(root);
    for (size_t i = 0; i < table.count; i++) {
        const struct process *process = &table.rows[i];
        if (process->below || process->pid == root)
            usage.total += process->waited;
        if (!process->below)
            continue;
        usage.total += process->cpu;
        usage.count += process->state != 'Z' && process->state != 'X';
        usage.memory += process->memory;
        usage.cpu += process->cpu;
    }
    free(table.rows);
    return usage;
}

/* A thread's line NAME of its "status" file (proc(5)), or "". */
static void status_line(FILE *file, const char *name, char *value, size_t size)
{
    char line[256];
    size_t length = strlen(name);
    value[0] = '\0';
    rewind(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, length) == 0) {
            snprintf(value, size, "%s", line + length);
            return;
        }
}

/*
 * Adds a thread's context switches; false if it does not sleep. A thread that has just ended counts
 * as asleep.
 */
static bool thread_asleep(pid_t pid, const char *thread, unsigned long long *switches)
{
    char path[64], state[32], own[32], forced[32];
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", (int)pid, thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return true;
    status_line(file, "State:\t", state, sizeof state);
    status_line(file, "voluntary_ctxt_switches:", own, sizeof own);
    status_line(file, "nonvoluntary_ctxt_switches:", forced, sizeof forced);
    fclose(file);
    *switches += strtoull(own, NULL, 10) + strtoull(forced, NULL, 10);
    return strchr("STtZX", state[0]);
}

bool processes_asleep(pid_t root, unsigned long long *switches)
{
    bool asleep = true;
    struct table table = table_read(root);
    *switches = 0;
    for (size_t i = 0; i < table.count; i++) {
        char path[32];
        if (!table.rows[i].below)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task", (int)table.rows[i].pid);
        DIR *tasks = opendir(path);
        if (!tasks)
            continue;
        for (struct dirent *entry; (entry = readdir(tasks));)
            if (isdigit((unsigned char)entry->d_name[0]))
                asleep &= thread_asleep(table.rows[i].pid, entry->d_name, switches);
        closedir(tasks);
    }
    free(table.rows);
    return asleep;
}

size_t processes_kill(pid_t root)
{
    size_t killed = 0;
    struct table table = table_read(root);
    for (size_t i = 0; i < table.count; i++)
        if (table.rows[i].below && kill(table.rows[i].pid, SIGKILL) == 0)
            killed++;
    free(table.rows);
    return killed;
}

static const char *state_word(char state)
{
    switch (state) {
    case 'R':
        return "running";
    case 'S':
        return "waiting";
    case 'D':
        return "in the kernel";
    case 'T':
    case 't':
        return "stopped";
    case 'Z':
        return "ended, not waited for";
    default:
        return "unknown";
    }
}

/* The name of a system call in which a thread may wait, or its number from /proc. */
static const char *call_name(const char *number)
{
    static const struct {
        long number;
        const char *name;
    } calls[] = {
        {SYS_ioctl, "ioctl"},
        {SYS_ppoll, "ppoll"},
        {SYS_read, "read"},
        {SYS_write, "write"},
        {SYS_futex, "futex: a mutex, a condition or a join"},
        {SYS_nanosleep, "nanosleep"},
        {SYS_clock_nanosleep, "clock_nanosleep"},
        {SYS_wait4, "wait4"},
        {SYS_rt_sigtimedwait, "sigtimedwait"},
#ifdef SYS_poll /* Linux for newer processors, such as arm64, has only their successors */
        {SYS_poll, "poll"},
        {SYS_epoll_wait, "epoll_wait"},
        {SYS_pause, "pause"},
#endif
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (atol(number) == calls[i].number)
            return calls[i].name;
    return number;
}

static size_t append_threads(pid_t pid, char *text, size_t size)
{
    char path[320];
    size_t used = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return 0;
    for (struct dirent *entry; (entry = readdir(tasks)) && used + 1 < size;) {
        struct process thread = {0};
        char call[24] = "";
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/stat", (int)pid, entry->d_name);
        if (!isdigit((unsigned char)entry->d_name[0]) || !stat_read(path, &thread) ||
            strncmp(thread.name, "kvm-", 4) == 0) /* a thread of KVM itself */
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/syscall", (int)pid, entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fscanf(file, "%23s", call) != 1)
            call[0] = '\0';
        if (file)
            fclose(file);
        int put = snprintf(text + used, size - used, "  thread %s: %s, %.2f s of CPU%s%s\n",
                           thread.name, state_word(thread.state), thread.cpu,
                           isdigit((unsigned char)call[0]) ? ", system call " : "",
                           isdigit((unsigned char)call[0]) ? call_name(call) : "");
        used += put > 0 ? (size_t)put : 0;
    }
    closedir(tasks);
    return used < size ? used : size - 1;
}

void processes_describe(pid_t root, char *text, size_t size)
{
    struct table table = table_read(root);
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < table.count && used + 1 < size; i++) {
        const struct process *process = &table.rows[i];
        if (!process->below)
            continue;
        int put = snprintf(text + used, size - used, "process %s: %s, %.2f s of CPU, %zu kB\n",
                           process->name, state_word(process->state), process->cpu,
                           process->memory / 1024);
        used += put > 0 ? (size_t)put : 0;
        if (used < size)
            used += append_threads(process->pid, text + used, size - used);
    }
    free(table.rows);
}
