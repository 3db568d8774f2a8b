/* report.c - the VMM's error messages, console input, and files. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/core.h"
#include "debug/debug.h"
#include "given.h"

int fail(int status, const char *format, ...)
{
    char line[strlen(format) + sizeof "vmm: \n"];
    va_list arguments;

    output_flush();
    /* One write for the line: guests print to the same terminal. */
    snprintf(line, sizeof line, "vmm: %s\n", format);
    va_start(arguments, format);
    vfprintf(stderr, line, arguments);
    va_end(arguments);
    return status;
}

_Noreturn void todo_reached(const char *exercise, const char *file, int line)
{
    static const char *const handouts[] = {"lab1-real-mode",  "lab2-hypercalls", "lab3-multi-vcpu",
                                           "lab4-interrupts", "lab5-paging",     "lab6-1k-os",
                                           "lab7-long-mode",  "lab8-linux"};

    ending_lock();
    OBSERVE(todo, exercise);
    fail(STATUS_TODO,
         "exercise %s is not written yet: %s, line %d.\n"
         "     See section %s of handouts/%s.md.",
         exercise, file, line, exercise, handouts[exercise[0] - '1']);
    exit(STATUS_TODO);
}

int stdin_getchar(struct vcpu *vcpu)
{
    /* Two vCPUs must not both see the same last byte as ready: one of them would wait in read. */
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int answer = GETCHAR_NOTHING;

    pthread_mutex_lock(&lock);
    if (poll(&input, 1, 0) > 0) {
        uint8_t byte;
        ssize_t count = read(STDIN_FILENO, &byte, 1);
        if (count == 1)
            answer = byte;
        else if (count == 0 || (errno != EINTR && errno != EAGAIN))
            answer = GETCHAR_END;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int file_read(const char *path, size_t max, uint8_t **bytes, size_t *count)
{
    struct stat info;
    int status = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *bytes = NULL;
    *count = 0;
    if (fd < 0)
        return fail(STATUS_GUEST_FILE, "can't open %s: %s", path, strerror(errno));
    if (fstat(fd, &info) < 0)
        status = fail(STATUS_GUEST_FILE, "can't access %s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = fail(STATUS_GUEST_FILE, "%s is %s, not a file", path,
                      S_ISDIR(info.st_mode) ? "a directory" : "a device or pipe");
    else if (info.st_size == 0)
        status = fail(STATUS_GUEST_FILE, "%s is empty", path);
    else if ((uint64_t)info.st_size > max)
        status = fail(STATUS_GUEST_FILE, "%s is too large: %lld bytes, at most %zu fit", path,
                      (long long)info.st_size, max);
    else if (!(*bytes = malloc((size_t)info.st_size)))
        status =
            fail(STATUS_NO_KVM, "no memory for %s (%lld bytes)", path, (long long)info.st_size);
    while (status == 0 && *count < (size_t)info.st_size) {
        ssize_t got = read(fd, *bytes + *count, (size_t)info.st_size - *count);
        if (got > 0)
            *count += (size_t)got;
        else if (got == 0 || errno != EINTR)
            status = fail(STATUS_GUEST_FILE, "can't read %s: %s", path,
                          got == 0 ? "the file became shorter" : strerror(errno));
    }
    if (status != 0) {
        free(*bytes);
        *bytes = NULL;
    }
    close(fd);
    return status;
}
